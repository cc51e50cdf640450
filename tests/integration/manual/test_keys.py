"""Idempotency-Key and the list over HTTP: one key is one run, and each run is shown once."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.manual.caller import a_caller
from tests.integration.scheduled_runs.harness import Harness, mentor_ids

ONE, OTHER = mentor_ids(2)
# Spellings of three requests: those in one row ask for the same.
SPELLINGS: tuple[tuple[dict[str, Any], ...], ...] = (
    (
        {"user_ids": [ONE, OTHER]},
        {"user_ids": [OTHER, ONE, OTHER], "dry_run": False},
        {"user_ids": [OTHER.upper(), ONE], "scenario_types": None, "retry_of": None, "note": None},
    ),
    (
        {"user_ids": [ONE], "scenario_types": ["milestone_reached", "inactivity_30_days"]},
        {"user_ids": [ONE, ONE], "scenario_types": ["inactivity_30_days", "milestone_reached", "milestone_reached"]},
    ),
    ({"user_ids": [ONE], "dry_run": True}, {"dry_run": True, "user_ids": [ONE, ONE.upper()], "note": None}),
)
NOTE = "".join(map(chr, range(1, 32))) + "\x7f\u2028\ufffe\U0010ffff \N{RIGHT-TO-LEFT OVERRIDE}'\"`\\ \\u0041 %s "


async def test_one_key_is_one_run_for_any_spelling_and_instance(harness: Harness) -> None:
    await harness.add_mentors(2)
    callers = [await a_caller(harness), await a_caller(harness)]
    runs = []
    for number, spellings in enumerate(SPELLINGS):
        answers = await asyncio.gather(
            *(callers[n % 2].ask(spellings[n % len(spellings)], key=f"key-{number}") for n in range(12))
        )
        assert sorted(answer.status_code for answer in answers) == [200] * 11 + [201]
        assert sorted(answer.json()["deduplicated"] for answer in answers) == [False] + [True] * 11
        (run,) = {answer.json()["id"] for answer in answers}
        runs.append(run)
        others = [other[0] for other in SPELLINGS if other is not spellings]
        for body in (*others, spellings[0] | {"note": "another"}):
            assert (await callers[0].ask(body, key=f"key-{number}")).json()["code"] == "idempotency_key_reused"
    assert len(set(runs)) == len(SPELLINGS)
    assert (await callers[0].delete(runs[0])).status_code == 204
    assert (await callers[1].ask(SPELLINGS[0][1], key="key-0")).json()["code"] == "invocation_deleted"
    assert max(harness.engine.keys_seen.values()) == 1
    assert {key.split(":")[1] for key in harness.engine.keys_seen} == set(runs)
    assert (await callers[0].run(SPELLINGS[2][0]))["id"] not in runs


async def test_pages_show_once_and_in_order_what_was_there_throughout(harness: Harness) -> None:
    caller = await a_caller(harness)

    async def waiting() -> str:
        """A run that stays open: the database knows no function to call."""
        return str((await caller.ask({"note": NOTE}, prefer="respond-async")).json()["id"])

    there = [await waiting() for _ in range(12)]
    # Two and two opened at the same instant; a page ends between such two.
    await harness.execute(
        b"update public.scheduler_invocations as i set created_at = now() - interval '1 hour' + pair * interval '1 s'"
        b" from (select id, (row_number() over (order by created_at) + 1) / 2 as pair"
        b" from public.scheduler_invocations) as placed"
        b" where placed.id = i.id"
    )
    items = (await caller.page(limit=100))["data"]
    assert [item["note"] for item in items] == [NOTE] * 12, "as it was sent"
    in_order = [item["id"] for item in items]
    assert sorted(in_order) == sorted(there)

    page = await caller.page(limit=3, status="pending")
    shown = page["data"]
    # The first two are not shown yet, the third is where the cursor stands.
    doomed = in_order[4::3]
    for run in doomed:
        await waiting()
        assert (await caller.cancel(run)).status_code == 200
        assert (await caller.delete(run)).status_code == 204
        page = await caller.page(limit=3, status="pending", cursor=page["pagination"]["next_cursor"])
        shown += page["data"]

    assert page["pagination"]["next_cursor"] is None
    assert [run["id"] for run in shown if run["id"] not in doomed] == [run for run in in_order if run not in doomed]
