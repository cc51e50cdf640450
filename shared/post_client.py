"""What the trigger engine and the alert webhook expect of an HTTP client; `http_client.py` is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class HttpError(Exception):
    """The exchange failed. The text is the cause in the library's words: one bounded line without the URL.

    `is_connecting`: there was no connection, so nothing of the request was sent; otherwise it may have arrived.
    """

    def __init__(self, text: str, *, is_connecting: bool = False) -> None:
        super().__init__(text)
        self.is_connecting = is_connecting


class HttpTimeoutError(HttpError):
    """Connecting took longer than `connect_seconds`; None: the whole exchange took longer than it may."""

    def __init__(self, connect_seconds: float | None = None) -> None:
        text = "no answer in time" if connect_seconds is None else f"no connection within {connect_seconds:g} s"
        super().__init__(text, is_connecting=connect_seconds is not None)


class HttpBodyError(HttpError):
    """The body is longer than allowed, or cannot be unpacked."""


class HttpResponse(NamedTuple):
    """An answer: its status and headers count whatever became of the body.

    `headers` are looked up in lower case; `content` is unpacked; `unreadable`: why there is none.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes = b""
    unreadable: HttpError | None = None

    def header(self, name: str) -> str | None:
        """Returns the first value of a header; None where there is none that is ASCII."""
        try:
            return self.headers.get(name)
        except ValueError:
            return None


class PostClient(Protocol):
    """Posts to one URL; replaced in tests."""

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpResponse:
        """Sends one request, once, and follows no redirect.

        Args:
            headers: beside the client's own.
            timeout_seconds: for the whole exchange, the answer's body included.
            max_bytes: of the answer's body, unpacked; reading stops there.

        Raises:
            HttpTimeoutError: there was no answer in time.
            HttpError: no connection, or it broke before the answer's head was whole, or what came is no HTTP.
            ValueError: no request can be made of the URL or the headers.
        """


class Connect(Protocol):
    """Makes a `PostClient`; `connect_seconds` bounds name lookup, connecting and TLS handshake together."""

    def __call__(self, url: str, headers: Mapping[str, str], *, connect_seconds: float) -> PostClient: ...
