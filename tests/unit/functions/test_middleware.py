"""What every request passes: tokens, header fields, private answers; and what becomes of an error."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.http.invocations import PREFIX
from functions.http.middleware import OPEN_PATHS, RequestGate
from functions.http.problems import MAX_DETAIL_LENGTH, MAX_FIELD_LENGTH, problem
from shared.auth import TokenCheck
from shared.errors import (
    DatabaseRefusedError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    MentorsViewError,
    RequestError,
)
from shared.logs import MAX_LINES_PER_MINUTE
from shared.version import VERSION
from tests.emulator.staging import ROOT
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN
from tests.unit.functions.fake_sql import RUN_ID
from tests.unit.functions.http_function import ADMIN, INVOKE, JSON, Function, problem_in
from tests.unit.log_lines import LogLines

TOKENS = TokenCheck([SecretStr(INVOKE_TOKEN)], [SecretStr(ADMIN_TOKEN)])
ONE = f"{PREFIX}/{RUN_ID}"
BY_ADMIN = [(b"authorization", f"Bearer {ADMIN_TOKEN}".encode())]
# What only an admin token opens: the endpoints, and whatever is not served.
FOR_ADMINS = [
    *(("GET", PREFIX), ("POST", PREFIX)),
    *((method, ONE) for method in ("GET", "PUT", "DELETE")),
    *(("GET", f"{PREFIX}/active-peer-mentors"), ("POST", f"{PREFIX}/evaluation-batch")),
    *(("GET", "/"), ("PUT", "/"), ("GET", "/nowhere"), ("GET", "/health/"), ("GET", "/docs/")),
    *(("GET", f"/dashboard/{name}") for name in ("..", "../main.py", "index.html", "x.js")),
]


def http_scope(method: str = "POST", path: str = "/", headers: Sequence[tuple[bytes, bytes]] = BY_ADMIN) -> Scope:
    scope: dict[str, Any] = {"type": "http", "query_string": b"", "client": ("192.0.2.1", 50000)}
    return scope | {"method": method, "path": path, "headers": headers}


async def conversation(
    app: ASGIApp, scope: Scope, incoming: Sequence[Message] = ()
) -> tuple[list[Message], Exception | None]:
    """What is sent of an answer, and the failure that the server sees; nothing but `incoming` may be read."""
    outgoing: list[Message] = []
    pieces = iter(incoming)

    async def receive() -> Message:
        return next(pieces)

    async def send(message: Message) -> None:
        outgoing.append(message)

    try:
        await app(scope, receive, send)
    except Exception as error:
        return outgoing, error
    return outgoing, None


def sending(*messages: Message, error: Exception | None = None) -> ASGIApp:
    """An application that sends these messages and then fails, if it shall."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return app


# Tokens


def test_only_health_description_and_the_empty_page_are_open() -> None:
    page = {path for path in OPEN_PATHS if path == "/dashboard" or path.startswith("/dashboard/")}
    assert OPEN_PATHS - page == {"/health", "/health/last-run", "/openapi.json", "/docs"}
    files = {file.name for file in (ROOT / "functions" / "http" / "dashboard").iterdir()} - {"index.html"}
    assert page == {"/dashboard", "/dashboard/", *(f"/dashboard/{name}" for name in files)}


