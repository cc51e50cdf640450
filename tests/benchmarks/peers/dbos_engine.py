"""The DBOS contender's call to the engine: time-out, retries, and one user's failure costs only that user.

Blocking, for workflows that run in threads: with coroutines DBOS hands each of them from thread to thread several
times, and the whole took half as long again (measured).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError, RequestTimeoutError

TIMEOUT = timedelta(seconds=10)
MOST_ATTEMPTS = 5
LONGEST_PAUSE_SECONDS = 8.0
OK, TIMED_OUT, TOO_MANY, SERVER_ERROR = 200, 408, 429, 500

Row = tuple[str, str, str, str | None, int]


class CallFailedError(Exception):
    """The engine turned a call away, for good or at the last attempt."""

    def __init__(self, code: str, attempts: int) -> None:
        super().__init__(code)
        self.code = code
        self.attempts = attempts


class Engine:
    """Asks the engine about users.

    Args:
        url: its base URL.
        token: its bearer token.
        in_flight: calls at once; who comes when there are as many waits.
    """

    def __init__(self, url: str, token: str, in_flight: int) -> None:
        self._url = f"{url}/v1/evaluations"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._client: SyncClient = SyncClientBuilder().timeout(TIMEOUT).build()
        self._places = threading.BoundedSemaphore(in_flight)

    def evaluate(self, run: dict[str, str], users: Sequence[str], types: Sequence[str]) -> list[Row]:
        """A row for each pair. A call that fails is halved until whoever it fails for stands alone."""
        try:
            results, attempts = self._ask(run, users, types)
        except CallFailedError as error:
            if len(users) > 1:
                half = len(users) // 2
                return self.evaluate(run, users[:half], types) + self.evaluate(run, users[half:], types)
            return [(users[0], name, f"failed:{error.code}", None, error.attempts) for name in types]
        found = {(result["user_id"], result["scenario_type"]): result for result in results}
        missing = {"outcome": "failed:engine_missing_result"}
        return [
            (user, name, result["outcome"], result.get("notification_id"), attempts)
            for user in users
            for name in types
            for result in [found.get((user, name), missing)]
        ]

    def _ask(self, run: dict[str, str], users: Sequence[str], types: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
        body = {
            "invocation_id": run["id"],
            "scheduled_for": run["scheduled_for"],
            "dry_run": False,
            "evaluations": [
                {"user_id": user, "scenario_types": types, "idempotency_key_prefix": f"{run['scope']}:{user}"}
                for user in users
            ],
        }
        attempt = 0
        while True:
            attempt += 1
            retry_after = 0.0
            try:
                with self._places:
                    answer = self._client.post(self._url).headers(self._headers).body_json(body).build().send()
                if answer.status == OK:
                    return answer.json()["results"], attempt
                code = f"engine_http_{answer.status}"
                if answer.status not in (TIMED_OUT, TOO_MANY) and answer.status < SERVER_ERROR:
                    raise CallFailedError(code, attempt)
                after = answer.headers.get("retry-after") or ""
                retry_after = float(after) if after.isdecimal() else 0
            except PyreqwestError as error:
                code = "engine_timeout" if isinstance(error, RequestTimeoutError) else "engine_unreachable"
            if attempt == MOST_ATTEMPTS:
                raise CallFailedError(code, attempt)
            time.sleep(retry_after or random.uniform(0, min(LONGEST_PAUSE_SECONDS, 0.2 * 2**attempt)))
