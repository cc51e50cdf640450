"""What every request passes: tokens, header fields, private answers; and what becomes of a late error."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.http.invocations import PREFIX
from functions.http.middleware import OPEN_PATHS, RequestGate
from shared.auth import TokenCheck
from shared.errors import DatabaseUnavailableError, RequestError
from shared.observability import MAX_LINES_PER_MINUTE
from shared.version import VERSION
from tests.emulator.staging import ROOT
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN
from tests.unit.functions.http_function import ADMIN, INVOKE, JSON, Function, problem_in
from tests.unit.functions.pretend_sql import RUN_ID
from tests.unit.log_lines import LogLines

TOKENS = TokenCheck([SecretStr(INVOKE_TOKEN)], [SecretStr(ADMIN_TOKEN)])
BY_ADMIN = [(b"authorization", f"Bearer {ADMIN_TOKEN}".encode())]
# What only an admin token opens: the endpoints, and whatever is not served.
FOR_ADMINS = [
    *(("GET", PREFIX), ("POST", PREFIX)),
    *((method, f"{PREFIX}/{RUN_ID}") for method in ("GET", "PUT", "DELETE")),
    *(("GET", f"{PREFIX}/active-peer-mentors"), ("POST", f"{PREFIX}/evaluation-batch")),
    *(("GET", "/"), ("PUT", "/"), ("GET", "/nowhere"), ("GET", "/health/"), ("GET", "/docs/")),
    *(("GET", f"/dashboard/{name}") for name in ("..", "../main.py", "index.html", "x.js")),
]


def http_scope(method: str = "POST", path: str = "/", headers: list[tuple[bytes, bytes]] | None = None) -> Scope:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "client": ("192.0.2.1", 50000),
        "headers": BY_ADMIN if headers is None else headers,
    }


async def conversation(app: ASGIApp, scope: Scope) -> tuple[list[Message], Exception | None]:
    """What is sent of an answer, and the failure that the server sees."""
    outgoing: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("nothing of the body may be read")

    async def send(message: Message) -> None:
        outgoing.append(message)

    try:
        await app(scope, receive, send)
    except Exception as error:
        return outgoing, error
    return outgoing, None


async def behind_the_gate(app: ASGIApp, scope: Scope) -> tuple[list[Message], Exception | None]:
    return await conversation(RequestGate(app, TOKENS), scope)


# Who may pass


def test_only_health_description_and_the_empty_page_are_open() -> None:
    page = {path for path in OPEN_PATHS if path == "/dashboard" or path.startswith("/dashboard/")}
    assert OPEN_PATHS - page == {"/health", "/health/last-run", "/openapi.json", "/docs"}
    files = {file.name for file in (ROOT / "functions" / "http" / "dashboard").iterdir()} - {"index.html"}
    assert page == {"/dashboard", "/dashboard/", *(f"/dashboard/{name}" for name in files)}


@pytest.mark.parametrize("path", ["/Health", "//health", "/health?", "/health#", "/health\n", ""])
async def test_a_path_that_resembles_an_open_one_is_closed(function: Function, path: str, log: LogLines) -> None:
    (start, _), _ = await conversation(function.app, http_scope("GET", path, []))
    assert start["status"] == 401


@pytest.mark.parametrize("host", [b"evil/health?", b"evil/health#", b"a b", b"[", b":99999", b"\xff"])
async def test_a_host_header_opens_no_path(function: Function, host: bytes) -> None:
    (start, _), _ = await conversation(function.app, http_scope("GET", "/api", [(b"host", host)]))
    assert start["status"] == 401


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", f"Basic {ADMIN_TOKEN}", ADMIN_TOKEN])
async def test_without_a_known_token_every_answer_is_the_same_401(
    function: Function, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
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
    problem_in(await function.http.get("/", headers=INVOKE), 403, "forbidden")
    assert (await function.http.head("/", headers=INVOKE)).status_code == 403
    assert function.sql.called() == []
    for headers in (INVOKE, ADMIN):
        assert (await function.http.post("/", headers=headers)).status_code == 200


@pytest.mark.parametrize("headers", [{}, INVOKE, ADMIN, {"Authorization": "Bearer wrong"}])
async def test_health_is_open_to_all_and_needs_no_database(function: Function, headers: dict[str, str]) -> None:
    function.broken_by = DatabaseUnavailableError("away")
    response = await function.http.get("/health", headers=headers)
    assert (response.status_code, response.json()) == (200, {"status": "ok", "version": VERSION})


# Bodies and header fields


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/", {}, 401),
        ("POST", PREFIX, INVOKE, 403),
        ("GET", "/health", {}, 200),
        ("GET", "/health/last-run", {}, 503),
        ("POST", "/dashboard", {}, 405),
        ("GET", PREFIX, ADMIN, 200),
        ("PATCH", PREFIX, ADMIN, 405),
        ("POST", "/nowhere", ADMIN, 404),
        ("DELETE", f"{PREFIX}/{RUN_ID}", ADMIN, 404),
    ],
)
async def test_a_body_that_is_not_wanted_is_not_read(
    function: Function, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(b"{}")
        yield b"{}"

    response = await function.http.request(method, path, content=body(), headers=headers | JSON)
    assert (response.status_code, read) == (status, [])


@pytest.mark.parametrize("path", ["/health", "/openapi.json", "/docs", "/dashboard/app.js", PREFIX, f"{PREFIX}/{RUN_ID}"])
async def test_head_is_served_where_get_is(function: Function, path: str) -> None:
    got, headed = [await function.http.request(method, path, headers=ADMIN) for method in ("GET", "HEAD")]
    assert (headed.status_code, headed.content) == (got.status_code, b"")
    assert headed.headers == got.headers


async def test_lines_of_one_field_are_one_list(function: Function) -> None:
    for order in (["wait=10", "respond-async"], ["respond-async", "wait=10"]):
        headers = [*ADMIN.items(), *(("Prefer", preference) for preference in order)]
        assert (await function.http.post(PREFIX, headers=headers)).status_code == 202


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
async def test_a_single_field_with_two_values_is_refused(
    function: Function, field: str, first: str, second: str
) -> None:
    others = [each for each in (ADMIN | JSON).items() if each[0] != field]
    for values in ((first, second), (second, first)):
        headers = [*others, *((field, value) for value in values)]
        problem = problem_in(await function.http.post(PREFIX, headers=headers), 400, "repeated_header")
        assert problem["field"] == field
    assert function.sql.called() == []
    same = [*others, (field, first), (field, first)]
    assert (await function.http.post(PREFIX, headers=same)).status_code == 201


# What is logged of callers


async def test_a_refused_token_is_not_logged(function: Function, log: LogLines) -> None:
    await function.http.post("/", headers={"Authorization": "Bearer almost-a-known-token"})
    assert len(log.of("caller_refused")) == 1
    assert "almost" not in log.text
    assert "192.0.2.1" not in log.text


async def test_ten_thousand_refusals_write_few_lines(function: Function, log: LogLines) -> None:
    for _ in range(10_000):
        await conversation(function.app, http_scope(headers=[]))
    assert 0 < len(log.all()) <= 3 * MAX_LINES_PER_MINUTE


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


@pytest.mark.parametrize("path", ["/", PREFIX])
async def test_a_caller_that_leaves_gets_no_answer_and_is_no_defect(
    function: Function, log: LogLines, path: str
) -> None:
    sent: list[Message] = []
    pieces: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return pieces.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [*BY_ADMIN, (b"content-type", b"application/json")]
    await function.app(http_scope(path=path, headers=headers), receive, send)
    assert sent == []
    assert [line["event"] for line in log.all()] == ["caller_left"]


# What answers carry


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/health/last-run", 200), ("/dashboard", 405), ("/dashboard", 304)])
async def test_only_static_answers_may_be_kept_by_a_cache(path: str, status: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"cache-control", b"no-cache"), (b"etag", b"1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})

    ((start,), error) = await behind_the_gate(app, http_scope(path=path))
    assert error is None
    private = {"cache-control": "no-store", "x-content-type-options": "nosniff", "etag": "1"}
    expected = {"cache-control": "no-cache", "etag": "1"} if status == 304 else private
    assert {name.decode(): value.decode() for name, value in start["headers"]} == expected


# When something fails behind it

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"[", "more_body": True}
END: Message = {"type": "http.response.body", "body": b"]"}


@pytest.mark.parametrize("error", [LookupError("inner words"), RequestError(422, "late", "words")])
@pytest.mark.parametrize("sent", [[START], [START, PART], [START, PART, END]])
async def test_an_error_after_the_start_breaks_an_unfinished_answer_off(
    log: LogLines, sent: list[Message], error: Exception
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in sent:
            await send(message)
        raise error

    assert await behind_the_gate(app, http_scope()) == (sent, None if END in sent else error)
    (line,) = log.of("internal_error")
    assert "Traceback" in line["exc_info"]


async def test_an_error_with_a_callers_broken_text_is_answered(log: LogLines) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RequestError(422, "unknown_field", "\ud800\n: expected no such member", field="\ud800\n")

    (start, body), error = await behind_the_gate(app, http_scope())
    assert (start["status"], error) == (422, None)
    assert json.loads(body["body"].decode("utf-8"))["field"] == "\ufffd\ufffd"
    assert log.of("internal_error") == []


async def test_a_scope_that_is_not_http_passes_untouched() -> None:
    passed: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope)

    await behind_the_gate(app, {"type": "lifespan"})
    assert passed == [{"type": "lifespan"}]
