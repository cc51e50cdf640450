"""The smoke test says what it found: a version, mentors, an engine; or what is wrong and where to look."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from shared.deployment.smoke_test import INVOCATIONS, SmokeTest, SmokeTestError

TOKEN = "admin-token-0123456789-0123456789"
COUNTS = {"mentors": 1, "evaluations": 2, "triggered": 1, "not_evaluated": 0}
INVOCATION: dict[str, Any] = {
    "id": "i1",
    "status": "succeeded",
    "error": None,
    "error_message": None,
    "failures": [],
    "counts": COUNTS,
}


class Function:
    """A function that answers what it is told to: the last answer for an address again and again."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, Any]]] = {
            "GET /health": [(200, {"status": "ok", "version": "1.2.3"})],
            f"GET {INVOCATIONS}/active-peer-mentors": [(200, {"items": [{"user_id": "u1"}], "next_cursor": None})],
            f"POST {INVOCATIONS}": [(201, INVOCATION)],
        }
        self.asked: list[tuple[str, Any]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.now = 0.0
        self.said: list[str] = []

    def tester(self) -> SmokeTest:
        """Its clock moves only when it waits."""

        def sleep(seconds: float) -> None:
            self.now += seconds

        return SmokeTest(
            f"http://127.0.0.1:{self.server.server_port}/",
            TOKEN,
            version="1.2.3",
            time_budget_seconds=25,
            say=self.said.append,
            sleep=sleep,
            clock=lambda: self.now,
        )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        function = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                place = f"{self.command} {self.path.partition('?')[0]}"
                function.asked.append((place, body))
                waiting = function.answers[place]
                status, answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                if self.headers.get("Authorization") != f"Bearer {TOKEN}" and place != "GET /health":
                    status, answer = 401, {}
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            do_GET = do_POST = do_PUT = answer  # noqa: N815  # the names that the server looks for

            def log_message(self, *_: object) -> None: ...

        return Handler


@pytest.fixture
def function() -> Iterator[Function]:
    function = Function()
    thread = threading.Thread(target=function.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield function
    function.server.shutdown()
    thread.join()
    function.server.server_close()


def test_the_version_that_was_deployed_is_waited_for(function: Function) -> None:
    function.answers["GET /health"] = [(503, None), (200, {"version": "1.2.2"}), (200, {"version": "1.2.3"})]
    function.tester().wait_until_up()
    assert len(function.asked) == 3
    assert function.said[0].startswith("version 1.2.3 is up at")


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ((200, {"version": "1.2.2"}), "found version 1.2.2"),
        ((404, {"title": "Not Found"}), "the answer 404: Not Found"),
    ],
)
def test_another_version_is_not_waited_for_for_ever(function: Function, answer: Any, found: str) -> None:
    function.answers["GET /health"] = [answer]
    with pytest.raises(SmokeTestError, match=f"expected version 1.2.3, .*{found}"):
        function.tester().wait_until_up()
    assert 120 <= function.now < 130


def test_nobody_there_is_said_so() -> None:
    clock = iter(range(0, 10_000, 60))
    tester = SmokeTest(
        *("http://127.0.0.1:9", TOKEN),
        version="1.2.3",
        time_budget_seconds=25,
        sleep=lambda _: None,
        clock=lambda: next(clock),
    )
    with pytest.raises(SmokeTestError, match=r"no answer \(.*refused"):
        tester.wait_until_up()


def test_a_dry_run_of_the_mentors_that_there_are(function: Function) -> None:
    function.answers[f"POST {INVOCATIONS}"] = [(201, INVOCATION | {"status": "running"})]
    function.answers[f"GET {INVOCATIONS}/i1"] = [(200, INVOCATION | {"status": "running"}), (200, INVOCATION)]
    function.tester().dry_run()
    sent = [body for place, body in function.asked if place == f"POST {INVOCATIONS}"]
    assert sent == [{"user_ids": ["u1"], "dry_run": True, "note": "smoke test of version 1.2.3"}]
    assert function.said == ["a dry run of 1 mentors succeeded: 2 evaluations, 1 would have notified"]


def test_without_a_mentor_nothing_is_tried(function: Function) -> None:
    function.answers[f"GET {INVOCATIONS}/active-peer-mentors"] = [(200, {"items": [], "next_cursor": None})]
    function.tester().dry_run()
    assert "no mentor is active yet" in function.said[0]
    assert len(function.asked) == 1


def test_failures_are_told_by_their_causes(function: Function) -> None:
    failed = {"status": "partial", "failures": [{"code": "engine_internal", "count": 2, "message": "it fell over"}]}
    function.answers[f"POST {INVOCATIONS}"] = [(201, INVOCATION | failed)]
    with pytest.raises(SmokeTestError, match="found partial; 2 times engine_internal: it fell over"):
        function.tester().dry_run()


def test_what_was_wrong_with_the_engine_follows_the_hint(function: Function) -> None:
    away = {"status": "failed", "error": "engine_unavailable", "error_message": "expected a known certificate"}
    function.answers[f"POST {INVOCATIONS}"] = [(201, INVOCATION | away)]
    with pytest.raises(SmokeTestError, match=r"look at SCENARIO_ENGINE_URL; expected a known certificate$"):
        function.tester().dry_run()


@pytest.mark.parametrize(
    ("error", "hint"),
    [("engine_rejected", "SCENARIO_ENGINE_TOKEN"), (None, "0 not evaluated")],
    ids=["rejected", "slow"],
)
def test_a_run_that_gets_nowhere_is_cancelled(function: Function, error: str | None, hint: str) -> None:
    stuck = INVOCATION | {"status": "running", "error": error}
    function.answers |= {
        f"POST {INVOCATIONS}": [(201, stuck)],
        f"GET {INVOCATIONS}/i1": [(200, stuck)],
        f"PUT {INVOCATIONS}/i1": [(200, stuck)],
    }
    with pytest.raises(SmokeTestError, match=hint):
        function.tester().dry_run()
    assert function.asked[-1] == (f"PUT {INVOCATIONS}/i1", {"status": "cancelled"})


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, {}, "does not know the first of SCHEDULER_ADMIN_TOKENS"),
        (503, {"detail": "the database refuses"}, "found 503: the database refuses"),
        (500, {"code": "database_refused", "detail": "no\nrights"}, "found 500 database_refused: no\ufffdrights$"),
        (500, {"code": 7, "detail": "x" * 5000}, "found 500: x{299}…$"),
        (502, {"detail": "x" * 280 + TOKEN}, r"found 502: x{280}\[secret\]$"),
        (200, None, "found 200"),
    ],
)
def test_an_answer_of_no_use_is_told(function: Function, status: int, body: Any, told: str) -> None:
    function.answers[f"GET {INVOCATIONS}/active-peer-mentors"] = [(status, body)]
    with pytest.raises(SmokeTestError, match=told):
        function.tester().dry_run()


def test_a_token_that_is_not_known_yet_is_told_apart(function: Function) -> None:
    function.answers[f"GET {INVOCATIONS}"] = [(401, {}), (200, {"items": []})]
    assert [function.tester().knows_token(), function.tester().knows_token()] == [False, True]
