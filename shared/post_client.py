"""What the trigger engine and the alert webhook expect of an HTTP client; `http_client.py` is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class HttpError(Exception):
    """The exchange failed. The text is the cause in the library's words: one bounded line without the URL."""


class HttpTimeoutError(HttpError):
    """It took too long.

    Args:
        connect_seconds: connecting took longer than this; None: the whole exchange took longer than it may.
    """

    def __init__(self, connect_seconds: float | None = None) -> None:
        self.is_connecting = connect_seconds is not None
        super().__init__(f"no connection within {connect_seconds:g} s" if self.is_connecting else "no answer in time")


class HttpBodyError(HttpError):
    """The body is longer than allowed, or cannot be unpacked."""


class HttpResponse(NamedTuple):
    """An answer: its status and headers count whatever became of the body.

    Args:
        headers: looked up by their names in lower case.
        content: the whole body, unpacked; empty if it is unreadable.
        unreadable: why the body cannot be read; None: it was.
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
    """Posts to one URL; tests stand in for it."""

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpResponse:
        """Sends one request, once, and follows no redirect.

        Args:
            content: the body.
            headers: beside the client's own.
            timeout_seconds: for the whole exchange, the answer's body included.
            max_bytes: of the answer's body, unpacked; reading stops there.

        Raises:
            HttpTimeoutError: there was no answer in time.
            HttpError: no connection, or it broke before the answer's head was whole, or what came is no HTTP.
            ValueError: no request can be made of the URL or the headers.
        """
        ...


class Connect(Protocol):
    """Makes a `PostClient` for a URL."""

    def __call__(self, url: str, headers: Mapping[str, str], *, connect_seconds: float) -> PostClient:
        """Connects to nothing yet.

        Args:
            url: where to.
            headers: of every request.
            connect_seconds: for looking up the name, connecting and the TLS handshake together, at most.
        """
        ...
