"""What must hold after every step: the promises of docs/reliability.md that the SQL functions keep.

Each is worked out anew from pairs, rows and what callers were answered, never from a count that SQL made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

from tests.integration.database.requests import pairs_of
from tests.integration.database.sql_core import EVALUATED, Json

from .snapshot import OUTCOMES, BatchKey, Message, Pair, Run, Snapshot, by_scenario, key_of, last_success, moment

# What may change of a run that has ended.
MAY_CHANGE_AFTER_THE_END = ("note", "deleted_at", "retry_of", "next_batch_no", "end_is_logged")


@dataclass
class Ledger:
    """What callers were answered, and nothing else: the account against which the tables are held."""

    # Slots that are spent, and the scope in which the engine sees the pairs of each run; of a retry, its source.
    slots: set[str] = field(default_factory=set)
    scopes: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    # Of each run every pair that was accepted, with the outcome that was recorded for it, None: none yet.
    frozen: dict[str, dict[Pair, str | None]] = field(default_factory=dict)
    # Of each run that an operator ended, as what.
    verdicts: dict[str, str] = field(default_factory=dict)
    # Batches as they were handed out, by worker, the latest last: it may record or release them at any time.
    held: dict[str, tuple[Json, ...]] = field(default_factory=dict)
    # How many batches were handed out in all.
    claims: int = 0
    # The deliveries of a batch that were released and do not count.
    uncounted: dict[BatchKey, frozenset[int]] = field(default_factory=dict)

    def branch(self) -> Ledger:
        """Return a copy that can go another way."""
        return Ledger(**{each.name: copy(getattr(self, each.name)) for each in fields(self)})

    def key(self) -> str:
        # Which worker is which makes no difference.
        held = sorted([(*key_of(batch), batch["read_count"]) for batch in held] for held in self.held.values() if held)
        return repr((self.claims, held, self.uncounted, self.frozen))

    def open(self, run_id: str, scope: str) -> None:
        assert run_id not in self.scopes, f"{run_id} was opened a second time"
        self.scopes[run_id] = scope
        self.frozen[run_id] = {}

    def freeze(self, run_id: str, pairs: list[Pair]) -> None:
        known = self.frozen[run_id]
        assert len({*known, *pairs}) == len(known) + len(pairs), f"a pair of {run_id} was frozen twice"
        self.frozen[run_id] = known | dict.fromkeys(pairs)

    def record(self, run_id: str, outcomes: dict[Pair, str]) -> None:
        known = self.frozen[run_id]
        for pair, outcome in outcomes.items():
            assert known[pair] is None, f"{pair} of {run_id} was recorded as {known[pair]}, and then as {outcome}"
        self.frozen[run_id] = {**known, **outcomes}

    def drop(self, worker: str, batch: Json) -> None:
        self.held[worker] = tuple(other for other in self.held[worker] if other is not batch)


def check_step(before: Snapshot, after: Snapshot, *, prunes: bool) -> None:
    """Check what may have changed."""
    mark, marked = before.settings["slot_high_water_mark"], after.settings["slot_high_water_mark"]
    assert mark is None or moment(mark) <= moment(marked), "the high-water mark moved back"
    for run_id in before.runs.keys() - after.runs.keys():
        assert prunes, f"{run_id} is gone, and nothing was pruned"
        assert may_be_pruned(before.runs[run_id], before, readers=after), f"{run_id} was pruned too early"
    for run_id in before.runs.keys() & after.runs.keys():
        was, run = before.runs[run_id], after.runs[run_id]
        assert run.enumeration_done >= was.enumeration_done
        if not was.is_open:
            assert fixed(run) == fixed(was), f"{run_id} had ended, and changed"


def check(after: Snapshot, described: dict[str, Json], ledger: Ledger) -> None:
    """Check what the tables say, and what SQL says of each run, against what callers were answered."""
    for run in after.runs.values():
        pairs_are_what_was_frozen_and_recorded(run, ledger)
        batches_agree_with_their_pairs(run)
        counts_agree_with_pairs(run, described[run.id]["described"])
        unfinished_can_be_read_back(run, described[run.id]["unfinished"])
        status_is_the_truth(run, ledger)
        keys_are_the_same_each_time(run, after, ledger)
    messages_are_those_of_open_batches(after, ledger)
    slots_are_opened_once(after, ledger)
    assert after.under_way <= after.settings["max_workers"], "more slices were asked for than there may be"


def pairs_are_what_was_frozen_and_recorded(run: Run, ledger: Ledger) -> None:
    """No pair vanishes, none is added, and an outcome that was recorded stays."""
    every = [pair for batch in run.batches.values() for pair in pairs_of(batch["pairs"])]
    assert len(every) == len(set(every)), f"{run.id} has a pair twice"
    assert set(every) == ledger.frozen[run.id].keys(), f"the pairs of {run.id} are not those that were frozen"
    assert run.rows.keys() <= set(every), f"{run.id} has results of pairs that are not its own"
    for pair, outcome in run.outcomes.items():
        recorded = ledger.frozen[run.id][pair]
        assert outcome == recorded or (recorded is None and outcome in (None, "not_evaluated")), (
            f"{pair} was recorded as {recorded}, and is {outcome}"
        )


def batches_agree_with_their_pairs(run: Run) -> None:
    for number, batch in run.batches.items():
        outcomes = dict(run.outcomes_of(batch))
        users = sorted({user_id for user_id, _ in outcomes})
        assert (batch["mentors"], batch["evaluations"]) == (len(users), len(outcomes)), number
        assert batch["first_user_id"] <= users[0] <= users[-1] <= batch["last_user_id"]
        assert batch["deliveries_before"] == 0 or len(users) == 1
        counted = Counter(outcome for outcome in outcomes.values() if outcome)
        assert {name: batch[name] for name in OUTCOMES} == {name: counted[name] for name in OUTCOMES}, number
        assert batch["scenario_counts"] == by_scenario(outcomes)
        assert batch["users_evaluated"] == evaluated_users(outcomes)
        left = {user_id for (user_id, _), outcome in outcomes.items() if outcome in (None, "failed", "not_evaluated")}
        assert (batch["mentors_left"], batch["mentors_unknown"]) == (len(left), 0), number
    ranges = sorted({(batch["first_user_id"], batch["last_user_id"]) for batch in run.batches.values()})
    assert all(one[1] < other[0] for one, other in pairwise(ranges)), "ranges of users overlap"


def evaluated_users(outcomes: Mapping[Pair, str | None]) -> int:
    """How many users have a pair that was evaluated."""
    return len({user_id for (user_id, _), outcome in outcomes.items() if outcome in EVALUATED})


def counts_agree_with_pairs(run: Run, described: Json) -> None:
    counts, counted = described["counts"], Counter(run.outcomes.values())
    assert {name: counts[name] for name in OUTCOMES} == {name: counted[name] for name in OUTCOMES}
    assert counts["evaluations"] == len(run.outcomes)
    assert counts["batches"] == len(run.batches)
    assert counts["batches_done"] == sum(batch["state"] == "done" for batch in run.batches.values())
    assert counts["mentors"] == run.mentors_skipped + len({user_id for user_id, _ in run.outcomes})
    assert described["users_evaluated"] == evaluated_users(run.outcomes)
    assert described["notifications_dispatched"] == (0 if run.dry_run else counted["triggered"])
    assert described["scenarios"] == by_scenario(run.outcomes)
    causes = Counter(row["error_code"] for row in run.rows.values() if row["outcome"] == "failed")
    assert {cause["code"]: cause["count"] for cause in described["failures"]} == causes
    assert described["status"] == run.status


def unfinished_can_be_read_back(run: Run, unfinished: Json) -> None:
    read = {(row["user_id"], kind) for row in unfinished["mentors"] for kind in row["scenario_types"]}
    assert read == {pair for pair, outcome in run.outcomes.items() if outcome in ("failed", "not_evaluated")}


def status_is_the_truth(run: Run, ledger: Ledger) -> None:
    """From what was known when it ended; what was recorded later moves neither status nor time."""
    assert (run.finished_at is None) == run.is_open
    if run.is_open:
        assert run.id not in ledger.verdicts
        return
    assert not run.open_batches, f"{run.id} has ended, and left batches open"
    if run.status == "skipped":
        assert (run.error_code, run.batches) == ("overlap", {})
        return
    verdict = ledger.verdicts.get(run.id)
    assert (run.status == "cancelled") == (verdict == "cancelled")
    assert (run.error_code == "marked_failed") == (verdict == "failed")
    if verdict:
        assert run.status == verdict
        return
    outcomes = run.outcomes_at_its_end()
    if not run.enumeration_done or outcomes["not_evaluated"]:
        assert moment(run.expires_at) <= moment(run.finished_at), f"{run.id} ended before its time"
        assert run.error_code is not None
    status = final_status(run, outcomes)
    assert run.status == status, f"{run.id} is {run.status}, but {dict(outcomes)} is {status}"
    has_no_mentors = run.enumeration_done and not run.batches and not run.mentors_skipped
    assert (run.error_code == "no_active_mentors") == (has_no_mentors and run.trigger == "schedule")


def final_status(run: Run, outcomes: Counter[str | None]) -> str:
    if run.enumeration_done and not run.batches and not run.mentors_skipped:
        return "failed" if run.trigger == "schedule" else "success"
    if run.enumeration_done and not outcomes["failed"] and not outcomes["not_evaluated"]:
        return "success"
    evaluated = sum(outcomes[outcome] for outcome in EVALUATED)
    return "partial" if evaluated else "failed"


def keys_are_the_same_each_time(run: Run, after: Snapshot, ledger: Ledger) -> None:
    """The scope that begins every key is the one it was opened with, a retry's that of its source."""
    assert run.id in ledger.scopes, f"no caller was answered that {run.id} was opened"
    assert run.engine_scope == ledger.scopes[run.id]
    source = ledger.sources.get(run.id)
    assert (run.trigger == "retry") == (source is not None)
    if source is None:
        return
    assert run.enumeration_done or source in after.runs, f"{source} is gone, and {run.id} still reads from it"
    if source in after.runs:
        assert run.retry_of == source
        assert not after.runs[source].is_open
        assert run.dry_run or run.engine_scope_since == after.runs[source].engine_scope_since