async def test_a_path_or_host_resembling_an_open_one_is_closed(function: Function) -> None:
    paths = ("/Health", "//health", "/health?", "/health#", "/health\n", "")
    hosts = (b"evil/health?", b"evil/health#", b"a b", b"[", b":99999", b"\xff")
    scopes = [http_scope("GET", path, []) for path in paths]
    for scope in [*scopes, *(http_scope("GET", "/api", [(b"host", host)]) for host in hosts)]:
        (start, _), _ = await conversation(function.app, scope)
        assert start["status"] == 401, scope


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", f"Basic {ADMIN_TOKEN}", ADMIN_TOKEN])
async def test_without_a_known_token_every_answer_is_the_same_401(function: Function, authorization: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    texts: set[str] = set()
    for method, path in [("POST", "/"), *FOR_ADMINS]:
        response = await function.http.request(method, path, headers=headers)
        problem_in(response, 401, "unauthorized")
        assert response.headers["www-authenticate"].startswith("Bearer")
        texts.add(response.text)
    assert len(texts) == 1
    assert function.sql.called() == []


async def test_an_invoke_token_may_only_start(function: Function) -> None:
    for method, path in FOR_ADMINS:
        problem_in(await function.http.request(method, path, headers=INVOKE), 403, "forbidden")
    assert (await function.http.head("/", headers=INVOKE)).status_code == 403
    assert function.sql.called() == []
    for headers in (INVOKE, ADMIN):
        assert (await function.http.post("/", headers=headers)).status_code == 200


async def test_health_is_open_to_all_and_needs_no_database(function: Function) -> None:
    function.broken_by = DatabaseUnavailableError("away")
    callers: list[dict[str, str]] = [{}, INVOKE, {"Authorization": "Bearer wrong"}]
    for headers in callers:
        response = await function.http.get("/health", headers=headers)
        assert (response.status_code, response.json()) == (200, {"status": "ok", "version": VERSION})


# Bodies and header fields


async def test_a_body_that_is_not_wanted_is_not_read(function: Function) -> None:
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(b"{}")
        yield b"{}"

    requests: list[tuple[str, str, dict[str, str], int]] = [
        *(("POST", "/", {}, 401), ("POST", PREFIX, INVOKE, 403), ("POST", "/dashboard", {}, 405)),
        *(("GET", "/health", {}, 200), ("GET", "/health/last-run", {}, 503), ("GET", PREFIX, ADMIN, 200)),
        *(("PATCH", PREFIX, ADMIN, 405), ("POST", "/nowhere", ADMIN, 404), ("DELETE", ONE, ADMIN, 404)),
    ]
    for method, path, headers, status in requests:
        response = await function.http.request(method, path, content=body(), headers=headers | JSON)
        assert (response.status_code, read) == (status, []), (method, path)


async def test_head_is_served_where_get_is(function: Function) -> None:
    for path in ("/health", "/openapi.json", "/docs", "/dashboard/app.js", PREFIX, ONE):
        got, headed = [await function.http.request(method, path, headers=ADMIN) for method in ("GET", "HEAD")]
        assert (headed.status_code, headed.content, headed.headers) == (got.status_code, b"", got.headers)


@pytest.mark.parametrize(
    ("field", "first", "second"),
    [
        ("Authorization", f"Bearer {ADMIN_TOKEN}", f"Bearer {INVOKE_TOKEN}"),
        ("Content-Type", "application/json", "text/plain"),
        ("Content-Encoding", "identity", "gzip"),
        ("Idempotency-Key", "a", "b"),
        ("X-CloudScheduler-ScheduleTime", "2026-11-23T02:00:00Z", "2026-11-22T02:00:00Z"),
        ("X-Scheduler-Dispatch", "1", "2"),
    ],
)
async def test_a_field_with_two_values_is_refused(function: Function, field: str, first: str, second: str) -> None:
    others = [each for each in (ADMIN | JSON).items() if each[0] != field]
    for values in ((first, second), (second, first)):
        headers = [*others, *((field, value) for value in values)]
        problem = problem_in(await function.http.post(PREFIX, headers=headers), 400, "repeated_header")
        assert problem["field"] == field
    assert function.sql.called() == []
    same = [*others, (field, first), (field, first)]
    assert (await function.http.post(PREFIX, headers=same)).status_code == 201


async def test_lines_of_one_field_are_one_list(function: Function) -> None:
    """RFC 9110, 5.3."""
    etag = (await function.http.get("/dashboard")).headers["etag"]
    several = [("If-None-Match", '"other"'), ("If-None-Match", etag)]
    assert (await function.http.get("/dashboard", headers=several)).status_code == 304
    for order in (["wait=10", "respond-async"], ["respond-async", "wait=10"]):
        headers = [*ADMIN.items(), *(("Prefer", preference) for preference in order)]
        assert (await function.http.post(PREFIX, headers=headers)).status_code == 202


async def test_refused_callers_write_few_lines_without_token_or_address(function: Function, log: LogLines) -> None:
    await function.http.post("/", headers={"Authorization": "Bearer almost-a-known-token"})
    assert len(log.of("caller_refused")) == 1
    for _ in range(10_000):
        await conversation(function.app, http_scope(headers=[]))
    assert len(log.all()) <= 3 * MAX_LINES_PER_MINUTE
    assert "almost" not in log.text
    assert "192.0.2.1" not in log.text


@pytest.mark.parametrize(
    "odd", ["\n", "\ud800", "\u2028", '"}\n{"event": "forged"}', "x" * 100_000], ids=lambda s: ascii(s[:8])
)
async def test_an_odd_path_is_one_short_line_in_the_log(function: Function, log: LogLines, odd: str) -> None:
    await conversation(function.app, http_scope("GET", f"/{odd}", []))
    (line,) = log.of("caller_refused")
    assert line["path"].isprintable()
    assert len(line["path"]) <= 200
    assert len(log.text.splitlines()) == 1
    assert log.text.isascii()


async def test_a_caller_that_leaves_is_no_defect(function: Function, log: LogLines) -> None:
    pieces: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    scope = http_scope(headers=[*BY_ADMIN, (b"content-type", b"application/json")])
    assert await conversation(function.app, scope, pieces) == ([], None)
    assert [line["event"] for line in log.all()] == ["client_disconnected"]


async def test_only_static_answers_may_be_kept_by_a_cache(log: LogLines) -> None:
    private = {"cache-control": "no-store", "x-content-type-options": "nosniff", "etag": "1"}
    for path, status, expected in (
        *(("/", 200, private), ("/health/last-run", 200, private), ("/dashboard", 405, private)),
        ("/dashboard", 304, {"cache-control": "no-cache", "etag": "1"}),
    ):
        headers = [(b"cache-control", b"no-cache"), (b"etag", b"1")]
        app = sending({"type": "http.response.start", "status": status, "headers": headers})
        ((start,), _) = await conversation(RequestGate(app, TOKENS), http_scope(path=path))
        assert {name.decode(): value.decode() for name, value in start["headers"]} == expected


START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"[", "more_body": True}
END: Message = {"type": "http.response.body", "body": b"]"}


