"""Over HTTP: who may call, what is understood, and what an error looks like."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from functions.api import create_app
from functions.border import MAX_BODY_BYTES
from functions.scheduled_run import Work
from shared.auth import TokenCheck
from shared.errors import DatabaseRefusedError, DatabaseUnavailableError
from shared.invocations import Invocations
from shared.version import VERSION
from tests.unit.clock import ManualClock
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN, make_config
from tests.unit.fake_database import FakeDatabase
from tests.unit.functions.pretend_engine import PretendEngine
from tests.unit.log_lines import LogLines

SLOT = "2026-11-23T02:00:00+00:00"
ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
INVOKE = {"Authorization": f"Bearer {INVOKE_TOKEN}"}
JSON = {"Content-Type": "application/json"}
ENDED = {
    "id": "invocation-1",
    "triggered_by": "schedule",
    "status": "succeeded",
    "dry_run": False,
    "scheduled_for": SLOT,
    "created_at": SLOT,
    "started_at": SLOT,
    "finished_at": SLOT,
    "lateness_seconds": 0,
    "counts": {},
    "failures": [],
    "error": None,
}


class Function:
    """The whole application over a fake database; `opens` is what opening the slot answers."""

    def __init__(self) -> None:
        self.opens: dict[str, Any] = {
            "opened": False,
            "not_a_slot": False,
            "invocation": None,
            "open": [],
            "engine_paused_until": None,
            "witness": None,
        }
        self.finishes: dict[str, Any] = {"ended_now": False, "invocation": ENDED | {"status": "running"}}
        self.database = FakeDatabase(
            functions={
                "scheduler_open_slot": lambda _: self.opens,
                "scheduler_finish": lambda _: self.finishes,
                "scheduler_hand_back": lambda _: None,
            }
        )
        self.broken_by: Exception | None = None
        config = make_config()
        self._work = Work(
            config,
            self.database,
            Invocations(self.database, config),
            PretendEngine(ManualClock()).client(),
            now=lambda: datetime(2026, 11, 23, 2, 0, 30, tzinfo=UTC),
        )
        app = create_app(self._connect, TokenCheck([SecretStr(INVOKE_TOKEN)], [SecretStr(ADMIN_TOKEN)]))
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://function.example.org")

    async def _connect(self) -> Work:
        if self.broken_by is not None:
            raise self.broken_by
        return self._work

    def has_open(self, *, paused: bool) -> None:
        """One open invocation, enumerated already, in whose work the engine's pause stops us."""
        row = {
            "id": "invocation-1",
            "scheduled_for": SLOT,
            "triggered_by": "schedule",
            "enumeration_cursor": None,
            "enumeration_done": True,
        }
        self.opens |= {
            "opened": True,
            "invocation": ENDED | {"status": "running"},
            "open": [row],
            "engine_paused_until": "2026-11-23T02:05:00+00:00" if paused else None,
            "witness": {"user_id": "user-000", "scenario_type": "a"},
        }

    async def start(self, body: object = None, **headers: str) -> httpx.Response:
        return await self.http.post("/", json=body, headers=INVOKE | headers)

    def arguments_of(self, name: str) -> dict[str, Any]:
        (arguments,) = (arguments for function, arguments in self.database.called if function == name)
        return arguments


@pytest.fixture
async def function(log: LogLines) -> AsyncIterator[Function]:  # the log: what is logged shall not spill
    function = Function()
    yield function
    await function.http.aclose()


def problem_in(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, "about:blank")
    assert problem["title"]
    assert problem["detail"]
    return problem


# Who may call


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {ADMIN_TOKEN}", ADMIN_TOKEN, "Bearer \xff"]
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/"), ("GET", "/"), ("GET", "/nowhere"), ("GET", "/health/"), ("POST", "//")]
)
async def test_a_stranger_gets_401_everywhere_and_learns_nothing(
    function: Function, method: str, path: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    response = await function.http.request(method, path, headers=headers)  # type: ignore[arg-type]  # bytes are allowed
    problem_in(response, 401, "unauthorized")
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert function.database.called == []


async def test_a_strangers_body_is_not_read(function: Function) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"{}"

    problem_in(await function.http.post("/", content=body(), headers=JSON), 401, "unauthorized")
    assert read == 0


async def test_a_refused_token_is_not_in_the_log(function: Function, log: LogLines) -> None:
    await function.http.post("/", headers={"Authorization": "Bearer almost-a-known-token"})
    assert len(log.of("caller_refused")) == 1
    assert "almost" not in log.text


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("PUT", "/"), ("POST", "/nowhere"), ("GET", "/api/v1/scheduler-invocations")],
)
async def test_an_invoke_token_may_do_nothing_but_start(function: Function, method: str, path: str) -> None:
    problem_in(await function.http.request(method, path, headers=INVOKE), 403, "forbidden")


