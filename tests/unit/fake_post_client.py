"""A `PostClient` without a network: it keeps what is posted and answers as its script says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from shared.post_client import HttpResponse


class Posted(NamedTuple):
    """One request."""

    content: bytes
    headers: Mapping[str, str]
    timeout_seconds: float
    max_bytes: int


def reply(
    status: int, *, json_body: object = None, content: bytes = b"", headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Makes an answer; the names of its headers in any case."""
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    return HttpResponse(status, lower, content if json_body is None else json.dumps(json_body).encode())


class FakePostClient:
    """Gives each call the next of the replies, the last one from then on; an exception is raised."""

    def __init__(self, *replies: HttpResponse | Exception) -> None:
        self._replies = [*replies]
        self.posted: list[Posted] = []
        self.url = ""
        self.headers: Mapping[str, str] = {}

    def connect(self, url: str, headers: Mapping[str, str], *, connect_seconds: float) -> FakePostClient:
        self.url, self.headers = url, headers
        return self

    def script(self, *replies: HttpResponse | Exception) -> None:
        self._replies = [*replies]

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpResponse:
        self.posted.append(Posted(content, headers, timeout_seconds, max_bytes))
        answer = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(answer, Exception):
            raise answer
        return answer