def messages_are_those_of_open_batches(after: Snapshot, ledger: Ledger) -> None:
    wanted: set[Message | None] = set()
    for run in after.runs.values():
        for number in run.open_batches:
            wanted.add(message := after.message_of((run.id, number)))
            assert message, f"open batch {number} of {run.id} has no message"
            assert run.batches[number]["released_count"] == len(ledger.uncounted.get((run.id, number), ()))
    assert set(after.messages) <= wanted, "a message is left of a batch that is not open"


def slots_are_opened_once(after: Snapshot, ledger: Ledger) -> None:
    """That a slot is not opened again after its run is gone is checked with each answer."""
    scheduled = [run for run in after.runs.values() if run.trigger == "schedule"]
    assert {run.idempotency_key for run in scheduled} <= ledger.slots
    assert sum(run.is_open for run in scheduled) <= 1
    retried = [run.chain for run in after.open_runs if run.trigger == "retry"]
    assert len(retried) == len(set(retried)), "two retries in one chain are open"


def may_be_pruned(run: Run, before: Snapshot, readers: Snapshot) -> bool:
    """Ended, and deleted or old; not the last good run, nor what a retry (one of the `readers`) has still to read.

    Nor a retry while an earlier run of its chain is shown.
    """
    kept, keep = last_success(before.runs.values()), before.settings["retention_days"] * 86400

    def is_old(each: Run) -> bool:
        return bool(each.deleted_at) or (before.now - moment(each.finished_at)).total_seconds() > keep

    if run.is_open or not is_old(run) or run.id == kept or has_readers(run.id, readers):
        return False
    ended = [each for each in before.chain_of(run) if not each.is_open]
    earlier = [each for each in ended if moment(each.finished_at) < moment(run.finished_at)]
    return all(is_old(each) and (each.deleted_at or each.id != kept) for each in earlier)


def has_readers(run_id: str, snapshot: Snapshot) -> bool:
    return any(other.retry_of == run_id and not other.enumeration_done for other in snapshot.runs.values())


def fixed(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.row.items() if name not in MAY_CHANGE_AFTER_THE_END}
