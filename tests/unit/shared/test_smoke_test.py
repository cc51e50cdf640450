"""The smoke test reports what it found: a version, mentors, an engine; or what is wrong and where to look."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from shared.deployment.http_call import LONGEST_ANSWER, CheckError, describe_problem, send
from shared.deployment.settings import check
from shared.deployment.smoke_test import INVOCATIONS, SmokeTest
from shared.version import VERSION
from tests.unit.clock import ManualClock
from tests.unit.environment import ADMIN_TOKEN, REQUIRED

DEPLOYMENT = check("container", REQUIRED | {"DATABASE_URL": "postgresql://postgres:hush@db/postgres"}, {})
MENTORS, RUNS, RUN = f"GET {INVOCATIONS}/active-peer-mentors", f"POST {INVOCATIONS}", f"GET {INVOCATIONS}/i1"
CANCEL, HEALTH = f"PUT {INVOCATIONS}/i1", "GET /health"
COUNTS = {"mentors": 1, "evaluations": 2, "triggered": 1, "not_evaluated": 0}
ERROR = {"error_code": None, "error_message": None, "failures": list[object]()}
OK = ERROR | {"id": "i1", "status": "success", "counts": COUNTS}
RUNNING = OK | {"status": "running"}
CAUSE = {"code": "engine_internal", "count": 2, "message": "it fell over"}
AWAY = OK | {"status": "failed", "error_code": "engine_unavailable", "error_message": "expected a known certificate"}


class Function:
    """A function with scripted answers: the last answer for an address again and again."""

    def __init__(self, clock: ManualClock) -> None:
        self.answers: dict[str, list[tuple[int, Any]]] = {MENTORS: [(200, {"data": [{"user_id": "u1"}]})]}
        self.received: list[tuple[str, Any]] = []
        client = httpx.Client(transport=httpx.MockTransport(self._answer))
        self.tester = SmokeTest("http://function", DEPLOYMENT, client, sleep=clock.advance, clock=clock)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        place = f"{request.method} {request.url.path}"
        self.received.append((place, json.loads(request.content or "null")))
        assert request.headers.get("Authorization") == (None if place == HEALTH else f"Bearer {ADMIN_TOKEN}")
        waiting = self.answers[place]
        status, body = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if status == 0:
            raise httpx.ConnectError("refused")
        return httpx.Response(status, json=body)


@pytest.fixture
def function(clock: ManualClock) -> Function:
    return Function(clock)


def test_the_deployed_version_is_waited_for(function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    function.answers[HEALTH] = [(0, None), (503, None), (200, {"version": "0"}), (200, {"version": VERSION})]
    function.tester.wait_until_up()
    assert len(function.received) == 4
    assert capsys.readouterr().out == f"   version {VERSION} is up at http://function\n"


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, {"version": "0"}, "found version 0"),
        (404, {"title": "Not Found"}, "found 404: Not Found"),
        (0, None, r"found http://function/health: no answer \(refused"),
    ],
)
def test_another_version_is_waited_for_two_minutes(
    function: Function, clock: ManualClock, status: int, body: Any, found: str
) -> None:
    function.answers[HEALTH] = [(status, body)]
    began = clock.now
    with pytest.raises(CheckError, match=f"expected version {VERSION} at http://function, {found}"):
        function.tester.wait_until_up()
    assert 120 <= clock.now - began < 130


def test_existing_mentors_get_a_dry_run(function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    function.answers |= {RUNS: [(201, RUNNING)], RUN: [(200, RUNNING), (200, OK)]}
    function.tester.dry_run()
    request = {"user_ids": ["u1"], "dry_run": True, "note": f"smoke test of version {VERSION}"}
    assert [body for place, body in function.received if place == RUNS] == [request]
    said = "a dry run of 1 mentors succeeded: 2 evaluations, 1 would have notified"
    assert capsys.readouterr().out == f"   {said}\n"
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
        (
            201,
            OK | {"status": "partial", "failures": [CAUSE]},
            "found partial; 2 times engine_internal: it fell",
            False,
        ),
        (201, AWAY, r"check SCENARIO_ENGINE_URL; expected a known certificate$", False),
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
    long, leaking = {"code": 7, "detail": "x" * 5000}, {"detail": "x" * 280 + ADMIN_TOKEN}
    assert describe_problem(httpx.Response(500, json=long), {}) == "500: " + "x" * 299 + "…"
    shown = describe_problem(httpx.Response(502, json=leaking), {"TOKENS": f"other, anna:{ADMIN_TOKEN}"})
    assert shown == "502: " + "x" * 280 + "[secret]"


def test_only_the_beginning_of_a_long_answer_is_kept() -> None:
    endless = (b"x" * 65536 for _ in range(1_000_000))
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, content=endless))) as client:
        assert LONGEST_ANSWER < len(send(client, "GET", "http://function").content) <= LONGEST_ANSWER + 65536


def test_an_error_of_the_client_shows_no_header() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError(f"Illegal header value b'{ADMIN_TOKEN}'")

    with (
        httpx.Client(transport=httpx.MockTransport(refuse)) as client,
        pytest.raises(CheckError, match=r"^http://function: no answer \(LocalProtocolError\)$"),
    ):
        send(client, "GET", "http://function")
