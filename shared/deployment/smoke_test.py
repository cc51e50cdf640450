"""Checks a deployment: the function is up, reads mentors and reaches the engine. A dry run sends no notification."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from shared.deployment.http_call import Answer, NoAnswerError, call

INVOCATIONS = "/api/v1/scheduler-invocations"
MENTORS = 10
START_SECONDS = 120.0
PAUSE_SECONDS = 0.2
ENDED = frozenset({"success", "partial", "failed", "cancelled"})
HINTS = {
    "engine_rejected": "the engine turns the function away: look at SCENARIO_ENGINE_URL and SCENARIO_ENGINE_TOKEN",
    "engine_unavailable": "the engine is unavailable: check SCENARIO_ENGINE_URL",
}


class SmokeTestError(Exception):
    """It does not work; the text says what was expected and found, and perhaps where to look."""


class SmokeTest:
    """Asks a deployed function.

    Args:
        url: the function's, without a slash at its end.
        admin_token: one that it knows.
        version: the one that was deployed.
        time_budget_seconds: how long a slice may take.
        say: prints a line.
        sleep: waits so many seconds.
        clock: a time in seconds that only grows.
    """

    def __init__(
        self,
        url: str,
        admin_token: str,
        *,
        version: str,
        time_budget_seconds: float,
        say: Callable[[str], None] = print,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {admin_token}"}
        self._version = version
        self._time_budget_seconds = time_budget_seconds
        self._say = say
        self._sleep = sleep
        self._clock = clock

    def wait_until_up(self) -> None:
        """Waits for the version that was deployed.

        Raises:
            SmokeTestError: another one answers, or none.
        """
        found = ""
        for _ in self._attempts(START_SECONDS):
            try:
                answer = call(f"{self._url}/health", timeout_seconds=10)
            except NoAnswerError as error:
                found = f"no answer ({error})"
                continue
            version = answer.body.get("version") if isinstance(answer.body, dict) else None
            if answer.status == 200 and version == self._version:
                self._say(f"version {version} is up at {self._url}")
                return
            found = f"version {version}" if version else f"the answer {answer.problem}"
        raise SmokeTestError(f"{self._url}/health: expected version {self._version}, found {found}")

    def knows_token(self) -> bool:
        """Whether the function knows the token already.

        Raises:
            SmokeTestError: it does not answer.
        """
        return self._call(f"{INVOCATIONS}?limit=1").status != 401

    def dry_run(self) -> None:
        """Evaluates ten mentors without consequences.

        Raises:
            SmokeTestError: a mentor was not evaluated, or none could be.
        """
        mentors = self._read(f"{INVOCATIONS}/active-peer-mentors?limit={MENTORS}")["data"]
        if not mentors:
            self._say("no mentor is active yet, so nothing was tried; a scheduled run needs at least one")
            return
        request = {
            "user_ids": [mentor["user_id"] for mentor in mentors],
            "dry_run": True,
            "note": f"smoke test of version {self._version}",
        }
        invocation = self._read(INVOCATIONS, method="POST", body=request)
        for _ in self._attempts(2 * self._time_budget_seconds + 30):
            if invocation["status"] in ENDED or invocation["error_code"] in HINTS:
                break
            invocation = self._read(f"{INVOCATIONS}/{invocation['id']}")
        self._judge(invocation)

    def _judge(self, invocation: dict[str, Any]) -> None:
        counts = invocation["counts"]
        if invocation["status"] == "success":
            self._say(
                f"a dry run of {counts['mentors']} mentors succeeded: {counts['evaluations']} evaluations, "
                f"{counts['triggered']} would have notified"
            )
            return
        if invocation["status"] not in ENDED:
            # Otherwise it would continue for hours.
            self._call(f"{INVOCATIONS}/{invocation['id']}", method="PUT", body={"status": "cancelled"})
        causes = [f"{cause['count']} times {cause['code']}: {cause['message']}" for cause in invocation["failures"]]
        error = invocation["error_code"]
        found = [*causes, *filter(None, (HINTS.get(error, error), invocation["error_message"]))]
        raise SmokeTestError(
            f"the dry run {invocation['id']}: expected success, found {invocation['status']}; "
            + "; ".join(found or [f"{counts['not_evaluated']} not evaluated"])
        )

    def _read(self, path: str, **request: Any) -> Any:
        answer = self._call(path, **request)
        if answer.status == 401:
            raise SmokeTestError(f"{path}: the function does not know the first of SCHEDULER_ADMIN_TOKENS (401)")
        if answer.status not in (200, 201, 202) or not isinstance(answer.body, dict):
            raise SmokeTestError(f"{path}: expected an answer, found {answer.problem}")
        return answer.body

    def _call(self, path: str, **request: Any) -> Answer:
        try:
            timeout = self._time_budget_seconds + 60
            return call(f"{self._url}{path}", headers=self._headers, timeout_seconds=timeout, **request)
        except NoAnswerError as error:
            raise SmokeTestError(f"{self._url}{path}: no answer ({error})") from error

    def _attempts(self, seconds: float) -> Iterator[None]:
        """Yields at once, then at growing intervals until the time is over."""
        until, pause = self._clock() + seconds, PAUSE_SECONDS
        yield
        while self._clock() < until:
            self._sleep(pause)
            pause = min(pause * 1.5, 5.0)
            yield
