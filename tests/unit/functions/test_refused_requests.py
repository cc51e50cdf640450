"""A request with one thing wrong is refused by name, without a defect of ours, before the database is asked."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import httpx
import pytest

from functions.http.cursors import cursor_of, mentor_of_cursor, pair_of_cursor, position_of_cursor
from functions.http.invocations import PREFIX
from functions.http.middleware import MAX_BODY_BYTES
from functions.http.schemas import ListQuery
from functions.runs.requests import MAX_BATCH_MENTORS, MAX_CHOSEN_MENTORS, MAX_NOTE_LENGTH
from shared.errors import RequestError
from shared.run_repository import Position
from tests.unit.functions.fake_sql import RUN_ID, detailed, mentor_id, summarized
from tests.unit.functions.http_function import ADMIN, INVOKE, JSON, Function, problem_in
from tests.unit.log_lines import LogLines

MENTOR, TYPE = mentor_id(1), "milestone"
ONE, BATCH, MENTORS = f"{PREFIX}/{RUN_ID}", f"{PREFIX}/evaluation-batch", f"{PREFIX}/active-peer-mentors"
CONFIG = f"/api/v1/scenario-configs/{TYPE}"
AUDIT, SCHEDULE = "/api/v1/scheduler-audit", "/api/v1/schedule"
RESULTS, AT = f"{ONE}/evaluations", "2026-11-23T02:00:03.204113+00:00"
# Every route that reads a body.
READERS = [("POST", "/"), ("POST", PREFIX), ("PUT", ONE), ("PUT", CONFIG), ("PUT", SCHEDULE), ("POST", BATCH)]


async def send(function: Function, method: str, path: str, content: Any, **headers: str) -> httpx.Response:
    return await function.http.request(method, path, content=content, headers=ADMIN | JSON | headers)


def check_refused(function: Function, response: httpx.Response, code: str, field: str | None) -> None:
    status = {"malformed_json": 400, "unsupported_media_type": 415}.get(code, 422)
    problem = problem_in(response, status, code)
    assert problem.get("field", "").partition(".")[0].lower() == (field or "").lower()
    # Scenario types are only refused by the table as it is now, and where the key stands for no run.
    assert set(function.sql.called()) <= {"scheduler_scenario_config", "scheduler_open"}
    assert all(opening["is_refused"] for opening in function.sql.all_arguments_of("scheduler_open"))


@pytest.mark.parametrize(
    ("path", "query"),
    [
        *((PREFIX, f"limit={value}") for value in ("0", "101", "-1", "", "ten", "1.5", "9" * 5000)),
        *((PREFIX, f"status={value}") for value in ("", "done", "Failed", "failed&status=done", "failed,partial")),
        *((PREFIX, query) for query in ("trigger=cron", "limit=1&limit=2", "limit=1&limit=1")),
        *((PREFIX, f"scheduled_from={value}") for value in ("", "yesterday", "2026-11-23", "2026-11-23T02:00:00")),
        (PREFIX, "scheduled_to=9999-12-31T23:59:59-14:00"),
        *((PREFIX, f"user_id={value}") for value in ("", "1", f"%7B{MENTOR}%7D", f"{MENTOR}%00", f"{MENTOR}%0A")),
        *((PREFIX, f"cursor={value}") for value in ("", "%00", "A" * 301, "tomorrow")),
        *((PREFIX, f"page={value}") for value in ("0", "", "ten", "10002", "9" * 4300, "1&page=1", "102&limit=100")),
        *((PREFIX, f"page=1&{other}") for other in (f"user_id={MENTOR}", f"cursor={cursor_of(AT, RUN_ID)}")),
        *((PREFIX, f"triggered_by={value}") for value in ("", "x" * 101, "a%0Ab", "anna&triggered_by=")),
        *((RESULTS, f"limit={value}") for value in ("0", "1001", "ten", "1&limit=1")),
        *((RESULTS, f"outcome={value}") for value in ("", "not_triggered", "not_evaluated", "failed&outcome=x")),
        *((RESULTS, f"{name}={value}") for name in ("code", "scenario_type") for value in ("", "%00", "x" * 101)),
        *((RESULTS, f"cursor={cursor_of(*place)}") for place in ((MENTOR,), (AT, RUN_ID), (MENTOR, "\0"), ("", TYPE))),
        *((AUDIT, f"limit={value}") for value in ("0", "1001", "ten", "1&limit=1")),
        *((AUDIT, f"cursor={value}") for value in ("", "tomorrow", cursor_of(MENTOR))),
        *((AUDIT, query) for query in ("action=look", "action=", "actor=", "actor=a&actor=b", "invocation_id=1")),
        *((MENTORS, f"limit={value}") for value in ("0", "1001", "ten", "1&limit=1")),
        *((MENTORS, f"cursor={value}") for value in ("", "tomorrow", MENTOR, "A" * 301)),
        *(
            ("/health/last-run", f"max_age_hours={value}")
            for value in ("", "0", "-0", "nan", "inf", "1e999", "8784.1", "a")
        ),
    ],
)
async def test_a_wrong_parameter_is_named(function: Function, path: str, query: str) -> None:
    response = await function.http.get(path, params=httpx.QueryParams(query), headers=ADMIN)
    check_refused(function, response, "invalid_field", query.partition("=")[0])


@pytest.mark.parametrize("value", ["", "x" * 101, "a%0Ab", "%7F", "org:a", "%20a", "a%20", "a&organization=a"])
async def test_a_wrong_organization_is_named(function: Function, value: str) -> None:
    response = await send(function, "PUT", f"{CONFIG}?organization={value}", "{}")
    check_refused(function, response, "invalid_field", "organization")
    response = await send(function, "PUT", f"{CONFIG}?Organization=north", "{}")
    check_refused(function, response, "unknown_field", "Organization")


@pytest.mark.parametrize("path", [PREFIX, MENTORS, RESULTS, AUDIT])
async def test_an_unknown_parameter_is_refused(function: Function, path: str) -> None:
    for name in ("offset", "Limit", "%FF"):
        response = await function.http.get(f"{path}?limit=1&{name}=1", headers=ADMIN)
        check_refused(function, response, "unknown_field", name.replace("%FF", "\N{REPLACEMENT CHARACTER}"))


async def test_a_plus_that_arrives_as_a_space_is_explained(function: Function) -> None:
    for query in ("from=2026-11-23T02:00:00+00:00", "to=2026-11-23T02:00:00.5+0100", "to=2026-11-23 02:00+01:00"):
        response = await function.http.get(f"{PREFIX}?scheduled_{query}", headers=ADMIN)
        assert "%2B" in problem_in(response, 422, "invalid_field")["detail"]


@pytest.mark.parametrize("bad", ["1", f"urn:uuid:{RUN_ID}", f"{RUN_ID}0", f"{RUN_ID}%0A", f"{RUN_ID}%00", "%FF"])
async def test_a_wrong_id_is_named(function: Function, bad: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        response = await function.ask(method, f"/{bad}", body={} if method == "PUT" else None)
        check_refused(function, response, "invalid_field", "invocation_id")


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        *(
            (path, "Idempotency-Key", value)
            for path in (PREFIX, BATCH)
            for value in ('""', "x" * 201, f'"{"x" * 201}"', '"two words"', "two words", "a\tb", "k\xe9y", "\x7f")
        ),
        *(("/", "X-Scheduler-Dispatch", value) for value in ("", "0", "-1", "abc", "1.5", str(2**63), "9" * 5000)),
        *(("/", "X-CloudScheduler-ScheduleTime", value) for value in ("", "soon", "2026-11-23T02:00:00", "1795399200")),
    ],
)
async def test_a_wrong_header_field_is_named(function: Function, path: str, name: str, value: str) -> None:
    headers: Any = [*(ADMIN | JSON).items(), (name, value.encode("latin-1"))]
    body = {"user_ids": [MENTOR]} if path == BATCH else {}
    check_refused(function, await function.http.post(path, json=body, headers=headers), "invalid_field", name)


ALMOST_TIMES = [
    *("2026-13-23T02:00:00Z", "2026-11-23T25:00:00Z", "2026-11-23T02:00:00+24:00", "+2026-11-23T02:00:00Z"),
    *("2026-W48-1T02:00:00Z", "2026-327T02:00:00Z", "20261123T020000Z", "1795399200", "2026-11-23T02:00Z\x00"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-23T02:00:00Z\n", "2026-11-23T02:00:00"),
]
ALMOST_IDS = [RUN_ID.replace("-", ""), f"urn:uuid:{RUN_ID}", f"{{{RUN_ID}}}", f"{RUN_ID}\n", f"\uff10{RUN_ID[1:]}"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        *(("POST", "/", {"scheduled_for": value}) for value in ("", 1795399200, 1.5, True, "\ud800", *ALMOST_TIMES)),
        *(("POST", PREFIX, {"user_ids": value}) for value in ([], MENTOR, [1], [None], ["x" * 36])),
        ("POST", PREFIX, {"user_ids": [MENTOR] * (MAX_CHOSEN_MENTORS + 1)}),
        *(
            ("POST", path, {"user_ids": [MENTOR], "scenario_types": value})
            for path in (PREFIX, BATCH)
            for value in ([], [""], ["x" * 101], [TYPE] * 101, TYPE, ["unknown"], [TYPE, "unknown"], ["\ud800"])
        ),
        *(("POST", PREFIX, {"dry_run": value}) for value in ("true", 1, None)),
        *(("POST", PREFIX, {"retry_of": value}) for value in ("the last one", 1, True, *ALMOST_IDS)),
        ("POST", PREFIX, {"user_ids": [MENTOR], "retry_of": RUN_ID}),
        ("POST", PREFIX, {"scenario_types": [TYPE], "retry_of": RUN_ID}),
        *(
            (*create_or_change, {"note": value})
            for create_or_change in (("POST", PREFIX), ("PUT", ONE))
            for value in ("x" * (MAX_NOTE_LENGTH + 1), "a\x00b", "\x00", "a\n\x00", 1, "\ud800")
        ),
        *(
            (*place, {name: value})
            for *place, name in [
                *(("POST", PREFIX, "reason"), ("POST", PREFIX, "triggered_by"), ("PUT", ONE, "error_message"))
            ]
            for value in ("x" * 301, "a\x00b", 1, "\ud800")
        ),
        *(("POST", PREFIX, {"triggered_by": value}) for value in ("", "a\nb")),
        *(("PUT", ONE, status | {"error_message": "wrong day"}) for status in ({}, {"status": "cancelled"})),
        *(("PUT", ONE, {"status": value}) for value in (None, "", "success", "running", "Cancelled", ["cancelled"])),
        *(("POST", BATCH, {"user_ids": value}) for value in (None, [], ["anna"], [MENTOR] * (MAX_BATCH_MENTORS + 1))),
        ("POST", BATCH, {"user_ids": [MENTOR], "dry_run": "yes"}),
        *(("PUT", CONFIG, {"enabled": value}) for value in ("false", 0, ["true"])),
        *(
            ("PUT", CONFIG, {"segments": [value]})
            for value in (None, "", 1, "x" * 201, "a\nb", "\x7f", "\x9f", "\ud800")
        ),
        *(("PUT", CONFIG, {"segments": value}) for value in ("new", 1, ["x"] * 101, ["x" * 200] * 20)),
        *(("PUT", CONFIG, {"schedule": value}) for value in ("", "nightly", "0 2 * *", "0 0 2 * * *", "60 2 * * *", 2)),
        *(
            ("PUT", CONFIG, {"schedule": value})
            for value in ("0 2 30 2 *", "0 0 */3 2 6#5", f"{'1,' * 50}1 * * * *", "0 2 * * \ud800")
        ),
    ],
    ids=lambda value: str(value)[:60].encode("ascii", "replace").decode(),
)
async def test_a_wrong_member_is_named(function: Function, method: str, path: str, body: dict[str, object]) -> None:
    """The last of the body's members is the wrong one."""
    headers = {"Idempotency-Key": "k"} if path == BATCH else {}
    response = await send(function, method, path, json.dumps(body), **headers)
    check_refused(function, response, "invalid_field", list(body)[-1])


