"""What every request passes: tokens, header fields, private answers; and what becomes of an error."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.http.invocations import PREFIX
from functions.http.middleware import OPEN_PATHS, RequestGate
from functions.http.problems import MAX_DETAIL_LENGTH, MAX_FIELD_LENGTH, problem
from shared.auth import TokenCheck
from shared.errors import DatabaseRefusedError, DatabaseTimeoutError, DatabaseUnavailableError, MentorsViewError
from shared.sign_in import SignIn
from shared.version import VERSION
from tests.emulator.staging import ROOT
from tests.unit.auth_server import USER_ID, auth_server
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN
from tests.unit.functions.fake_sql import RUN_ID
from tests.unit.functions.http_function import ADMIN, FINGERPRINT, INVOKE, JSON, Function, problem_in
from tests.unit.log_lines import LogLines

TOKENS = TokenCheck([SecretStr(INVOKE_TOKEN)], [("anna", ADMIN_TOKEN)])
DEPLOYED = asdict(FINGERPRINT)
ONE = f"{PREFIX}/{RUN_ID}"
BY_ADMIN = [(b"authorization", f"Bearer {ADMIN_TOKEN}".encode())]
# What is not served, and is closed as well.
NOT_SERVED = [
    *(("GET", "/"), ("PUT", "/"), ("GET", "/nowhere"), ("GET", "/health/"), ("GET", "/docs/")),
    *(("GET", f"/dashboard/{name}") for name in ("..", "../main.py", "index.html", "x.js")),
]


def http_scope(method: str = "POST", path: str = "/", headers: Sequence[tuple[bytes, bytes]] = BY_ADMIN) -> Scope:
    scope: dict[str, Any] = {"type": "http", "query_string": b"", "client": ("192.0.2.1", 50000)}
    return scope | {"method": method, "path": path, "headers": headers}


async def conversation(
    app: ASGIApp, scope: Scope, incoming: Sequence[Message] = ()
) -> tuple[list[Message], Exception | None]:
    """The messages of the answer, and the error that the server sees; only `incoming` can be read."""
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


def test_only_health_description_and_the_empty_page_are_open() -> None:
    files = {file.name for file in (ROOT / "functions" / "http" / "dashboard").iterdir()} - {"index.html"}
    page = {"/dashboard", "/dashboard/", "/dashboard/config.json", *(f"/dashboard/{name}" for name in files)}
    assert {"/health", "/health/last-run", "/openapi.json", "/docs"} | page == OPEN_PATHS


async def test_a_path_or_host_resembling_an_open_one_is_closed(function: Function) -> None:
    paths = ("/Health", "//health", "/health?", "/health#", "/health\n", "")
    hosts = (b"evil/health?", b"evil/health#", b"a b", b"[", b":99999", b"\xff")
    scopes = [http_scope("GET", path, []) for path in paths]
    for scope in [*scopes, *(http_scope("GET", "/api", [(b"host", host)]) for host in hosts)]:
        (start, _), _ = await conversation(function.app, scope)
        assert start["status"] == 401, scope


async def closed_operations(function: Function) -> set[tuple[str, str]]:
    document = (await function.http.get("/openapi.json")).json()
    served = {
        (method.upper(), re.sub("{[^}]*}", RUN_ID, path))
        for path, operations in document["paths"].items()
        for method in operations
        if path not in OPEN_PATHS
    }
    assert len(served) >= 11
    return served


async def test_each_token_opens_only_what_its_role_may(function: Function) -> None:
    served = await closed_operations(function)
    for_admins = [*(served - {("POST", "/")}), *NOT_SERVED]
    refused: set[str] = set()
    for method, path in [("POST", "/"), *for_admins]:
        for authorization in ("", "Bearer wrong", f"Basic {ADMIN_TOKEN}", ADMIN_TOKEN):
            headers = {"Authorization": authorization} if authorization else {}
            response = await function.http.request(method, path, headers=headers)
            problem_in(response, 401, "unauthorized")
            assert response.headers["www-authenticate"].startswith("Bearer")
            refused.add(response.text)
    assert len(refused) == 1
    for method, path in for_admins:
        problem_in(await function.http.request(method, path, headers=INVOKE), 403, "forbidden")
    assert (await function.http.head("/", headers=INVOKE)).status_code == 403
    assert function.sql.called() == []
    for headers in (INVOKE, ADMIN):
        assert (await function.http.post("/", headers=headers)).status_code == 200


async def test_a_viewer_reads_and_an_operator_does_what_an_admin_may(log: LogLines) -> None:
    async with auth_server() as auth:
        function = Function(sign_in=SignIn(auth.server.url, "sb_publishable_x"))
        viewer, operator = [
            {"Authorization": f"Bearer {auth.token(app_metadata={'scheduler_role': role})}"}
            for role in ("viewer", "operator")
        ]
        requests = [*await closed_operations(function), *NOT_SERVED, ("HEAD", PREFIX)]
        writing = [request for request in requests if request[0] not in ("GET", "HEAD")]
        assert ("POST", "/") in writing
        for method, path in writing:
            problem_in(await function.http.request(method, path, headers=viewer), 403, "forbidden")
        assert function.sql.called() == []
        for method, path in requests:
            who = (operator, ADMIN) if (method, path) in writing else (operator, viewer, ADMIN)
            statuses = [(await function.http.request(method, path, headers=each)).status_code for each in who]
            assert len(set(statuses)) == 1, (method, path, statuses)
        opened = function.sql.all_arguments_of("scheduler_open")
        assert [arguments["triggered_by"] for arguments in opened] == [USER_ID, "anna"]
        for token, status in ((auth.token(exp=1), 401), (auth.token(app_metadata={}), 403), (ADMIN_TOKEN[:-1], 401)):
            refused = await function.http.get(PREFIX, headers={"Authorization": f"Bearer {token}"})
            assert refused.status_code == status
        assert auth.fetches == 1


async def test_an_open_path_asks_auth_nothing(log: LogLines) -> None:
    async with auth_server() as auth:
        function = Function(sign_in=SignIn(auth.server.url, "sb_publishable_x"))
        headers = {"Authorization": f"Bearer {auth.token()}"}
        assert "settings_digest" not in (await function.http.get("/health", headers=headers)).json()
        assert auth.fetches == 0


async def test_health_needs_no_database_and_shows_digests_for_a_token(function: Function) -> None:
    function.broken_by = DatabaseUnavailableError("away")
    for headers, shown in (({}, {}), ({"Authorization": "Bearer wrong"}, {}), (ADMIN, DEPLOYED), (INVOKE, DEPLOYED)):
        response = await function.http.get("/health", headers=headers)
        assert (response.status_code, response.json()) == (200, {"status": "ok", "version": VERSION} | shown)


async def test_a_body_that_is_not_wanted_is_not_read(function: Function) -> None:
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(b"{}")
        yield b"{}"

    requests: list[tuple[str, str, dict[str, str], int]] = [
        *(("POST", "/", {}, 401), ("POST", PREFIX, INVOKE, 403), ("POST", "/dashboard", {}, 405)),
        *(("GET", "/health", {}, 200), ("GET", PREFIX, ADMIN, 200)),
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
    for order in (["wait=10", "respond-async"], ["respond-async", "wait=10"]):
        headers = [*ADMIN.items(), *(("Prefer", preference) for preference in order)]
        assert (await function.http.post(PREFIX, headers=headers)).status_code == 202


@pytest.mark.parametrize(
    "odd", ["\n", "\ud800", "\u2028", '"}\n{"event": "forged"}', "x" * 100_000], ids=lambda s: ascii(s[:8])
)
async def test_a_refused_caller_is_one_line_without_token_or_address(
    function: Function, log: LogLines, odd: str
) -> None:
    await conversation(function.app, http_scope("GET", f"/{odd}", [(b"authorization", b"Bearer almost-known")]))
    (line,) = log.of("caller_refused")
    assert (line["path"].isprintable(), len(line["path"]) <= 200) == (True, True)
    assert (log.text.isascii(), len(log.text.splitlines())) == (True, 1)
    assert not re.search("almost|192.0.2.1", log.text)


async def test_a_caller_that_leaves_is_no_defect(function: Function, log: LogLines) -> None:
    pieces: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    scope = http_scope(headers=[*BY_ADMIN, (b"content-type", b"application/json")])
    assert await conversation(function.app, scope, pieces) == ([], None)
    assert [line["event"] for line in log.all()] == ["client_disconnected"]


async def test_only_static_answers_may_be_kept_by_a_cache(function: Function) -> None:
    static = {"/docs", "/openapi.json", "/dashboard", "/dashboard/app.js"}
    for path in (*static, "/health", "/health/last-run", "/nowhere", PREFIX, f"{PREFIX}/active-peer-mentors"):
        headers = (await function.http.get(path, headers=ADMIN)).headers
        private = (headers.get("cache-control"), headers.get("x-content-type-options")) == ("no-store", "nosniff")
        assert private is (path not in static), path
    assert (await function.http.post("/dashboard")).headers["cache-control"] == "no-store"


START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"[", "more_body": True}
END: Message = {"type": "http.response.body", "body": b"]"}


@pytest.mark.parametrize("sent", [[START], [START, PART], [START, PART, END]])
async def test_a_late_error_breaks_the_answer_off(log: LogLines, sent: list[Message]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in sent:
            await send(message)
        raise error

    error = LookupError("late")
    assert await conversation(RequestGate(app, TOKENS), http_scope()) == (sent, None if END in sent else error)
    (line,) = log.of("internal_error")
    assert "Traceback" in line["exc_info"]


async def test_an_unknown_path_is_404(function: Function) -> None:
    unknown = ["/nowhere", "/health/nowhere", "/%2e%2e/etc/passwd", "/API/v1/scheduler-invocations"]
    for path in [*unknown, f"{PREFIX}/", f"{ONE}/", f"{ONE}/batches"]:
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


TRACE = "0af7651916cd43dd8448eb211c80319c"


async def test_a_defect_is_500_with_only_a_trace_id(function: Function, log: LogLines) -> None:
    """The trace is the caller's, or a new one for each request."""
    function.broken_by = LookupError("column shoe_size of anna@example.org")
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    responses = [await function.start(None, **headers), await function.start(), await function.start()]
    traces = [line["trace_id"] for line in log.of("internal_error")]
    assert (traces[0], len({*traces})) == (TRACE, 3)
    assert "shoe_size" in log.text
    for response, trace in zip(responses, traces, strict=True):
        assert trace in problem_in(response, 500, "internal_error")["detail"]
        assert not re.search("shoe_size|LookupError", response.text)


