"""A worker so slow that its batch is given to another: the first record stands, and the other one changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.emulator.function import FunctionProcess
from tests.faults.oracle import check_success
from tests.faults.settings import batches_of
from tests.faults.time_control import TimeControl
from tests.integration.scheduled_runs.harness import Harness, eventually
from tests.scripted_engine import rules

# One call at a time, so that the first call is one batch's and the slow worker is at it alone.
ONE_AT_A_TIME = batches_of(10, engine_max_concurrency=1, engine_timeout_seconds=20)
BATCHES = 4


def refused(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    error = {"code": "scripted_refusal", "message": "the script says so", "retryable": False}
    return [
        {"user_id": result["user_id"], "scenario_type": result["scenario_type"], "outcome": "failed", "error": error}
        for result in results
    ]


def record_states(harness: Harness, function: FunctionProcess) -> list[str]:
    """What a function was answered to each record."""
    return [line["state"] for line in harness.log_lines(function) if line["event"] == "batch_recorded"]


async def tables(harness: Harness) -> list[tuple[Any, ...]]:
    return [
        *await harness.rows(
            b"select to_jsonb(e) from public.scheduler_evaluations as e order by user_id, scenario_type"
        ),
        *await harness.rows(b"select to_jsonb(b) from public.scheduler_invocation_batches as b order by batch_no"),
    ]


async def test_a_slow_workers_late_answer_changes_nothing(harness: Harness) -> None:
    """The engine refuses the slow worker's users in the end, and not the other worker's."""
    await harness.add_mentors(10 * BATCHES)
    gate = asyncio.Event()
    harness.engine.rules.append(rules.only(rules.calls(1), rules.hold_until(gate)))
    harness.engine.rules.append(rules.only(rules.calls(1), rules.alter_results(refused)))
    fast, slow = await asyncio.gather(*(harness.start_function(ONE_AT_A_TIME) for _ in range(2)))
    firing = asyncio.create_task(harness.fire(slow))
    await harness.engine.until_called(1)
    await eventually(lambda: harness.rows(b"select from public.scheduler_invocations where enumeration_done"))
    await TimeControl(harness).let_time_pass()

    invocation = await harness.run(fast)
    before, acts = [invocation, *await tables(harness)], dict(harness.engine.acts)
    gate.set()
    answer = await firing

    assert record_states(harness, fast) == ["done"] * BATCHES
    assert set(record_states(harness, slow)) == {"already_done"}
    assert (answer.status_code, answer.json()["completed"]) == (200, True)
    assert [await harness.describe(invocation["id"]), *await tables(harness)] == before
    assert harness.engine.acts == acts
    assert max(harness.engine.keys_seen.values()) == 2
    await check_success(harness, invocation)