@pytest.mark.parametrize(("method", "path"), READERS[:-1])
async def test_an_unknown_member_of_any_name_is_named(function: Function, method: str, path: str) -> None:
    for name in ("shoe_size", "id", "body", "path", "query", "header", "a.b", ""):
        response = await function.http.request(method, path, json={name: 1}, headers=ADMIN)
        assert problem_in(response, 422, "unknown_field")["field"] == name


UNREADABLE = [
    *(b"{", b"not json", b'{"note": }', b"{'note': 1}", b'{"note": 1} trailing', b"\xef\xbb\xbf", b"\xff\xfe\xfd"),
    *(b"[" * 100_000, b'{"note":' * 100_000, b"9" * 5000, b'{"note": ' + b"9" * 5000 + b"}"),
]
ODD = ["NaN", '{"note": Infinity}', '{"dry_run": -Infinity}', '{"user_ids": [NaN]}', r'{"\ud800": 1}']


@pytest.mark.parametrize(("method", "path"), READERS)
async def test_a_body_that_is_no_json_object_is_refused(
    function: Function, log: LogLines, method: str, path: str
) -> None:
    for content in UNREADABLE:
        check_refused(function, await send(function, method, path, content), "malformed_json", None)
    nothing = ("", "null") if path in (ONE, BATCH, CONFIG, SCHEDULE) else ()
    for text in ("[]", "[1]", r'"\ud800"', "7", "true", *nothing):
        check_refused(function, await send(function, method, path, text), "invalid_field", "body")
    for text in ODD:
        response = await send(function, method, path, text)
        assert response.status_code in (400, 422), text
        problem_in(response, response.status_code, response.json()["code"])
    assert (function.sql.called(), log.of("internal_error")) == ([], [])