@pytest.mark.parametrize("error", [LookupError("inner words"), RequestError(422, "late", "words")])
@pytest.mark.parametrize("sent", [[START], [START, PART], [START, PART, END]])
async def test_a_late_error_breaks_the_answer_off(log: LogLines, sent: list[Message], error: Exception) -> None:
    gate = RequestGate(sending(*sent, error=error), TOKENS)
    assert await conversation(gate, http_scope()) == (sent, None if END in sent else error)
    (line,) = log.of("internal_error")
    assert "Traceback" in line["exc_info"]


TRACE = "0af7651916cd43dd8448eb211c80319c"
# What each endpoint asks the database, and its arguments for that.
ASKING = [
    ("GET", "", None, "scheduler_list"),
    ("POST", "", {}, "scheduler_open"),
    ("GET", f"/{RUN_ID}", None, "scheduler_get"),
    ("PUT", f"/{RUN_ID}", {"note": "n"}, "scheduler_update"),
    ("DELETE", f"/{RUN_ID}", None, "scheduler_delete"),
    ("POST", "/evaluation-batch", {"user_ids": [RUN_ID], "dry_run": True}, "scheduler_active_mentors"),
]
NOT_THERE = ["/nowhere", "/api", "/health/nowhere", "/%2e%2e/etc/passwd", "/API/v1/scheduler-invocations"]


async def test_an_unknown_path_is_404(function: Function) -> None:
    for path in [*NOT_THERE, f"{PREFIX}/", f"{ONE}/", f"{ONE}/batches"]:
        problem_in(await function.http.get(path, headers=ADMIN), 404, "not_found")


