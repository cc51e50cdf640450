"""A notification is queued once: per key, per milestone, and per cool-down."""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import Any

from tests.emulator.connections import Connection
from tests.emulator.project import Project

from .programme import ESTABLISHED, INACTIVITY, MILESTONE, ONBOARDING, SILENT, TYPES, Programme


async def test_a_repeat_answers_the_same_notification(programme: Programme) -> None:
    user_id = await programme.mentor(SILENT)
    first = await programme.one(user_id, INACTIVITY)
    assert await programme.one(user_id, INACTIVITY) == first
    assert first == {"outcome": "triggered", "notification_id": (await programme.queued(user_id))[0]}
    assert len(await programme.queued(user_id)) == 1


async def test_a_repeat_answers_the_same_although_the_scenario_no_longer_applies(programme: Programme) -> None:
    user_id = await programme.mentor(SILENT)
    first = await programme.one(user_id, INACTIVITY)
    await programme.change(user_id, "last_contact_at = now()")
    assert await programme.one(user_id, INACTIVITY) == first
    assert await programme.outcome(user_id, INACTIVITY, scope="slot:b") == "not_triggered"


async def test_simultaneous_repeats_queue_one_notification_each(programme: Programme) -> None:
    users = [await programme.mentor(SILENT | {"contacts_logged": "10"}) for _ in range(20)]
    # Every other call names them backwards: locks taken in the order of the call would block each other for good.
    answers = await asyncio.gather(*(programme.call(users[:: (-1) ** n]) for n in range(20)))
    told = {(item["user_id"], item["scenario_type"], item.get("notification_id")) for item in chain(*answers)}
    assert len(told) == len(users) * len(TYPES)
    for user_id in users:
        ids = {notification_id for user, _, notification_id in told if user == user_id} - {None}
        assert ids == set(await programme.queued(user_id))
        assert len(ids) == 2


async def test_of_simultaneous_calls_under_different_keys_one_notifies(programme: Programme) -> None:
    user_id = await programme.mentor(SILENT)
    outcomes = await asyncio.gather(*(programme.outcome(user_id, INACTIVITY, scope=f"manual:{n}") for n in range(20)))
    assert sorted(outcomes) == ["suppressed"] * 19 + ["triggered"]
    assert len(await programme.queued(user_id)) == 1


async def test_a_call_waits_for_the_one_that_is_about_to_notify_the_same_mentor(
    programme: Programme, engine_project: Project
) -> None:
    user_id = await programme.mentor(SILENT)
    async with engine_project.connect() as first:
        async with first.transaction():
            await first.execute(
                b"select public.evaluate_scenarios(array[%s]::uuid[], array[%s], array['manual:1'])",
                (user_id, INACTIVITY),
            )
            second = asyncio.create_task(programme.outcome(user_id, INACTIVITY, scope="manual:2"))
            await blocked_by(first, programme, second)
        assert await second == "suppressed"
    assert len(await programme.queued(user_id)) == 1


async def test_mentors_are_locked_in_one_order_whatever_the_order_of_the_call(
    programme: Programme, engine_project: Project
) -> None:
    low, high = sorted([await programme.mentor(SILENT), await programme.mentor(SILENT)])
    async with engine_project.connect() as other:
        async with other.transaction():
            await other.execute(b"select from public.peer_mentors where user_id = %s for no key update", (low,))
            call = asyncio.create_task(programme.call([high, low], (INACTIVITY,)))
            await blocked_by(other, programme, call)
            # Had the call locked `high` first, whoever holds `low` and wants `high` would wait for it in a circle.
            await other.execute(b"select from public.peer_mentors where user_id = %s for no key update nowait", (high,))
        assert [result["outcome"] for result in await call] == ["triggered", "triggered"]


async def blocked_by(holder: Connection, programme: Programme, call: asyncio.Task[Any]) -> None:
    """Waits until the call stands behind the holder's locks."""
    query = b"select count(*) from pg_stat_activity where %s = any (pg_blocking_pids(pid))"
    while not (await (await programme.database.execute(query, (holder.info.backend_pid,))).fetchone() or (0,))[0]:
        assert not call.done(), "the call did not wait"
        await asyncio.sleep(0)


