"""What must hold of a run whatever happened to it, computed from the tables and the engine's ledger alone.

The product's own derivations (counts, status, lists) are compared with these, and never used to make them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from tests.integration.scheduled_runs.harness import Harness, Pair

OUTCOMES = ("triggered", "not_triggered", "suppressed", "skipped", "failed", "not_evaluated")
EVALUATED = ("triggered", "not_triggered", "suppressed")
# Without the engine's answer it cannot be known whether it acted.
UNKNOWN = ("failed", "not_evaluated")


async def check_promises(harness: Harness, invocation: Mapping[str, Any]) -> dict[Pair, str]:
    """Every promise, for an invocation that has ended and is about all mentors; returns the outcome of every pair."""
    invocation = await harness.describe(invocation["id"])
    assert invocation["finished_at"] is not None, invocation
    await harness.check_truth(invocation)
    pairs = await harness.recorded_pairs(invocation["id"])
    await check_keys(harness, invocation["id"], pairs)
    await check_acts(harness, [invocation["id"]], pairs)
    await check_nothing_is_left(harness)
    if invocation["status"] != "cancelled":
        assert invocation["status"] == true_status(pairs), (invocation["status"], Counter(pairs.values()))
    return pairs


async def check_success(harness: Harness, invocation: Mapping[str, Any] | None) -> None:
    """It succeeded, with the engine's answer for every pair, and keeps every promise."""
    assert invocation is not None
    assert (invocation["status"], invocation.get("failures", [])) == ("success", [])
    assert await check_promises(harness, invocation) == harness.expected_pairs()


async def check_chain(harness: Harness, chain: Sequence[Mapping[str, Any]]) -> dict[Pair, str]:
    """Every promise for a run that was cut off and the retries that took it up, oldest first: together they are one.

    Returns what every pair came to in the end.
    """
    together: dict[Pair, str] = {}
    for invocation in chain:
        described = await harness.describe(invocation["id"])
        assert described["finished_at"] is not None, described
        pairs = await harness.recorded_pairs(invocation["id"])
        check_counts(described, pairs)
        await check_keys(harness, invocation["id"], pairs)
        for pair, outcome in pairs.items():
            before = together.get(pair)
            assert before is None or before in UNKNOWN, f"{pair} was {before}, and was taken up again"
            together[pair] = outcome
    assert together.keys() == harness.expected_pairs().keys(), "a mentor is missing, or is none of ours"
    await check_acts(harness, [invocation["id"] for invocation in chain], together)
    assert harness.engine.notified_twice == []
    assert harness.engine.violations == []
    await check_nothing_is_left(harness)
    return together


def check_counts(invocation: Mapping[str, Any], pairs: Mapping[Pair, str]) -> None:
    """An invocation's counts, in all and by scenario, are those of its pairs, whatever they are."""
    counts = invocation["counts"]
    assert counts["evaluations"] == len(pairs)
    assert counts["mentors"] - counts["mentors_skipped"] == len({user_id for user_id, _ in pairs})
    for outcome in OUTCOMES:
        by_type = Counter(scenario_type for (_, scenario_type), came_to in pairs.items() if came_to == outcome)
        assert counts[outcome] == by_type.total(), outcome
        assert {
            scenario_type: outcomes[outcome]
            for scenario_type, outcomes in invocation["scenarios"].items()
            if outcomes.get(outcome)
        } == by_type, outcome
    assert sum(cause["count"] for cause in invocation["failures"]) == counts["failed"]


async def check_keys(harness: Harness, invocation_id: str, pairs: Mapping[Pair, str]) -> None:
    """The engine was called about each pair under one key, and about every pair of which there is an answer.

    A dry run's keys are left out: they do nothing.
    """
    ((scope, dry_run, trigger, slot),) = await harness.rows(
        b"select engine_scope, dry_run, trigger, scheduled_for from public.scheduler_invocations where id = %s",
        [invocation_id],
    )
    if dry_run:
        return
    if trigger == "schedule":
        # The engine would do nothing in a run whose keys it knows from another one.
        assert scope == f"slot:{slot.astimezone(UTC):%Y-%m-%dT%H:%MZ}", scope
    keys: defaultdict[Pair, set[str]] = defaultdict(set)
    for record in harness.engine.calls:
        if record.invocation_id == invocation_id and not record.dry_run:
            for pair, key in zip(record.pairs, record.keys, strict=True):
                keys[pair].add(key)
    for pair, seen in keys.items():
        assert seen == {f"{scope}:{pair[0]}:{pair[1]}"}, f"{pair} was asked about under {seen}"
    evaluated = {pair for pair, outcome in pairs.items() if outcome in EVALUATED}
    assert evaluated <= keys.keys(), "the database knows an outcome that the engine was never asked for"


async def check_acts(harness: Harness, invocation_ids: Sequence[str], pairs: Mapping[Pair, str]) -> None:
    """What the engine did for a run and its retries, who share its scope, is what the database says of them."""
    ((scope, dry_run),) = await harness.rows(
        b"select distinct engine_scope, dry_run from public.scheduler_invocations where id = any(%s)",
        [list(invocation_ids)],
    )
    acts = {act.pair: act for key, act in harness.engine.acts.items() if key.startswith(f"{scope}:")}
    if dry_run:
        assert acts == {}
        return
    triggered = {pair for pair, outcome in pairs.items() if outcome == "triggered"}
    assert triggered <= acts.keys(), "recorded as triggered, and the engine did nothing"
    unaccounted = {pair: pairs.get(pair) for pair in acts.keys() - triggered}
    assert all(outcome in UNKNOWN for outcome in unaccounted.values()), f"acted upon, and recorded as {unaccounted}"
    recorded_ids = {
        ((str(user_id), scenario_type), notification_id)
        for user_id, scenario_type, notification_id in await harness.rows(
            b"select user_id, scenario_type, notification_id from public.scheduler_evaluations"
            b" where invocation_id = any(%s) and outcome = 'triggered'",
            [list(invocation_ids)],
        )
    }
    assert recorded_ids == {(pair, acts[pair].notification_id) for pair in triggered}


async def check_nothing_is_left(harness: Harness) -> None:
    """No message in a queue, and no batch open."""
    assert await harness.queue_lengths() == [0, 0, 0]
    assert await harness.rows(b"select 1 from public.scheduler_invocation_batches where state = 'open'") == []


def true_status(pairs: Mapping[Pair, str]) -> str:
    """The status that follows from these outcomes, for a scheduled run that was not cancelled and read all mentors."""
    outcomes = Counter(pairs.values())
    if not pairs:
        return "failed"
    if not any(outcomes[unfinished] for unfinished in UNKNOWN):
        return "success"
    return "partial" if any(outcomes[outcome] for outcome in EVALUATED) else "failed"
