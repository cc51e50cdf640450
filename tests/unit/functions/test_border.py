"""The outermost layer on its own: what it lets through, and in which shape."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from starlette.types import Message, Receive, Scope, Send

from functions.border import Border, problem
from shared.auth import TokenCheck
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN
from tests.unit.log_lines import captured_log

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


def test_a_problem_without_a_field_has_none() -> None:
    assert b"field" not in bytes(problem(404, "not_found", "nothing here").body)


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