@pytest.mark.parametrize(
    ("methods", "path", "allowed"),
    [
        ("GET PUT", "/", {"POST"}),
        ("DELETE", "/health", {"GET", "HEAD"}),
        ("POST", "/health/last-run", {"GET", "HEAD"}),
        ("POST", "/dashboard", {"GET", "HEAD"}),
        ("DELETE PUT", PREFIX, {"GET", "HEAD", "POST"}),
        ("POST PATCH BREW", ONE, {"GET", "HEAD", "PUT", "DELETE"}),
        ("POST PUT DELETE", f"{PREFIX}/active-peer-mentors", {"GET", "HEAD"}),
        ("GET PUT DELETE", f"{PREFIX}/evaluation-batch", {"POST"}),
    ],
)
async def test_another_method_is_405_with_allow(function: Function, methods: str, path: str, allowed: set[str]) -> None:
    for method in methods.split():
        response = await function.http.request(method, path, headers=ADMIN)
        problem_in(response, 405, "method_not_allowed")
        assert set(response.headers["allow"].split(", ")) == allowed
    assert function.sql.called() == []


# What goes wrong on our side


async def test_a_defect_is_500_with_only_a_trace_id(function: Function, log: LogLines) -> None:
    """The trace is the caller's, or one of ours for each request."""
    function.broken_by = LookupError("column shoe_size of anna@example.org")
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    responses = [await function.start(None, **headers), await function.start(), await function.start()]
    traces = [line["trace_id"] for line in log.of("internal_error")]
    assert (traces[0], len({*traces})) == (TRACE, 3)
    assert "shoe_size" in log.text
    for response, trace in zip(responses, traces, strict=True):
        assert trace in problem_in(response, 500, "internal_error")["detail"]
        assert "shoe_size" not in response.text
        assert "LookupError" not in response.text


@pytest.mark.parametrize(("method", "path", "body", "asked"), ASKING)
async def test_a_failure_of_the_database_is_answered_without_its_words(
    function: Function, log: LogLines, method: str, path: str, body: object, asked: str
) -> None:
    function.sql.answers[asked] = DatabaseUnavailableError("the Data API answered PGRST002")
    away = await function.ask(method, path, body=body)
    assert "PGRST002" not in problem_in(away, 503, "database_unavailable")["detail"]
    assert "PGRST002" in log.of("database_unavailable")[0]["message"]
    function.sql.answers[asked] = DatabaseTimeoutError("57014")
    late = await function.ask(method, path, body=body)
    assert "57014" in problem_in(late, 503, "database_timeout")["detail"]
    assert log.of("database_timeout")[0]["error_code"] == "57014"
    for response in (away, late):
        assert int(response.headers["retry-after"]) > 0
    function.sql.answers[asked] = DatabaseRefusedError("42501", "permission denied for view anna")
    detail = problem_in(await function.ask(method, path, body=body), 500, "database_refused")["detail"]
    (line,) = log.of("database_refused")
    assert ("42501" in detail, "anna" in detail, line["trace_id"] in detail) == (True, False, True)
    assert "permission denied" in line["message"]


async def test_a_start_without_a_database_says_what_is_wrong(function: Function) -> None:
    function.broken_by = DatabaseUnavailableError("away")
    response = await function.start()
    problem_in(response, 503, "database_unavailable")
    assert int(response.headers["retry-after"]) > 0
    function.broken_by = DatabaseRefusedError("invalid_api_key", "the Data API refuses SUPABASE_SECRET_KEY")
    assert "SUPABASE_SECRET_KEY" in problem_in(await function.start(), 500, "database_key_rejected")["detail"]
    function.broken_by = MentorsViewError("column segments: expected text[], found text")
    detail = problem_in(await function.start(), 500, "mentors_view_invalid")["detail"]
    assert detail == "column segments: expected text[], found text"


HOSTILE = ["\ud800", "a\nb", "\x00", "\u2028", "\x1b[2J", '"}, {"', "x" * 1_000_000, "\udc00" * 1_000_000]


def test_a_callers_text_becomes_one_bounded_line_of_utf8() -> None:
    for text in HOSTILE:
        content = json.loads(bytes(problem(422, "unknown_field", text, field=text).body).decode("utf-8"))
        for shown, limit in ((content["detail"], MAX_DETAIL_LENGTH), (content["field"], MAX_FIELD_LENGTH)):
            assert shown.isprintable()
            assert 0 < len(shown) <= limit
