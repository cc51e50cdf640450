"""What a call to the engine costs does not grow with how many are in flight: steps are counted, not seconds.

httpx's own pool looks through all of its connections for every request, which is why it is not used.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

import httpx

from functions.work import build_work
from shared.evaluations import MentorScenarios
from shared.time_budget import TimeBudget
from shared.trigger_engine import EvaluationContext
from tests.unit.environment import make_config
from tests.unit.shared.scripted_server import Script, serving

FEW, MANY = 4, 128
# Enough for a pool that looks through its connections, whose every call is dear.
ENOUGH = 24
ROUNDS = 2
CONTEXT = EvaluationContext("invocation-1", "2026-11-23T02:00:00+00:00", "slot:2026-11-23T02:00Z", dry_run=False)
# What may come of chance, such as how answers fall into packets.
GROWTH = 1.1

Call = Callable[[str], Awaitable[object]]


def all_at_once(in_flight: int) -> Script:
    """An engine that answers nobody before so many wait for it."""
    barrier = asyncio.Barrier(in_flight)

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(request.partition(b"\r\n\r\n")[2])["evaluations"]
        body = json.dumps(
            {
                "results": [
                    {"user_id": one["user_id"], "scenario_type": scenario_type, "outcome": "not_triggered"}
                    for one in asked
                    for scenario_type in one["scenario_types"]
                ]
            }
        ).encode()
        await barrier.wait()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )

    return answer


async def steps_of_a_call(call: Call, in_flight: int) -> float:
    """Python and C functions that are called for a call, the server's included, once the connections are open."""

    async def lane(name: int, rounds: int) -> None:
        for number in range(rounds):
            await call(f"user-{name}-{number}")

    await asyncio.gather(*(lane(number, 1) for number in range(in_flight)))
    steps = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal steps
        steps += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        await asyncio.gather(*(lane(number, ROUNDS) for number in range(in_flight)))
    finally:
        sys.setprofile(None)
    return steps / (in_flight * ROUNDS)


async def of_this_function(in_flight: int) -> float:
    async with serving(all_at_once(in_flight)) as server:
        work = build_work(make_config(SCENARIO_ENGINE_URL=server.url, ENGINE_MAX_CONCURRENCY=str(in_flight)))
        budget = TimeBudget(60)

        async def call(user_id: str) -> None:
            answer = await work.engine.evaluate(CONTEXT, [MentorScenarios(user_id, ("a_type",))], budget)
            assert answer.is_final

        return await steps_of_a_call(call, in_flight)


async def of_httpx(in_flight: int) -> float:
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with (
        serving(all_at_once(in_flight)) as server,
        httpx.AsyncClient(limits=unlimited, trust_env=False) as client,
    ):

        async def call(user_id: str) -> None:
            body = CONTEXT.body([MentorScenarios(user_id, ("a_type",))])
            assert (await client.post(server.url, content=body, timeout=60)).status_code == httpx.codes.OK

        return await steps_of_a_call(call, in_flight)


async def test_a_call_takes_as_many_steps_however_many_are_in_flight() -> None:
    few, many = await of_this_function(FEW), await of_this_function(MANY)
    assert many < GROWTH * few


async def test_a_pool_that_looks_through_its_connections_would_be_noticed() -> None:
    few, many = await of_httpx(FEW), await of_httpx(ENOUGH)
    assert many > GROWTH * few
