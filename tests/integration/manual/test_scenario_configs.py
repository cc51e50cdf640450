"""Scenario types that an operator configures at one process, as all others see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from tests.integration.manual.caller import Caller, a_caller
from tests.integration.scheduled_runs.harness import Harness, Pair

CONFIGS = "/api/v1/scenario-configs"


async def listed(_: Harness, caller: Caller) -> set[Pair]:
    mentors = (await caller.page("/active-peer-mentors", limit=1000))["data"]
    return {(mentor["user_id"], name) for mentor in mentors for name in mentor["scenario_types"]}


async def run(harness: Harness, caller: Caller) -> set[Pair]:
    return {*await harness.recorded_pairs((await caller.run({"dry_run": True}))["id"])}


async def batch(harness: Harness, caller: Caller) -> set[Pair]:
    answer = await caller.send("POST", "/evaluation-batch", json={"user_ids": harness.mentors, "dry_run": True})
    return {(result["user_id"], result["scenario_type"]) for result in answer.json()["results"]}


async def test_a_change_holds_at_once_in_every_process(harness: Harness) -> None:
    north = (await harness.add_mentors(20))[:3]
    await harness.execute(
        b"update public.peer_mentors set segments = '{org:north}' where user_id = any (%s::uuid[])", [north]
    )
    token = {"SCHEDULER_ADMIN_TOKENS": f"anna:{harness.project.admin_token}"}
    operator, other = [await a_caller(harness, token) for _ in range(2)]
    applies = {*harness.expected_pairs()}

    async def configure(scenario_type: str, change: dict[str, Any], **query: str) -> dict[str, Any]:
        answer = await operator.call("PUT", f"{CONFIGS}/{scenario_type}", json=change, params=query)
        assert answer.status_code == 200, answer.text
        entry: dict[str, Any] = answer.json()
        entries = (await operator.call("GET", CONFIGS)).json()["data"]
        assert [each for each in entries if each["updated_at"] == entry["updated_at"]] == [entry]
        return entry

    async def check(*ways: Callable[[Harness, Caller], Awaitable[set[Pair]]]) -> None:
        """The first one is what shows the change to the other process."""
        for way in ways:
            assert await way(harness, other) == applies, way

    await check(listed, run, batch)
    entry = await configure("inactivity", {"enabled": False}, organization="north")
    assert (entry["organization"], entry["updated_by"], entry["effective"]["enabled"]) == ("north", "anna", False)
    applies -= {(user_id, "inactivity") for user_id in north}
    await check(listed, run, batch)
    entry = await configure("milestone", {"enabled": False})
    assert (entry["organization"], entry["updated_by"], entry["effective"]["enabled"]) == (None, "anna", False)
    milestones = {(user_id, name) for user_id, name in applies if name == "milestone"}
    applies -= milestones
    await check(batch, listed, run)
    # In three days at midnight, or the first slot after it.
    slot = harness.slot + timedelta(days=3)
    entry = await configure("milestone", {"enabled": True, "schedule": f"0 0 * * {slot.isoweekday() % 7}"})
    assert entry["effective"]["next_slot"] == f"{slot:%Y-%m-%dT%H:%M:%SZ}"
    applies |= milestones
    await check(run, batch, listed)

    await harness.execute(b"update public.scenario_evaluation_config set enabled = true where organization = 'north'")
    entries = (await other.call("GET", CONFIGS)).json()["data"]
    (entry,) = [each for each in entries if each["organization"] == "north"]
    assert (entry["effective"]["enabled"], entry["updated_by"]) == (True, "postgres")
