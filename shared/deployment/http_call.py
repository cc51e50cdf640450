"""One HTTP request with nothing but Python's own library: whoever deploys need not have the function's packages."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TIMEOUT_SECONDS = 60.0
LONGEST_ANSWER = 1024 * 1024


class NoAnswerError(Exception):
    """Nobody answered; the text says why and shows no secret."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Args:
        status: the HTTP status.
        body: the JSON, or None where it is none.
    """

    status: int
    body: Any

    @property
    def problem(self) -> str:
        """Why it was refused, for a person."""
        body = self.body if isinstance(self.body, dict) else {}
        told = body.get("detail") or body.get("message") or body.get("title")
        return f"{self.status}: {told}" if told else str(self.status)


def call(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: object = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Answer:
    """Sends one request.

    Args:
        url: http or https.
        method: the HTTP method.
        headers: may hold secrets.
        body: sent as JSON; None: nothing.
        timeout_seconds: for connecting, and for each wait for the answer.

    Raises:
        NoAnswerError: nobody answered.
    """
    request = urllib.request.Request(  # noqa: S310  # the settings' reader allows http and https alone
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={**(headers or {}), **({} if body is None else {"Content-Type": "application/json"})},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as response:  # noqa: S310
            return Answer(response.status, _json(response.read(LONGEST_ANSWER)))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, _json(error.read(LONGEST_ANSWER)))
    except urllib.error.URLError as error:
        raise NoAnswerError(f"{error.reason}") from error
    except (OSError, ValueError) as error:
        raise NoAnswerError(f"{type(error).__name__}") from error


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
