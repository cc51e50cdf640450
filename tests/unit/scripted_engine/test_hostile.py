"""The answers that mean harm are what they claim to be."""

from __future__ import annotations

import asyncio
import gzip
import json
from urllib.parse import urlsplit

import httpx
import pytest

from tests.scripted_engine import Rule, ScriptedEngine, hostile, rules

from .caller import Caller, some_users

USERS = some_users(3)


async def test_a_compressed_body_is_short_on_the_wire_and_long_when_unpacked() -> None:
    async with ScriptedEngine(rules=[hostile.compressed_body(1_000_000)]) as engine, Caller(engine) as caller:
        async with caller.stream(USERS) as response:
            packed = b"".join([chunk async for chunk in response.aiter_raw()])
        assert len(packed) < 2_000
        assert len(gzip.decompress(packed)) == 1_000_000
        assert json.loads(gzip.decompress(packed)) == {"results": []}
        assert engine.keys_seen


@pytest.mark.parametrize("rule", [hostile.dripping_body(0.001), hostile.endless_interim_answers(0.001)])
async def test_what_never_ends_ends_when_the_caller_hangs_up(rule: Rule) -> None:
    async with ScriptedEngine(rules=[rule]) as engine:
        reader, writer = await open_call(engine)
        first = await reader.readexactly(200)
        assert first.startswith(b"HTTP/1.1 ")
        writer.close()
        await writer.wait_closed()


async def test_speaks_for_users_of_other_calls_only() -> None:
    async with ScriptedEngine(rules=[hostile.speaking_for(USERS)]) as engine, Caller(engine) as caller:
        results = (await caller.call(USERS[:1])).json()["results"]
    forged = [result["user_id"] for result in results if result.get("error") == {"code": "forged"}]
    assert forged == USERS[1:]


async def test_cuts_its_answer_and_puts_another_behind_it() -> None:
    async with ScriptedEngine(rules=[hostile.longer_than_promised()]) as engine:
        reader, writer = await open_call(engine)
        sent = await reader.read()
        writer.close()
    assert sent.count(b"HTTP/1.1 200 OK") == 2
    assert b'Content-Length: 14\r\n\r\n{"results": []}HTTP/1.1' in sent


@pytest.mark.parametrize("rule", [hostile.raw(b"220 mail ESMTP\r\n"), hostile.huge_headers()])
async def test_what_is_no_http_is_none_to_another_client_either(rule: Rule) -> None:
    async with ScriptedEngine(rules=[rule]) as engine, Caller(engine) as caller:
        with pytest.raises(httpx.RemoteProtocolError):
            await caller.call(USERS)
        engine.rules[:] = [rules.not_json()]
        assert (await caller.call(USERS)).status_code == 200


async def open_call(engine: ScriptedEngine) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A call that was sent by hand, for answers that no client would show as they are."""
    url = urlsplit(engine.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    evaluation = {"user_id": USERS[0], "scenario_types": ["a"], "idempotency_key_prefix": f"s:{USERS[0]}"}
    body = json.dumps({"dry_run": False, "evaluations": [evaluation]}).encode()
    head = f"POST /v1/evaluations HTTP/1.1\r\nHost: engine\r\nAuthorization: Bearer {engine.token}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return reader, writer
