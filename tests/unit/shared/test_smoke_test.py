"""The smoke test reports what it found: a version, mentors, an engine; or what is wrong and where to look."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from shared.deployment.http_call import describe_problem
from shared.deployment.report import CheckError
from shared.deployment.settings import check
from shared.deployment.smoke_test import INVOCATIONS, SmokeTest
from shared.version import VERSION
from tests.unit.clock import ManualClock
from tests.unit.environment import ADMIN_TOKEN, REQUIRED

DEPLOYMENT = check("container", REQUIRED | {"DATABASE_URL": "postgresql://postgres:hush@db/postgres"}, {})
MENTORS, RUNS, RUN = f"GET {INVOCATIONS}/active-peer-mentors", f"POST {INVOCATIONS}", f"GET {INVOCATIONS}/i1"
CANCEL, HEALTH = f"PUT {INVOCATIONS}/i1", "GET /health"
COUNTS = {"mentors": 1, "evaluations": 2, "triggered": 1, "not_evaluated": 0}
OK: dict[str, Any] = {"id": "i1", "status": "success", "error_code": None, "error_message": None, "counts": COUNTS}
RUNNING = OK | {"status": "running", "failures": []}
PARTIAL = OK | {"status": "partial", "failures": [{"code": "engine_internal", "count": 2, "message": "it fell over"}]}
AWAY = RUNNING | {"status": "failed", "error_code": "engine_unavailable", "error_message": "a known certificate"}


class Function:
    """A function with scripted answers: the last answer for an address again and again."""

    def __init__(self, clock: ManualClock) -> None:
        self.answers: dict[str, list[Any]] = {MENTORS: [(200, {"data": [{"user_id": "u1"}]})]}
        self.received: list[tuple[str, Any]] = []
        client = httpx.Client(transport=httpx.MockTransport(self._answer))
        self.tester = SmokeTest("http://function", DEPLOYMENT, client, sleep=clock.advance, clock=clock)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        place = f"{request.method} {request.url.path}"
        self.received.append((place, json.loads(request.content or "null")))
        assert request.headers.get("Authorization") == (None if place == HEALTH else f"Bearer {ADMIN_TOKEN}")
        waiting = self.answers[place]
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer[0], json=answer[1])


@pytest.fixture
def function(clock: ManualClock) -> Function:
    return Function(clock)


def test_the_deployed_version_is_waited_for(function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [(503, None), (200, {"version": "0"}), (200, {"version": VERSION})]
    function.answers[HEALTH] = [httpx.ConnectError("refused"), *answers]
    function.tester.wait_until_up()
    assert len(function.received) == 4
    assert capsys.readouterr().out == f"   version {VERSION} is up at http://function\n"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ((200, {"version": "0"}), "version 0"),
        ((404, {"title": "Not Found"}), "404: Not Found"),
        (httpx.ConnectError("refused"), r"http://function/health: no answer \(refused\)"),
        (httpx.LocalProtocolError(f"illegal header {ADMIN_TOKEN}"), r".* no answer \(LocalProtocolError\)"),
    ],
)
def test_another_version_is_waited_for_two_minutes(
    function: Function, clock: ManualClock, answer: Any, found: str
) -> None:
    function.answers[HEALTH] = [answer]
    began = clock.now
    with pytest.raises(CheckError, match=f"^expected version {VERSION} at http://function, found {found}$"):
        function.tester.wait_until_up()
    assert 120 <= clock.now - began < 130


def test_existing_mentors_get_a_dry_run(function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    function.answers |= {RUNS: [(201, RUNNING)], RUN: [(200, RUNNING), (200, OK)]}
    function.tester.dry_run()
    request = {"user_ids": ["u1"], "dry_run": True, "note": f"smoke test of version {VERSION}"}
    assert [body for place, body in function.received if place == RUNS] == [request]
    assert "1 mentors succeeded: 2 evaluations, 1 would have notified" in capsys.readouterr().out
    function.answers[MENTORS] = [(200, {"data": []})]
    function.tester.dry_run()
    assert function.received[-1][0] == MENTORS
    assert "no mentor is active yet" in capsys.readouterr().out


def test_no_dry_run_is_sent_to_an_engine_without_them(function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {**REQUIRED, "DATABASE_URL": "postgresql://postgres:hush@db/postgres", "ENGINE_PROTOCOL": "single"}
    replace(function.tester, deployment=check("container", environment, {})).dry_run()
    assert function.received == []
    assert "supports no dry runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "run", "said", "is_cancelled"),
    [
        (201, PARTIAL, "found partial; 2 times engine_internal: it fell over", False),
        (201, AWAY, r"check SCENARIO_ENGINE_URL; a known certificate$", False),
        (201, RUNNING | {"error_code": "engine_rejected"}, "SCENARIO_ENGINE_TOKEN", True),
        (201, RUNNING, "0 not evaluated", True),
        (401, {}, "does not know the first of SCHEDULER_ADMIN_TOKENS", False),
        (500, {"code": "refused", "detail": "no\nrights"}, "found 500 refused: no\ufffdrights$", False),
        (200, None, "found 200$", False),
    ],
)
def test_an_unsuccessful_run_is_explained(
    function: Function, status: int, run: Any, said: str, is_cancelled: bool
) -> None:
    # The run may have ended by the time that it is cancelled.
    function.answers |= {RUNS: [(status, run)], RUN: [(200, run)], CANCEL: [(409, run)]}
    with pytest.raises(CheckError, match=said):
        function.tester.dry_run()
    assert (function.received[-1] == (CANCEL, {"status": "cancelled"})) is is_cancelled


def test_a_problem_is_shown_cut_and_without_secrets() -> None:
    for detail, shown in (("x" * 5000, "x" * 299 + "…"), ("x" * 280 + ADMIN_TOKEN, "x" * 280 + "[secret]")):
        answer = httpx.Response(502, json={"code": 7, "detail": detail})
        assert describe_problem(answer, {"TOKENS": f"other, anna:{ADMIN_TOKEN}"}) == f"502: {shown}"