WRONG_TYPES = ["", "text/plain", "multipart/form-data; boundary=x", "application/jsonx", "json", "application/+json"]


async def test_a_body_of_another_media_type_is_415(function: Function) -> None:
    fields: list[dict[str, str]] = [{}, *({"Content-Type": value} for value in [*WRONG_TYPES, "x" * 60_000])]
    fields += [JSON | {"Content-Encoding": value} for value in ("gzip", "identity, br", "")]
    for headers in fields:
        response = await function.http.post("/", content=b"{}", headers=INVOKE | headers)
        check_refused(function, response, "unsupported_media_type", None)
        assert len(response.content) < 1000


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b" {} \n"])
async def test_an_empty_body_asks_for_the_default(function: Function, content: bytes) -> None:
    json_of_events = {"Content-Type": "application/cloudevents+json"}
    assert (await send(function, "POST", "/", content, **json_of_events)).status_code == 200
    assert function.sql.arguments_of("scheduler_open_slot")["requested_slot"] is None
    in_capitals = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert (await send(function, "POST", PREFIX, content, **in_capitals)).status_code == 201
    asked = function.sql.arguments_of("scheduler_open")
    assert asked["request"] == {"user_ids": None, "scenario_types": None, "include_unknown": False}
    assert (asked["dry_run"], asked["retry_of"], asked["note"], asked["idempotency_key"]) == (False, None, None, None)


