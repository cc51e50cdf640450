"""The outermost layer on its own: what it lets through, and in which shape."""

from __future__ import annotations

import json

import pytest
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.border import Border
from shared.auth import TokenCheck
from shared.errors import RequestError
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN
from tests.unit.log_lines import LogLines, captured_log

TOKENS = TokenCheck([SecretStr(INVOKE_TOKEN)], [SecretStr(ADMIN_TOKEN)])
JSON_BY_ADMIN = [(b"authorization", f"Bearer {ADMIN_TOKEN}".encode()), (b"content-type", b"application/json")]


def messages(*pieces: bytes) -> list[Message]:
    """A request body in pieces, and then the caller's going away."""
    last = len(pieces) - 1
    body: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": n < last} for n, piece in enumerate(pieces)
    ]
    return [*body, {"type": "http.disconnect"}]


async def serve(scope: Scope, incoming: list[Message]) -> list[Message]:
    """What an application behind the border receives."""
    received: list[Message] = []

    async def application(_: Scope, receive: Receive, __: Send) -> None:
        received.append(await receive())
        if scope["type"] == "http":
            received.append(await receive())

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError(f"the border answered by itself: {message}")

    await Border(application, TOKENS)(scope, receive, send)
    return received


def http_scope() -> Scope:
    return {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": JSON_BY_ADMIN}


@pytest.mark.parametrize("pieces", [(b"",), (b'{"a": 1}',), (b'{"a"', b": ", b"1}"), (b"", b"{}", b"")])
async def test_a_body_in_pieces_arrives_whole_and_what_follows_it_after_it(pieces: tuple[bytes, ...]) -> None:
    assert await serve(http_scope(), messages(*pieces)) == [
        {"type": "http.request", "body": b"".join(pieces), "more_body": False},
        {"type": "http.disconnect"},
    ]


async def test_what_is_not_http_passes_untouched() -> None:
    assert await serve({"type": "lifespan"}, [{"type": "lifespan.startup"}]) == [{"type": "lifespan.startup"}]


async def test_a_caller_who_goes_away_is_no_defect_of_ours() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nothing of this request may reach the application")

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError("nobody is there to be answered")

    with captured_log() as log:
        await Border(app, TOKENS)(http_scope(), receive, send)
    assert log.of("internal_error") == []
    assert len(log.of("caller_left")) == 1


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/", 200, {"cache-control": "no-store", "x-content-type-options": "nosniff", "etag": "1"}),
        ("/health/last-run", 200, {"cache-control": "no-store", "x-content-type-options": "nosniff", "etag": "1"}),
        ("/dashboard", 405, {"cache-control": "no-store", "x-content-type-options": "nosniff", "etag": "1"}),
        ("/dashboard", 304, {"cache-control": "no-cache", "etag": "1"}),
    ],
)
async def test_only_static_answers_may_be_kept_by_a_cache(path: str, status: int, expected: dict[str, str]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"cache-control", b"no-cache"), (b"etag", b"1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})

    ((start,), error) = await conversation(app, {**http_scope(), "path": path}, b"")
    assert error is None
    assert {name.decode(): value.decode() for name, value in start["headers"]} == expected


# When something fails behind it


async def conversation(app: ASGIApp, scope: Scope, *pieces: bytes) -> tuple[list[Message], Exception | None]:
    """What is sent of an answer, and what the server is told of its failure."""
    incoming, outgoing = messages(*pieces), list[Message]()

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        outgoing.append(message)

    try:
        await Border(app, TOKENS)(scope, receive, send)
    except Exception as error:
        return outgoing, error
    return outgoing, None


START: Message = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.mark.parametrize("error", [LookupError("inner words"), RequestError(422, "late", "words")])
@pytest.mark.parametrize("sent", [[START], [START, {"type": "http.response.body", "body": b"[", "more_body": True}]])
async def test_an_answer_that_breaks_off_is_logged_and_the_server_is_told(
    log: LogLines, sent: list[Message], error: Exception
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in sent:
            await send(message)
        raise error

    assert await conversation(app, http_scope(), b"") == (sent, error)
    (line,) = log.of("internal_error")
    assert "Traceback" in line["exc_info"]


async def test_a_defect_after_the_whole_answer_is_logged_and_changes_nothing(log: LogLines) -> None:
    whole: list[Message] = [START, {"type": "http.response.body", "body": b"[]"}]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in whole:
            await send(message)
        raise LookupError("inner words")

    assert await conversation(app, http_scope(), b"") == (whole, None)
    assert len(log.of("internal_error")) == 1


async def test_a_defect_before_the_answer_is_a_500_that_does_not_show_it(log: LogLines) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("inner words")

    (start, body), error = await conversation(app, http_scope(), b"")
    assert (start["status"], error) == (500, None)
    (line,) = log.of("internal_error")
    assert line["trace_id"] in json.loads(body["body"])["detail"]
    assert b"inner words" not in body["body"]


async def test_an_error_that_repeats_a_callers_broken_text_can_be_answered(log: LogLines) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RequestError(422, "unknown_field", "\ud800\n: expected no such member", field="\ud800\n")

    (start, body), error = await conversation(app, http_scope(), b"")
    assert (start["status"], error) == (422, None)
    assert json.loads(body["body"].decode("utf-8"))["field"] == "\ufffd\ufffd"
    assert log.of("internal_error") == []


async def test_a_media_type_of_odd_text_is_named_in_bounds(log: LogLines) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nothing of this request may reach the application")

    scope = http_scope()
    scope["headers"] = [JSON_BY_ADMIN[0], (b"content-type", b"\x1b" + b"\xff" * 60_000)]
    (start, body), error = await conversation(app, scope, b"{}")
    assert (start["status"], error) == (415, None)
    assert len(body["body"]) < 1000
