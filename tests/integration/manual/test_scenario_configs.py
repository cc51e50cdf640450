"""Scenario types that an operator configures at one process, as all others see them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.integration.manual.caller import Caller, a_caller
from tests.integration.scheduled_runs.harness import Harness, Pair

CONFIGS = "/api/v1/scenario-configs"


async def what_applies(harness: Harness, caller: Caller) -> dict[str, set[Pair]]:
    """The pairs that each way to see or evaluate them has now."""
    listed = (await caller.page("/active-peer-mentors", limit=1000))["data"]
    run = await caller.run({"dry_run": True})
    batch = await caller.send("POST", "/evaluation-batch", json={"user_ids": harness.mentors, "dry_run": True})
    return {
        "listed": {(mentor["user_id"], name) for mentor in listed for name in mentor["scenario_types"]},
        "run": {*await harness.recorded_pairs(run["id"])},
        "batch": {(result["user_id"], result["scenario_type"]) for result in batch.json()["results"]},
    }


async def test_a_change_holds_at_once_in_every_process(harness: Harness) -> None:
    north = (await harness.add_mentors(20))[:3]
    await harness.execute(
        b"update public.peer_mentors set segments = '{org:north}' where user_id = any (%s::uuid[])", [north]
    )
    token = {"SCHEDULER_ADMIN_TOKENS": f"anna:{harness.project.admin_token}"}
    operator, other = [await a_caller(harness, token) for _ in range(2)]
    everything = {*harness.expected_pairs()}

    async def configure(scenario_type: str, change: dict[str, Any], **query: str) -> dict[str, Any]:
        answer = await operator.call("PUT", f"{CONFIGS}/{scenario_type}", json=change, params=query)
        assert answer.status_code == 200, answer.text
        entry: dict[str, Any] = answer.json()
        listed = (await other.call("GET", CONFIGS)).json()["data"]
        assert [each for each in listed if each["updated_at"] == entry["updated_at"]] == [entry]
        return entry

    assert await what_applies(harness, other) == dict.fromkeys(("listed", "run", "batch"), everything)
    entry = await configure("milestone", {"enabled": False})
    assert (entry["enabled"], entry["updated_by"], entry["effective"]["enabled"]) == (False, "anna", False)
    left = {(user_id, name) for user_id, name in everything if name != "milestone"}
    assert await what_applies(harness, other) == dict.fromkeys(("listed", "run", "batch"), left)

    entry = await configure("inactivity", {"enabled": False}, organization="north")
    assert (entry["organization"], entry["effective"]["enabled"]) == ("north", False)
    # In three days at midnight, or the first slot after it.
    slot = harness.slot + timedelta(days=3)
    entry = await configure("milestone", {"enabled": True, "schedule": f"0 0 * * {slot.isoweekday() % 7}"})
    assert entry["effective"]["next_slot"] == f"{slot:%Y-%m-%dT%H:%M:%SZ}"
    left = everything - {(user_id, "inactivity") for user_id in north}
    assert await what_applies(harness, other) == dict.fromkeys(("listed", "run", "batch"), left)

    await harness.execute(b"update public.scenario_evaluation_config set enabled = true where organization = 'north'")
    entries = (await other.call("GET", CONFIGS)).json()["data"]
    (entry,) = [each for each in entries if each["organization"] == "north"]
    assert (entry["effective"]["enabled"], entry["updated_by"]) == (True, "postgres")
