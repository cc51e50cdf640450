"""The smoke test reports what it found: a version, mentors, an engine; or what is wrong and where to look."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import httpx
import pytest

from shared.deployment.http_call import describe_problem
from shared.deployment.report import CheckError
from shared.deployment.settings import Sources, check
from shared.deployment.smoke_test import INVOCATIONS, SmokeTest
from shared.fingerprint import Fingerprint
from shared.version import VERSION
from tests.unit.clock import ManualClock
from tests.unit.environment import ADMIN_TOKEN, REQUIRED

DATABASE = {"DATABASE_URL": "postgresql://postgres:hush@db/postgres"}
OLD_TOKEN = "old-admin-token-0123456789-0123456789"
TOKENS = {"SCHEDULER_ADMIN_TOKENS": f"{ADMIN_TOKEN},{OLD_TOKEN}"}
DEPLOYMENT = check("container", Sources(None, {}, REQUIRED | DATABASE | TOKENS), {})
EXPECTED = Fingerprint("c" * 40, "s" * 40, "0 2 * * * UTC")
DIGESTS = f"code {'c' * 12}, settings {'s' * 12}"
NEW: dict[str, Any] = {"version": VERSION, **asdict(EXPECTED)}
OLD = NEW | {"settings_digest": "o" * 40, "schedule": "0 3 * * * UTC"}
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
        self.known_tokens = {ADMIN_TOKEN, OLD_TOKEN}
        client = httpx.Client(transport=httpx.MockTransport(self._answer))
        self.tester = SmokeTest("http://function", DEPLOYMENT, client, sleep=clock.advance, clock=clock)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        place = f"{request.method} {request.url.path}"
        self.received.append((place, json.loads(request.content or "null")))
        token = request.headers["Authorization"].removeprefix("Bearer ")
        assert token == ADMIN_TOKEN or place == HEALTH
        waiting = self.answers[place]
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(answer, Exception):
            raise answer
        is_shown = token in self.known_tokens or place != HEALTH or answer[1] is None or "schedule" not in answer[1]
        return httpx.Response(answer[0], json=answer[1] if is_shown else {"version": VERSION})


@pytest.fixture
def function(clock: ManualClock) -> Function:
    return Function(clock)


def test_deployed_code_and_settings_are_waited_for(function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [(503, None)] * 2 + [(200, OLD)] * 2 + [(200, NEW)] * 2
    function.answers[HEALTH] = [httpx.ConnectError("refused"), *answers]
    function.tester.wait_until_up(EXPECTED)
    assert len(function.received) == 7
    assert capsys.readouterr().out == f"   version {VERSION} is up at http://function: {DIGESTS}\n"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (
            (200, OLD),
            f"code {'c' * 12}, settings {'o' * 12}: still in service is the old settings, with the schedule 0 3",
        ),
        ((200, OLD | {"code_digest": "o" * 40}), ".*: still in service is the old code and settings"),
        ((200, NEW | {"code_digest": "o" * 40}), ".*: still in service is the old code,"),
        ((200, {"version": "0"}), r"version 0 without digests: still in service is the old one \(it knows no token"),
        ((404, {"title": "Not Found"}), "404: Not Found$"),
        (httpx.ConnectError("refused"), r"http://function/health: no answer \(refused\)$"),
        (httpx.LocalProtocolError(f"illegal header {ADMIN_TOKEN}"), r".* no answer \(LocalProtocolError\)$"),
    ],
)
def test_an_old_function_is_waited_for_and_described(
    function: Function, clock: ManualClock, answer: Any, found: str
) -> None:
    function.answers[HEALTH] = [answer]
    function.known_tokens = {OLD_TOKEN}
    began = clock.now
    with pytest.raises(CheckError, match=f"^expected {DIGESTS} at http://function, found {found}"):
        function.tester.wait_until_up(EXPECTED)
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
    sources = Sources(None, {}, REQUIRED | DATABASE | {"ENGINE_PROTOCOL": "single"})
    replace(function.tester, deployment=check("container", sources, {})).dry_run()
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
