"""The smoke test reports what it found: a version, mentors, an engine; or what is wrong and where to look."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import httpx
import pytest

from shared.deployment.report import CheckError
from shared.deployment.settings import check
from shared.deployment.smoke_test import INVOCATIONS, SmokeTest, describe_problem
from shared.fingerprint import Fingerprint
from shared.version import VERSION
from tests.unit.environment import ADMIN_TOKEN, REQUIRED

ADDED = {"DATABASE_URL": "postgresql://postgres:hush@db/postgres", "SCENARIO_ENGINE_URL": "https://engine.example"}
DEPLOYMENT = check("container", None, REQUIRED | ADDED)
EXPECTED = Fingerprint("c" * 40, "s" * 40, "0 2 * * * UTC")
DIGESTS = f"code {'c' * 12}, settings {'s' * 12}"
NEW: dict[str, Any] = {"version": VERSION, **asdict(EXPECTED)}
OLD = NEW | {"settings_digest": "o" * 40, "schedule": "0 3 * * * UTC"}
MENTORS, RUNS, RUN = f"GET {INVOCATIONS}/active-peer-mentors", f"POST {INVOCATIONS}", f"GET {INVOCATIONS}/i1"
CANCEL, HEALTH = f"PUT {INVOCATIONS}/i1", "GET /health"
COUNTS = {"mentors": 1, "evaluations": 2, "triggered": 1, "not_evaluated": 0}
OK: dict[str, Any] = {"id": "i1", "status": "success", "error_code": None, "error_message": None, "counts": COUNTS}
OK |= {"finished_at": "2026-12-01T02:00:00Z"}
RUNNING = OK | {"status": "running", "finished_at": None, "failures": []}
PARTIAL = OK | {"status": "partial", "failures": [{"code": "engine_internal", "count": 2, "message": "it fell over"}]}
AWAY = PARTIAL | {
    "status": "failed",
    "failures": [],
    "error_code": "engine_unavailable",
    "error_message": "a known certificate",
}


class Function:
    """A function with scripted answers: the last answer for an address again and again."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Any]] = {MENTORS: [(200, {"data": [{"user_id": "u1"}]})]}
        self.received: list[tuple[str, Any]] = []
        self.waited: list[float] = []
        client = httpx.Client(transport=httpx.MockTransport(self._answer))
        self.tester = SmokeTest("http://function", DEPLOYMENT, client, self._attempts)

    def _attempts(self, seconds: float) -> Iterable[None]:
        self.waited.append(seconds)
        return [None] * 10

    def _answer(self, request: httpx.Request) -> httpx.Response:
        place = f"{request.method} {request.url.path}"
        self.received.append((place, json.loads(request.content or "null")))
        assert request.headers["Authorization"] == f"Bearer {ADMIN_TOKEN}"
        waiting = self.answers[place]
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer[0], json=answer[1])


@pytest.fixture
def function() -> Function:
    return Function()


def test_deployed_code_and_settings_are_waited_for(function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    function.answers[HEALTH] = [httpx.ConnectError("refused"), (503, None), (200, OLD), (200, None), (200, NEW)]
    function.tester.wait_until_up(EXPECTED, "restart it")
    assert (len(function.received), function.waited) == (5, [120])
    assert capsys.readouterr().out == f"   version {VERSION} is up at http://function: {DIGESTS}\n"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ((200, OLD), f".*settings_digest {'o' * 40}, schedule 0 3.*: still in service is the old one; .*: restart it$"),
        ((200, {"version": "0"}), "version 0: still in service is the old one"),
        ((404, {"title": "Not Found"}), "http://function/health: 404: Not Found$"),
        (httpx.ConnectError("refused"), r"http://function/health: no answer \(refused\)$"),
        (httpx.LocalProtocolError(f"illegal header {ADMIN_TOKEN}"), r".* no answer \(LocalProtocolError\)$"),
    ],
)
def test_a_function_that_is_not_the_deployed_one_is_described(function: Function, answer: Any, found: str) -> None:
    function.answers[HEALTH] = [answer]
    with pytest.raises(CheckError, match=f"^expected {DIGESTS} at http://function, found {found}"):
        function.tester.wait_until_up(EXPECTED, "restart it")


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
    deployment = check("container", None, REQUIRED | ADDED | {"ENGINE_PROTOCOL": "single"})
    replace(function.tester, deployment=deployment).dry_run()
    assert function.received == []
    assert "supports no dry runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "run", "said", "is_cancelled"),
    [
        (201, PARTIAL, "found partial; 2 times engine_internal: it fell over", False),
        (201, AWAY, "engine_unavailable; a known certificate$", False),
        (201, RUNNING | {"error_code": "engine_rejected"}, "found running; engine_rejected$", True),
        (201, RUNNING, "0 not evaluated", True),
        (500, {"code": "refused", "detail": "no\nrights"}, ": 500 refused: no\ufffdrights$", False),
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
    for detail, shown in (("x" * 5000, "x" * 394 + "…"), ("x" * 380 + ADMIN_TOKEN, "x" * 380 + "[secret]")):
        answer = httpx.Response(502, json={"detail": detail})
        assert describe_problem(answer, {"TOKENS": f"other, anna:{ADMIN_TOKEN}"}) == f"502: {shown}"