async def test_a_key_is_kept_for_168_hours(programme: Programme) -> None:
    user_id = await programme.mentor(SILENT)
    first = await programme.one(user_id, INACTIVITY)
    await programme.let_pass(user_id, hours=167)
    assert await programme.one(user_id, INACTIVITY) == first
    await programme.let_pass(user_id, hours=2)
    second = await programme.one(user_id, INACTIVITY)
    assert second["outcome"] == "triggered"
    assert second != first
    assert len(await programme.queued(user_id)) == 2


async def test_the_same_scenario_is_suppressed_for_seven_days(programme: Programme) -> None:
    user_id = await programme.mentor(SILENT)
    assert await programme.outcome(user_id, INACTIVITY, scope="slot:a") == "triggered"
    await programme.let_pass(user_id, hours=7 * 24 - 1)
    assert await programme.one(user_id, INACTIVITY, scope="slot:b") == {"outcome": "suppressed"}
    await programme.let_pass(user_id, hours=2)
    assert await programme.outcome(user_id, INACTIVITY, scope="slot:c") == "triggered"


async def test_the_cool_down_of_one_scenario_holds_back_no_other(programme: Programme) -> None:
    user_id = await programme.mentor(SILENT | {"contacts_logged": "25"})
    assert await programme.outcome(user_id, INACTIVITY) == "triggered"
    assert await programme.outcome(user_id, MILESTONE) == "triggered"


async def test_a_milestone_is_celebrated_once_in_a_life(programme: Programme) -> None:
    user_id = await programme.mentor(ESTABLISHED | {"contacts_logged": "10"})
    assert await programme.outcome(user_id, MILESTONE, scope="slot:a") == "triggered"
    await programme.let_pass(user_id, hours=24 * 365)
    assert await programme.outcome(user_id, MILESTONE, scope="slot:b") == "suppressed"
    assert await programme.one(user_id, MILESTONE, scope="dry:1", dry_run=True) == {"outcome": "suppressed"}
    await programme.change(user_id, "contacts_logged = 25")
    assert await programme.outcome(user_id, MILESTONE, scope="slot:c") == "triggered"


async def test_a_dry_run_says_what_would_be_and_stores_nothing(programme: Programme) -> None:
    user_id = await programme.mentor(SILENT)
    assert await programme.one(user_id, INACTIVITY, scope="dry:1", dry_run=True) == {"outcome": "triggered"}
    assert await programme.one(user_id, ONBOARDING, scope="dry:1", dry_run=True) == {"outcome": "not_triggered"}
    assert await programme.queued(user_id) == []
    assert await programme.outcome(user_id, INACTIVITY) == "triggered"
    assert await programme.one(user_id, INACTIVITY, scope="dry:2", dry_run=True) == {"outcome": "suppressed"}


async def test_a_key_of_another_mentor_is_refused(programme: Programme) -> None:
    owner, other = await programme.mentor(SILENT), await programme.mentor(SILENT)
    assert await programme.outcome(owner, INACTIVITY, scope="slot:x") == "triggered"
    stolen = {"user_id": other, "scenario_types": [INACTIVITY], "idempotency_key_prefix": f"slot:x:{owner}"}
    response = await programme.send({"dry_run": False, "evaluations": [stolen]})
    [result] = response.json()["results"]
    assert (result["outcome"], result["error"]["code"]) == ("failed", "idempotency_key_reused")
    assert "notification_id" not in result
    assert await programme.queued(other) == []


async def test_a_pair_named_twice_in_one_call_is_notified_once(programme: Programme) -> None:
    user_id = await programme.mentor(SILENT)
    [first, second] = await programme.call([user_id, user_id], (INACTIVITY,))
    assert first == second
    assert len(await programme.queued(user_id)) == 1