async def test_a_body_of_more_than_a_mebibyte_is_413(function: Function) -> None:
    """Whatever it says of its length."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 65536

    assert (await send(function, "POST", "/", b"{}".ljust(MAX_BODY_BYTES))).status_code == 200
    for content in (b" " * (MAX_BODY_BYTES + 1), pieces()):
        problem_in(await send(function, "POST", "/", content), 413, "body_too_large")


async def test_a_member_outside_the_contract_is_not_answered(function: Function) -> None:
    """An upgrade changes the database before the function."""
    inner = dict.fromkeys(("engine_scope", "idempotency_key", "request_hash"), "x")
    function.sql.answers["scheduler_list"] = {"items": [summarized(**inner)], "next": None, "total": 1}
    function.sql.answers["scheduler_get"] = detailed(**inner)
    (listed,) = (await function.ask("GET")).json()["data"]
    one = (await function.ask("GET", f"/{RUN_ID}")).json()
    assert listed["id"] == one["id"] == RUN_ID
    assert not inner.keys() & (listed.keys() | one.keys())


ALMOST_PLACES = [
    *([AT], [AT, RUN_ID, RUN_ID], [RUN_ID, AT], [AT, "anna"], [AT, None], ["\x00", RUN_ID]),
    *(["0001-01-01T00:00:00+14:00", RUN_ID], ["2026-13-01T00:00:00Z", RUN_ID], [1795399200, RUN_ID]),
    *([AT.removesuffix("+00:00"), RUN_ID], [AT, "\ud800"], {"invoked_at": AT, "id": RUN_ID}, []),
    *(["anna"], [None], [1], [mentor_id(1), mentor_id(2)], ["\ud800"], "x", None, AT + RUN_ID),
]
DEEP = [text.encode() for text in ("[" * 100_000, '{"a":' * 100_000, "9" * 5000, "[NaN]")]


def encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@pytest.mark.parametrize("invoked_at", [AT, "0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"])
def test_a_cursor_comes_back_as_its_place(invoked_at: str) -> None:
    place, mentor = cursor_of(invoked_at, RUN_ID), cursor_of(MENTOR)
    pair = cursor_of(MENTOR, "x" * 100)
    assert (position_of_cursor(place), mentor_of_cursor(mentor)) == (Position(invoked_at, RUN_ID), MENTOR)
    assert pair_of_cursor(pair) == (UUID(MENTOR), "x" * 100)
    for cursor in (place, mentor, pair):
        assert re.fullmatch("[A-Za-z0-9_-]+", cursor)
        assert ListQuery(cursor=cursor).cursor == cursor


@pytest.mark.parametrize(
    ("read", "other"), [(position_of_cursor, cursor_of(MENTOR)), (mentor_of_cursor, cursor_of(AT, RUN_ID))]
)
def test_any_other_text_is_no_cursor(read: Callable[[str], object], other: str) -> None:
    texts = ["", "\x00", "\ud800", "\N{PILE OF POO}", "tomorrow", f"{cursor_of(AT, RUN_ID)}!!!!", other]
    encoded = [
        encode(content) for content in [b"\xff", *(json.dumps(place).encode() for place in ALMOST_PLACES), *DEEP]
    ]
    for cursor in [*texts, *encoded]:
        with pytest.raises(RequestError) as caught:
            read(cursor)
        assert (caught.value.status, caught.value.code, caught.value.field) == (422, "invalid_field", "cursor")
