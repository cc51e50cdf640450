"""One HTTP request, and its answer for a person to read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from shared.sanitize import sanitize

TIMEOUT_SECONDS = 60.0
LONGEST_ANSWER = 1024 * 1024
LONGEST_CODE = 80
LONGEST_DETAIL = 300
# Shorter than this, a part of a header is no secret.
SHORTEST_SECRET = 12


class NoAnswerError(Exception):
    """There was no answer; the text says why and shows no secret."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Args:
        status: the HTTP status.
        body: the JSON, or None where it is none.
        secrets: what `problem` must not show, should the answer repeat it.
    """

    status: int
    body: Any
    secrets: Sequence[str] = field(default=(), repr=False)

    @property
    def problem(self) -> str:
        """Returns status, code and detail for a person: one line, cut, without secrets."""
        body = self.body if isinstance(self.body, dict) else {}
        code = self._shown(body.get("code"), LONGEST_CODE)
        detail = self._shown(body.get("detail") or body.get("message") or body.get("title"), LONGEST_DETAIL)
        return f"{self.status} {code}".rstrip() + (f": {detail}" if detail else "")

    def _shown(self, text: object, limit: int) -> str:
        if not isinstance(text, str):
            return ""
        # Before it is cut: half of a secret is one as well.
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "[secret]")
        return sanitize(text, limit=limit)


def call(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: object = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Answer:
    """Sends one request; a redirect is an answer like any other.

    Args:
        url: http or https.
        method: the HTTP method.
        headers: may hold secrets.
        body: sent as JSON; None: nothing.
        timeout_seconds: for connecting, and for each wait for the answer.

    Raises:
        NoAnswerError: there was no answer.
    """
    headers = headers or {}
    secrets = [part for text in headers.values() for part in text.split() if len(part) >= SHORTEST_SECRET]
    identity = {"Accept-Encoding": "identity"}
    received = b""
    try:
        with httpx.stream(method, url, headers={**identity, **headers}, json=body, timeout=timeout_seconds) as response:
            for piece in response.iter_bytes():
                received += piece
                if len(received) > LONGEST_ANSWER:
                    break
    except httpx.ConnectError as error:
        raise NoAnswerError(f"{error}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswerError(type(error).__name__) from error
    return Answer(response.status_code, read_json(received), secrets)


def read_json(body: bytes) -> Any:
    """Returns what the JSON says, or None where it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return None