@pytest.mark.parametrize("headers", [INVOKE, ADMIN])
async def test_both_kinds_of_token_may_start(function: Function, headers: dict[str, str]) -> None:
    assert (await function.http.post("/", headers=headers)).status_code == 200


@pytest.mark.parametrize("headers", [{}, INVOKE, ADMIN, {"Authorization": "Bearer wrong"}])
async def test_health_is_open_to_all_and_needs_no_database(function: Function, headers: dict[str, str]) -> None:
    function.broken_by = DatabaseUnavailableError("away")
    response = await function.http.get("/health", headers=headers)
    assert (response.status_code, response.json()) == (200, {"status": "ok", "version": VERSION})


# What is understood


@pytest.mark.parametrize(
    "content", [b"{", b"not json", b'{"scheduled_for": }', b"{'a': 1}", b'{"a": 1} trailing', b"\xef\xbb\xbf"]
)
async def test_text_that_is_not_json_is_400(function: Function, content: bytes) -> None:
    response = await function.http.post("/", content=content, headers=INVOKE | JSON)
    problem_in(response, 400, "malformed_json")


@pytest.mark.parametrize("content", [b"\xff\xfe\xfd", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000])
async def test_text_that_no_parser_bears_is_400(function: Function, content: bytes) -> None:
    response = await function.http.post("/", content=content, headers=INVOKE | JSON)
    assert response.json()["code"] in ("malformed_json", "bad_request")
    problem_in(response, 400, response.json()["code"])


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "",
        "json",
    ],
)
async def test_a_body_that_does_not_claim_to_be_json_is_415(function: Function, content_type: str) -> None:
    response = await function.http.post("/", content=b"{}", headers=INVOKE | {"Content-Type": content_type})
    problem_in(response, 415, "unsupported_media_type")


async def test_a_body_without_any_type_is_415(function: Function) -> None:
    problem_in(await function.http.post("/", content=b"{}", headers=INVOKE), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"]
)
@pytest.mark.parametrize("content", [b"", b"{}", b"null", b" {} \n", b'{"scheduled_for": null}'])
async def test_an_empty_body_asks_for_whatever_is_due(function: Function, content: bytes, content_type: str) -> None:
    response = await function.http.post("/", content=content, headers=INVOKE | {"Content-Type": content_type})
    assert response.status_code == 200
    assert function.arguments_of("scheduler_open_slot")["requested_slot"] is None


async def test_a_body_of_more_than_a_mebibyte_is_413(function: Function) -> None:
    response = await function.http.post("/", content=b" " * (MAX_BODY_BYTES + 1), headers=INVOKE | JSON)
    problem_in(response, 413, "body_too_large")


async def test_a_body_of_exactly_a_mebibyte_is_read(function: Function) -> None:
    response = await function.http.post("/", content=b"{}".ljust(MAX_BODY_BYTES), headers=INVOKE | JSON)
    assert response.status_code == 200


async def test_an_endless_body_that_does_not_tell_its_length_is_413(function: Function) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b" " * 65536

    response = await function.http.post("/", content=endless(), headers=INVOKE | JSON)
    assert "content-length" not in response.request.headers
    problem_in(response, 413, "body_too_large")
    assert sent <= MAX_BODY_BYTES + 2 * 65536


@pytest.mark.parametrize(
    ("body", "field"), [({"scheduled": SLOT}, "scheduled"), ({"scheduled_for": SLOT, "user_ids": []}, "user_ids")]
)
async def test_an_unknown_member_is_422_and_named(function: Function, body: object, field: str) -> None:
    assert problem_in(await function.start(body), 422, "unknown_field")["field"] == field


