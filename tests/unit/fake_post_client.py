"""A `PostClient` without a network: it keeps what is posted and answers as its script says."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from shared.post_client import HttpResponse


class Posted(NamedTuple):
    """One request."""

    content: bytes
    headers: Mapping[str, str]
    timeout_seconds: float
    max_bytes: int


Reply = HttpResponse | Exception | Callable[[Posted], HttpResponse | Awaitable[HttpResponse]]


def reply(
    status: int, *, json_body: object = None, content: bytes = b"", headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Makes an answer; the names of its headers in any case."""
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    return HttpResponse(status, lower, content if json_body is None else json.dumps(json_body).encode())


class FakePostClient:
    """Gives each call the next of `replies`, the last one from then on."""

    def __init__(self, *replies: Reply) -> None:
        self.replies: Sequence[Reply] = replies
        self.posted: list[Posted] = []
        self.url = ""
        self.headers: Mapping[str, str] = {}
        self._answered = 0

    def connect(self, url: str, headers: Mapping[str, str], *, connect_seconds: float) -> FakePostClient:
        self.url, self.headers = url, headers
        return self

    def script(self, *replies: Reply) -> None:
        """From the next call on."""
        self.replies, self._answered = replies, 0

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpResponse:
        posted = Posted(content, headers, timeout_seconds, max_bytes)
        self.posted.append(posted)
        answer = self.replies[min(self._answered, len(self.replies) - 1)]
        self._answered += 1
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, HttpResponse):
            return answer
        made = answer(posted)
        return made if isinstance(made, HttpResponse) else await made
