"""What must hold of a run whatever happened to it, computed from the tables and the engine's ledger alone.

The product's own derivations (counts, status, lists) are compared with these, and never used to make them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from tests.integration.nightly.night import Night, Pair
from tests.scripted_engine.server import Act

EVALUATED = ("triggered", "not_triggered", "suppressed")
# Whoever does not get the engine's answer cannot know whether it acted.
UNKNOWN = ("failed", "not_evaluated")


async def check_promises(night: Night, invocation: Mapping[str, Any]) -> dict[Pair, str]:
    """Every promise, for an invocation that has ended and is about all of the night's mentors.

    Everybody accounted for once, counts equal to rows and ledger, one key a pair, acts equal to what the database
    calls triggered, nothing left in a queue, no batch open, and a status that is the truth.

    Returns:
        The outcome of every pair.
    """
    invocation = await night.describe(invocation["id"])
    assert invocation["finished_at"] is not None, invocation
    await night.check_truth(invocation)
    pairs = await night.recorded_pairs(invocation["id"])
    await check_ledger(night, invocation["id"], pairs)
    await check_rest(night)
    if invocation["status"] != "cancelled":
        assert invocation["status"] == true_status(pairs), (invocation["status"], Counter(pairs.values()))
    return pairs


async def check_ledger(night: Night, invocation_id: str, pairs: Mapping[Pair, str]) -> None:
    """What the engine saw and did for this invocation is what the database says of it."""
    ((scope, dry_run),) = await night.rows(
        b"select engine_scope, dry_run from public.scheduler_invocations where id = %s", [invocation_id]
    )
    keys = keys_by_pair(night, invocation_id)
    for pair, seen in keys.items():
        assert seen == {f"{scope}:{pair[0]}:{pair[1]}"}, f"{pair} was asked about under {seen}"
    evaluated = {pair for pair, outcome in pairs.items() if outcome in EVALUATED}
    assert evaluated <= keys.keys(), "the database knows an outcome that the engine was never asked for"
    if dry_run:
        assert acts_of(night, scope) == {}
        return
    acts = acts_of(night, scope)
    triggered = {pair for pair, outcome in pairs.items() if outcome == "triggered"}
    assert triggered <= acts.keys(), "recorded as triggered, and the engine did nothing"
    unaccounted = {pair: pairs.get(pair) for pair in acts.keys() - triggered}
    assert all(outcome in UNKNOWN for outcome in unaccounted.values()), f"acted upon, and recorded as {unaccounted}"
    recorded_ids = {
        (str(user_id), scenario_type): notification_id
        for user_id, scenario_type, notification_id in await night.rows(
            b"select user_id, scenario_type, notification_id from public.scheduler_evaluations"
            b" where invocation_id = %s and outcome = 'triggered'",
            [invocation_id],
        )
    }
    assert recorded_ids == {pair: acts[pair].notification_id for pair in triggered}


async def check_rest(night: Night) -> None:
    """Nothing is left lying: no message in a queue, and no batch open."""
    assert await night.queue_lengths() == [0, 0]
    assert await night.rows(b"select 1 from public.scheduler_invocation_batches where state = 'open'") == []


def keys_by_pair(night: Night, invocation_id: str) -> dict[Pair, set[str]]:
    """Under which idempotency keys the engine was asked about each pair, dry runs left out: they do nothing."""
    keys: defaultdict[Pair, set[str]] = defaultdict(set)
    for record in night.engine.calls:
        if record.invocation_id == invocation_id and not record.dry_run:
            for pair, key in zip(record.pairs, record.keys, strict=True):
                keys[pair].add(key)
    return dict(keys)


def acts_of(night: Night, scope: str) -> dict[Pair, Act]:
    """What the engine did under the keys of one scope."""
    return {act.pair: act for key, act in night.engine.acts.items() if key.startswith(f"{scope}:")}


def true_status(pairs: Mapping[Pair, str]) -> str:
    """The status that these outcomes deserve, for a scheduled run that was not cancelled and read everybody."""
    outcomes = Counter(pairs.values())
    if not pairs:
        return "failed"
    if not any(outcomes[undone] for undone in UNKNOWN):
        return "succeeded"
    return "partial" if any(outcomes[outcome] for outcome in EVALUATED) else "failed"
