"""What must hold after every step, whatever was done in it. Each is worked out anew from pairs, rows and answers."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from tests.integration.database.asked import pairs_of

from .ending import Prune, is_past_retention
from .ledger import Ledger
from .opening import MAX_WORKERS
from .operation import Step
from .picture import NOTABLE, Picture, Run, by_scenario, last_good, moment

OUTCOMES = (*NOTABLE, "not_triggered", "not_evaluated")
# What may change of a run that has ended; its time of ending only when it is moved by hand.
MAY_CHANGE_AFTER_THE_END = ("note", "deleted_at", "retry_of", "next_batch_no")


def check(step: Step) -> None:
    after, ledger = step.after, step.ledger
    for run in after.runs.values():
        pairs_are_what_was_frozen_and_recorded(run, ledger)
        batches_agree_with_their_pairs(run)
        ranges_are_the_same_or_disjoint(run)
        counts_agree_with_pairs(run)
        what_is_undone_can_be_read_back(run)
        status_is_the_truth(run, ledger)
        scope_is_what_it_was_opened_with(run, after, ledger)
    messages_are_those_of_open_batches(after, ledger)
    deliveries_are_counted(after, ledger)
    slots_are_opened_once(step)
    what_has_ended_stays(step)
    only_what_may_be_pruned_is_gone(step)
    slices_stay_within_bounds(step)


def pairs_are_what_was_frozen_and_recorded(run: Run, ledger: Ledger) -> None:
    """I2: nothing vanishes, nothing is added, and an outcome that was recorded stays."""
    every = [pair for batch in run.batches.values() for pair in pairs_of(batch["pairs"])]
    assert len(every) == len(set(every)), f"{run.id} has a pair twice"
    assert set(every) == ledger.frozen[run.id].keys(), run.id
    assert run.rows.keys() <= set(every), f"{run.id} has results for somebody whom it is not about"
    for pair, outcome in run.outcomes.items():
        recorded = ledger.frozen[run.id][pair]
        assert outcome == recorded or (recorded is None and outcome in (None, "not_evaluated")), (
            pair,
            recorded,
            outcome,
        )


def batches_agree_with_their_pairs(run: Run) -> None:
    for number, batch in run.batches.items():
        outcomes = dict(run.outcomes_of(batch))
        users = sorted({user_id for user_id, _ in outcomes})
        assert (batch["mentors"], batch["evaluations"]) == (len(users), len(outcomes)), number
        assert batch["first_user_id"] <= users[0] <= users[-1] <= batch["last_user_id"]
        assert batch["deliveries_before"] == 0 or len(users) == 1
        counted = Counter(outcome for outcome in outcomes.values() if outcome)
        assert {outcome: batch[outcome] for outcome in OUTCOMES} == {outcome: counted[outcome] for outcome in OUTCOMES}
        assert batch["scenario_counts"] == by_scenario(outcomes)


def ranges_are_the_same_or_disjoint(run: Run) -> None:
    ranges = sorted({(batch["first_user_id"], batch["last_user_id"]) for batch in run.batches.values()})
    assert all(one[1] < other[0] for one, other in pairwise(ranges)), "ranges of users overlap"


def counts_agree_with_pairs(run: Run) -> None:
    described, counts = run.described, run.described["counts"]
    counted = Counter(run.outcomes.values())
    assert {outcome: counts[outcome] for outcome in OUTCOMES} == {outcome: counted[outcome] for outcome in OUTCOMES}
    assert counts["evaluations"] == len(run.outcomes)
    assert counts["batches"] == len(run.batches)
    assert counts["batches_done"] == sum(batch["state"] == "done" for batch in run.batches.values())
    assert counts["mentors"] == run.mentors_skipped + len({user_id for user_id, _ in run.outcomes})
    assert described["scenarios"] == by_scenario(run.outcomes)
    causes = Counter(row["error_code"] for row in run.rows.values() if row["outcome"] == "failed")
    assert {cause["code"]: cause["count"] for cause in described["failures"]} == causes
    assert described["status"] == run.status


def what_is_undone_can_be_read_back(run: Run) -> None:
    undone = {(row["user_id"], kind) for row in run.undone["mentors"] for kind in row["scenario_types"]}
    assert undone == {pair for pair, outcome in run.outcomes.items() if outcome in ("failed", "not_evaluated")}


def status_is_the_truth(run: Run, ledger: Ledger) -> None:
    """I5, from what was known when it ended; what was recorded later moves neither status nor time."""
    assert (run.finished_at is None) == run.is_open
    if run.is_open:
        assert run.id not in ledger.cancelled
        return
    assert not run.open_batches, f"{run.id} has ended, and left batches open"
    if run.status == "skipped":
        assert (run.error, run.batches) == ("overlap", {})
        return
    assert (run.status == "cancelled") == (run.id in ledger.cancelled)
    if run.status == "cancelled":
        return
    outcomes = run.outcomes_at_its_end()
    all_recorded = run.enumeration_done and not outcomes["not_evaluated"]
    if not all_recorded:
        assert moment(run.expires_at) <= moment(run.finished_at) or is_moved(run), f"{run.id} ended before its time"
        assert run.error is not None
    assert (run.status, run.error == "no_active_mentors") == truth(run, outcomes), outcomes
    assert run.error == "no_active_mentors" if run.status == "failed" and not run.batches and all_recorded else True


def is_moved(run: Run) -> bool:
    """Its end was moved into the past by hand."""
    return moment(run.finished_at) < moment(run.created_at)


def truth(run: Run, outcomes: Counter[str | None]) -> tuple[str, bool]:
    evaluated = sum(outcomes[outcome] for outcome in ("triggered", "not_triggered", "suppressed"))
    if run.enumeration_done and not run.batches and not run.mentors_skipped:
        return ("failed", True) if run.triggered_by == "schedule" else ("succeeded", False)
    if run.enumeration_done and not outcomes["failed"] and not outcomes["not_evaluated"]:
        return "succeeded", False
    return ("partial" if evaluated else "failed"), False


def scope_is_what_it_was_opened_with(run: Run, picture: Picture, ledger: Ledger) -> None:
    assert run.id in ledger.opened, f"nobody was told that {run.id} was opened"
    assert run.engine_scope == ledger.scopes[run.id]
    source = ledger.sources.get(run.id)
    if source is None:
        assert run.triggered_by != "retry"
        return
    assert run.triggered_by == "retry"
    # what it has not read to the end is there, and stands still
    assert run.retry_of == source or (run.retry_of is None and source not in picture.runs)
    assert run.enumeration_done or source in picture.runs, f"{source} is gone, and {run.id} has still to read from it"
    if source in picture.runs:
        assert not picture.runs[source].is_open
        assert not picture.runs[source].dry_run or run.dry_run
        assert run.dry_run or run.engine_scope_since == picture.runs[source].engine_scope_since


def messages_are_those_of_open_batches(picture: Picture, ledger: Ledger) -> None:
    expected = [
        (run.queue, run.batches[number]["msg_id"]) for run in picture.runs.values() for number in run.open_batches
    ]
    assert len(expected) == len(set(expected)), "two batches share a message"
    waiting = picture.messages.keys() - ledger.strays
    assert set(expected) <= waiting | ledger.lost, "an open batch has no message"
    assert waiting <= set(expected), "a message is left of a batch that is not open"


def deliveries_are_counted(picture: Picture, ledger: Ledger) -> None:
    for run in picture.runs.values():
        for number in run.open_batches:
            message = picture.message_of((run.id, number))
            assert message is None or message.read_count == ledger.claims[run.id, number]
            assert run.batches[number]["handed_back"] == len(ledger.blameless[run.id, number])


def slots_are_opened_once(step: Step) -> None:
    """I1; that no slot is opened again is checked with each answer."""
    after = step.after
    nights = [run for run in after.runs.values() if run.triggered_by == "schedule"]
    assert {run.idempotency_key for run in nights} <= step.ledger.slots
    assert sum(run.is_open for run in nights) <= 1
    before, mark = step.before.settings["slot_high_water_mark"], after.settings["slot_high_water_mark"]
    assert before is None or moment(before) <= moment(mark), "the high-water mark moved back"
    assert all(moment(run.scheduled_for) <= moment(mark) for run in nights)
    retried = [run.retry_of for run in after.open_runs if run.retry_of]
    assert len(retried) == len(set(retried)), "two retries of one run are open"


def what_has_ended_stays(step: Step) -> None:
    for run_id in step.before.runs.keys() & step.after.runs.keys():
        before, after = step.before.runs[run_id], step.after.runs[run_id]
        assert after.enumeration_done >= before.enumeration_done
        if before.is_open:
            continue
        assert fixed(after) == fixed(before)
        assert after.finished_at == before.finished_at or is_moved(after)
        assert not before.deleted_at or after.deleted_at == before.deleted_at


def fixed(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.row.items() if name not in (*MAY_CHANGE_AFTER_THE_END, "finished_at")}


def only_what_may_be_pruned_is_gone(step: Step) -> None:
    gone = step.before.runs.keys() - step.after.runs.keys()
    if not gone:
        return
    assert step.has(Prune), "rows are gone, and nobody pruned"
    best = last_good([*(step.before.runs[run_id] for run_id in gone), *step.after.runs.values()])
    for run_id in gone:
        assert run_id != best, "the last night that went well was pruned"
        assert run_id in step.ledger.deleted or is_past_retention(step.before.runs[run_id], step.before)
    step.ledger.forget(gone)


def slices_stay_within_bounds(step: Step) -> None:
    assert len(step.after.under_way) <= MAX_WORKERS
    for number, before in step.before.dispatches.items():
        after = step.after.dispatches[number]
        assert before["ended_at"] is None or after["ended_at"] == before["ended_at"]
        assert before["status_code"] is None or after["status_code"] == before["status_code"]