@pytest.mark.parametrize(
    ("error", "status", "code", "shown", "hidden"),
    [
        (DatabaseUnavailableError("PGRST002"), 503, "database_unavailable", "does not answer", "PGRST002"),
        (DatabaseTimeoutError("57014"), 503, "database_timeout", "57014", "Data API"),
        (DatabaseRefusedError("42501", "denied for anna"), 500, "database_refused", "42501", "anna"),
        (DatabaseRefusedError("invalid_api_key", "x"), 500, "database_key_rejected", "SUPABASE_SECRET_KEY", "trace"),
        (MentorsViewError("segments: found text"), 500, "mentors_view_invalid", "segments: found text", "trace"),
    ],
)
async def test_an_error_of_the_database_has_its_own_problem(
    function: Function, log: LogLines, error: Any, status: int, code: str, shown: str, hidden: str
) -> None:
    function.sql.answers["scheduler_get"] = error
    response = await function.http.get(ONE, headers=ADMIN)
    detail = problem_in(response, status, code)["detail"]
    (line,) = log.of(error.event)
    assert (shown in detail, hidden in detail, str(error) in line["message"]) == (True, False, True)
    assert (code != "database_refused") is (line["trace_id"] not in detail)
    assert (int(response.headers.get("retry-after", 0)) > 0) is (status == 503)


HOSTILE = ["\ud800", "a\nb", "\x00", "\u2028", "\x1b[2J", '"}, {"', "x" * 1_000_000, "\udc00" * 1_000_000]


def test_a_callers_text_becomes_one_bounded_line_of_utf8() -> None:
    for text in HOSTILE:
        content = json.loads(bytes(problem(422, "unknown_field", text, field=text).body).decode("utf-8"))
        for shown, limit in ((content["detail"], MAX_DETAIL_LENGTH), (content["field"], MAX_FIELD_LENGTH)):
            assert shown.isprintable()
            assert 0 < len(shown) <= limit