@pytest.mark.parametrize(
    "value",
    ["", "now", "2026-11-23", "2026-11-23T02:00:00", "2026-13-23T02:00:00Z", "2026-11-23T25:00:00Z", True, [], {}],
)
async def test_a_time_that_is_none_or_has_no_offset_is_422(function: Function, value: object) -> None:
    problem = problem_in(await function.start({"scheduled_for": value}), 422, "invalid_field")
    assert problem["field"] == "scheduled_for"
    assert function.database.called == []


@pytest.mark.parametrize("body", [[], [1], "text", 7, True])
async def test_a_body_that_is_no_object_is_422(function: Function, body: object) -> None:
    assert problem_in(await function.start(body), 422, "invalid_field")["field"] == "body"


@pytest.mark.parametrize(
    "moment", [SLOT, "2026-11-23T02:00:00Z", "2026-11-23T03:00:59.999+01:00", "2026-11-22T20:30:07-05:30"]
)
async def test_a_time_is_cut_to_its_utc_minute(function: Function, moment: str) -> None:
    assert (await function.start({"scheduled_for": moment})).status_code == 200
    assert function.arguments_of("scheduler_open_slot")["requested_slot"] == SLOT


@pytest.mark.parametrize("moment", ["2026-11-23T02:00:00Z", "2026-11-23T03:00:59.123456789+01:00"])
async def test_cloud_schedulers_header_names_the_slot(function: Function, moment: str) -> None:
    response = await function.http.post("/", headers=INVOKE | {"X-CloudScheduler-ScheduleTime": moment})
    assert response.status_code == 200
    assert function.arguments_of("scheduler_open_slot")["requested_slot"] == SLOT


@pytest.mark.parametrize("moment", ["soon", "2026-11-23T02:00:00", "2026-11-23", "1795399200"])
async def test_cloud_schedulers_header_without_a_whole_time_is_422(function: Function, moment: str) -> None:
    response = await function.http.post("/", headers=INVOKE | {"X-CloudScheduler-ScheduleTime": moment})
    assert problem_in(response, 422, "invalid_field")["field"] == "X-CloudScheduler-ScheduleTime"


async def test_the_body_wins_over_cloud_schedulers_header(function: Function) -> None:
    await function.start({"scheduled_for": SLOT}, **{"X-CloudScheduler-ScheduleTime": "2020-01-01T00:00:00Z"})
    assert function.arguments_of("scheduler_open_slot")["requested_slot"] == SLOT


@pytest.mark.parametrize("value", ["0", "-1", "abc", "1.5"])
async def test_a_dispatch_that_is_no_positive_number_is_422(function: Function, value: str) -> None:
    problem = problem_in(await function.start(None, **{"X-Scheduler-Dispatch": value}), 422, "invalid_field")
    assert problem["field"].lower() == "x-scheduler-dispatch"


@pytest.mark.parametrize("path", ["/nowhere", "/api", "/health/nowhere", "/index.php", "/%2e%2e/etc/passwd"])
async def test_what_does_not_exist_is_404(function: Function, path: str) -> None:
    problem_in(await function.http.get(path, headers=ADMIN), 404, "not_found")


@pytest.mark.parametrize(("method", "path", "allowed"), [("PUT", "/", "POST"), ("DELETE", "/health", "GET")])
async def test_a_method_that_is_not_served_is_405_and_says_which_is(
    function: Function, method: str, path: str, allowed: str
) -> None:
    response = await function.http.request(method, path, headers=ADMIN)
    problem_in(response, 405, "method_not_allowed")
    assert allowed in response.headers["allow"]


# What a start answers


async def test_when_nothing_is_due_it_is_idle(function: Function) -> None:
    response = await function.start()
    assert (response.status_code, response.json()) == (200, {"status": "idle"})


@pytest.mark.parametrize("opened", [True, False])
async def test_a_slot_that_has_ended_is_200_and_says_whether_this_call_opened_it(
    function: Function, opened: bool
) -> None:
    function.opens |= {"opened": opened, "invocation": ENDED}
    response = await function.start()
    assert (response.status_code, response.json()) == (200, ENDED | {"deduplicated": not opened})


async def test_a_slot_that_is_not_through_is_202(function: Function) -> None:
    function.has_open(paused=True)
    response = await function.start()
    assert response.status_code == 202
    assert response.json()["status"] == "running"


