"""Idempotency-Key over HTTP: one key is one run."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.manual.caller import a_caller
from tests.integration.scheduled_runs.harness import Harness, mentor_ids

ONE, OTHER = mentor_ids(2)
# Spellings of two requests: those in one row ask for the same (tests/unit/functions/test_on_demand.py has more).
SPELLINGS: tuple[tuple[dict[str, Any], ...], ...] = (
    ({"user_ids": [ONE, OTHER]}, {"user_ids": [OTHER.upper(), ONE, OTHER], "dry_run": False, "note": None}),
    ({"user_ids": [ONE], "dry_run": True}, {"dry_run": True, "user_ids": [ONE, ONE.upper()]}),
)


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
    assert (await callers[0].run(SPELLINGS[1][0]))["id"] not in runs
