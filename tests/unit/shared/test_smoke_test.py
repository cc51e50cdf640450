"""The smoke test says what it found: a version, mentors, an engine; or what is wrong and where to look."""

from __future__ import annotations

from typing import Any

import pytest

from shared.deployment.http_call import Answer, NoAnswerError
from shared.deployment.smoke_test import INVOCATIONS, SmokeTest, SmokeTestError
from tests.unit.clock import ManualClock

TOKEN = "admin-token-0123456789-0123456789"
MENTORS, RUNS, RUN = f"GET {INVOCATIONS}/active-peer-mentors", f"POST {INVOCATIONS}", f"GET {INVOCATIONS}/i1"
CANCEL = f"PUT {INVOCATIONS}/i1"
COUNTS = {"mentors": 1, "evaluations": 2, "triggered": 1, "not_evaluated": 0}
OK: dict[str, Any] = {
    "id": "i1",
    "status": "success",
    "error_code": None,
    "error_message": None,
    "failures": [],
    "counts": COUNTS,
}
RUNNING = OK | {"status": "running"}
PARTIAL = OK | {
    "status": "partial",
    "failures": [{"code": "engine_internal", "count": 2, "message": "it fell over"}],
}
AWAY = OK | {"status": "failed", "error_code": "engine_unavailable", "error_message": "expected a known certificate"}


class Function:
    """A function with scripted answers: the last answer for an address again and again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> None:
        self.answers: dict[str, list[tuple[int, Any]]] = {MENTORS: [(200, {"data": [{"user_id": "u1"}]})]}
        self.asked: list[tuple[str, Any]] = []
        self.said: list[str] = []
        monkeypatch.setattr("shared.deployment.smoke_test.call", self._call)
        where = {"url": "http://function/", "admin_token": TOKEN, "version": "1.2.3"}
        self.tester = SmokeTest(**where, time_budget_seconds=25, say=self.said.append, sleep=clock.advance, clock=clock)

    def _call(self, url: str, *, method: str = "GET", headers: Any = None, body: Any = None, **_: object) -> Answer:
        place = f"{method} {url.removeprefix('http://function').partition('?')[0]}"
        self.asked.append((place, body))
        assert headers == (None if place == "GET /health" else {"Authorization": f"Bearer {TOKEN}"})
        waiting = self.answers[place]
        status, answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if status == 0:
            raise NoAnswerError("refused")
        return Answer(status, answer)


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> Function:
    return Function(monkeypatch, clock)


def test_the_version_that_was_deployed_is_waited_for(function: Function) -> None:
    function.answers["GET /health"] = [(0, None), (503, None), (200, {"version": "1.2.2"}), (200, {"version": "1.2.3"})]
    function.tester.wait_until_up()
    assert len(function.asked) == 4
    assert function.said == ["version 1.2.3 is up at http://function"]


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, {"version": "1.2.2"}, "found version 1.2.2"),
        (404, {"title": "Not Found"}, "the answer 404: Not Found"),
        (0, None, r"no answer \(refused"),
    ],
)
def test_another_version_is_waited_for_two_minutes(
    function: Function, clock: ManualClock, status: int, body: Any, found: str
) -> None:
    function.answers["GET /health"] = [(status, body)]
    began = clock.now
    with pytest.raises(SmokeTestError, match=f"expected version 1.2.3, .*{found}"):
        function.tester.wait_until_up()
    assert 120 <= clock.now - began < 130


def test_the_mentors_that_there_are_get_a_dry_run(function: Function) -> None:
    function.answers |= {RUNS: [(201, RUNNING)], RUN: [(200, RUNNING), (200, OK)]}
    function.tester.dry_run()
    sent = [body for place, body in function.asked if place == RUNS]
    assert sent == [{"user_ids": ["u1"], "dry_run": True, "note": "smoke test of version 1.2.3"}]
    assert function.said == ["a dry run of 1 mentors succeeded: 2 evaluations, 1 would have notified"]
    function.answers[MENTORS] = [(200, {"data": []})]
    function.tester.dry_run()
    assert function.asked[-1][0] == MENTORS
    assert "no mentor is active yet" in function.said[1]


@pytest.mark.parametrize(
    ("status", "run", "said", "is_cancelled"),
    [
        (201, PARTIAL, "found partial; 2 times engine_internal: it fell over", False),
        (201, AWAY, r"check SCENARIO_ENGINE_URL; expected a known certificate$", False),
        (201, RUNNING | {"error_code": "engine_rejected"}, "SCENARIO_ENGINE_TOKEN", True),
        (201, RUNNING, "0 not evaluated", True),
        (401, {}, "does not know the first of SCHEDULER_ADMIN_TOKENS", False),
        (500, {"code": "refused", "detail": "no\nrights"}, "found 500 refused: no\ufffdrights$", False),
        (200, None, "found 200$", False),
    ],
)
def test_a_run_that_does_not_succeed_says_why(
    function: Function, status: int, run: Any, said: str, is_cancelled: bool
) -> None:
    function.answers |= {RUNS: [(status, run)], RUN: [(200, run)], CANCEL: [(200, run)]}
    with pytest.raises(SmokeTestError, match=said):
        function.tester.dry_run()
    assert (function.asked[-1] == (CANCEL, {"status": "cancelled"})) is is_cancelled


def test_a_problem_is_shown_cut_and_without_secrets() -> None:
    assert Answer(500, {"code": 7, "detail": "x" * 5000}).problem == "500: " + "x" * 299 + "…"
    assert Answer(502, {"detail": "x" * 280 + TOKEN}, [TOKEN]).problem == "502: " + "x" * 280 + "[secret]"