async def test_a_slot_that_ends_within_the_call_is_200_with_its_last_state(function: Function) -> None:
    function.has_open(paused=True)
    function.finishes = {
        "ended_now": True,
        "invocation": ENDED | {"failures": [{"code": "no_device", "count": 2}]},
    }
    response = await function.start()
    assert (response.status_code, response.json()["status"]) == (200, "succeeded")


async def test_a_paused_engine_is_left_alone(function: Function) -> None:
    function.has_open(paused=True)
    await function.start()
    assert "scheduler_claim" not in [name for name, _ in function.database.called]


async def test_the_dispatch_that_is_answered_is_handed_back(function: Function) -> None:
    function.has_open(paused=True)
    await function.start(None, **{"X-Scheduler-Dispatch": "17"})
    assert function.arguments_of("scheduler_hand_back")["dispatch_id"] == 17


async def test_a_time_that_names_no_slot_is_422(function: Function) -> None:
    function.opens |= {"not_a_slot": True}
    problem = problem_in(await function.start({"scheduled_for": "2020-01-01T00:00:00Z"}), 422, "not_a_slot")
    assert problem["field"] == "scheduled_for"
    assert "2020-01-01T00:00Z" in problem["detail"]


# What goes wrong on our side


async def test_a_defect_of_ours_is_500_without_internals_and_with_a_trace_id_that_the_log_has(
    function: Function, log: LogLines
) -> None:
    function.broken_by = LookupError("column shoe_size of anna@example.org")
    response = await function.start(None, traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    problem = problem_in(response, 500, "internal_error")
    assert "0af7651916cd43dd8448eb211c80319c" in problem["detail"]
    assert "shoe_size" not in response.text
    assert "LookupError" not in response.text
    (line,) = log.of("internal_error")
    assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert "shoe_size" in str(line)


async def test_without_a_trace_of_the_callers_a_defect_has_one_of_ours(function: Function, log: LogLines) -> None:
    function.broken_by = LookupError()
    problem = problem_in(await function.start(), 500, "internal_error")
    assert log.of("internal_error")[0]["trace_id"] in problem["detail"]


async def test_two_requests_have_two_traces(function: Function, log: LogLines) -> None:
    function.broken_by = LookupError()
    await function.start()
    await function.start()
    first, second = log.of("internal_error")
    assert first["trace_id"] != second["trace_id"]


async def test_a_database_that_is_away_is_503_with_retry_after(function: Function, log: LogLines) -> None:
    function.broken_by = DatabaseUnavailableError("the Data API answered PGRST002")
    response = await function.start()
    problem_in(response, 503, "database_unavailable")
    assert int(response.headers["retry-after"]) > 0
    assert "PGRST002" not in response.text
    assert "PGRST002" in log.of("database_unavailable")[0]["message"]


async def test_what_the_database_refuses_is_500_with_its_code_and_without_its_words(
    function: Function, log: LogLines
) -> None:
    function.broken_by = DatabaseRefusedError("42501", "permission denied for view anna")
    problem = problem_in(await function.start(), 500, "database_refused")
    assert "42501" in problem["detail"]
    assert "anna" not in problem["detail"]
    (line,) = log.of("database_refused")
    assert line["trace_id"] in problem["detail"]
    assert "permission denied" in line["message"]


async def test_a_wrong_database_key_is_named_as_what_it_is(function: Function) -> None:
    function.broken_by = DatabaseRefusedError("invalid_api_key", "the Data API refuses SUPABASE_SECRET_KEY")
    assert "SUPABASE_SECRET_KEY" in problem_in(await function.start(), 500, "database_key_rejected")["detail"]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_time_at_the_end_of_time_is_422(moment: str) -> None:
    function = Function()
    by_body = await function.start({"scheduled_for": moment})
    by_header = await function.start(None, **{"X-CloudScheduler-ScheduleTime": moment})
    assert [by_body.status_code, by_header.status_code] == [422, 422]


async def test_a_number_is_no_time() -> None:
    assert (await Function().start({"scheduled_for": 1795399200})).status_code == 422


async def test_a_dispatch_beyond_bigint_is_422() -> None:
    assert (await Function().start(None, **{"X-Scheduler-Dispatch": "9" * 30})).status_code == 422
