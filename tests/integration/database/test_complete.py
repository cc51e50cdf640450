"""scheduler_complete: results, counts and acknowledgement in one transaction, once; remaining users are requeued."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pytest

from .requests import unfinished
from .sql_core import SCENARIO, SqlCore, Worker, assert_counts_add_up, mentor, pairs

QUEUE = "pgmq.q_scenario_evaluation_batches"
A_CONSTRAINT = f"check (user_id <> '{mentor(2)}')"
REFUSALS = {
    "the rows": (
        f"alter table public.scheduler_evaluations add constraint no {A_CONSTRAINT}",
        "alter table public.scheduler_evaluations drop constraint no",
    ),
    "the message": (f"alter table {QUEUE} rename to away", "alter table pgmq.away rename to " + QUEUE[5:]),
}


def mentors(*numbers: int) -> list[str]:
    return [mentor(number) for number in numbers]


async def test_rows_counts_and_acknowledgement_come_together(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs(range(1, 7))])
    outcomes = dict(zip(mentors(1, 3, 4, 5), ["triggered", "suppressed", "skipped", "failed"], strict=True))
    batch = {**await worker.claim_one(), "deliveries": 3}
    assert await worker.complete(batch, "not_triggered", outcomes) == "done"
    assert await core.owner.rows(
        "select user_id::text, scenario_type, outcome, error_code from public.scheduler_evaluations order by 1"
    ) == [
        (user_id, SCENARIO, outcome, "engine_error" if outcome == "failed" else None)
        for user_id, outcome in outcomes.items()
    ]
    assert await core.batches(
        "state, triggered, not_triggered, suppressed, skipped, failed, not_evaluated,"
        " deliveries, duration_ms, worker, finished_at is not null"
    ) == [("done", 1, 2, 1, 1, 1, 0, 3, 5, "test", True)]
    assert await core.queued() == 0
    described = await core.describe(run)
    assert_counts_add_up(described)
    members = ("users_evaluated", "notifications_dispatched", "mentors_remaining", "pages_processed")
    assert [described[name] for name in members] == [4, 1, 0, 1]
    await core.change(run, "dry_run = true")
    assert (await core.summarize(run))["notifications_dispatched"] == 0


@pytest.mark.parametrize("remaining", [None, mentors(3)], ids=["whole", "cut off"])
@pytest.mark.parametrize("refused", REFUSALS)
async def test_what_cannot_be_written_changes_nothing(
    core: SqlCore, worker: Worker, refused: str, remaining: list[str] | None
) -> None:
    await core.open_run(worker, [pairs([1, 2, 3])])
    batch = await worker.claim_one()
    before = await core.everything()
    refuse, allow = REFUSALS[refused]
    await core.owner.run(refuse)
    with pytest.raises(psycopg.DatabaseError):
        await worker.complete(batch, remaining=remaining)
    await core.owner.run(allow)
    assert await core.everything() == before
    assert await worker.complete(batch, remaining=remaining) == "done"


@pytest.mark.parametrize("rests", [(None, None), (mentors(1, 2), mentors(5))], ids=["whole", "cut off"])
async def test_of_two_simultaneous_records_one_wins(core: SqlCore, rests: tuple[list[str] | None, ...]) -> None:
    first, second = await core.workers(2)
    run = await core.open_run(first, [pairs(range(10))])
    batch = await first.claim_one()
    late = second.complete(batch, "failed", remaining=rests[1])
    assert await core.race(first, first.complete(batch, remaining=rests[0]), second, late) == ("done", "already_done")
    counts = (await core.describe(run))["counts"]
    assert (counts["mentors"], counts["failed"], await core.queued()) == (10, 0, 0 if rests[0] is None else 1)


WRONG: list[tuple[list[int], dict[str, int]]] = [
    ([], {}),
    ([1], {"triggered": 1}),
    ([1], {"triggered": 2}),
    ([1], {"triggered": 1, "not_triggered": 2}),
    ([1, 2], {"triggered": 1}),
    ([1, 2, 3], {"triggered": 3}),
    ([1, 2], {"triggered": 1, "failed": 2}),
    ([1, 1], {"triggered": 2}),
]


@pytest.mark.parametrize(
    ("remaining", "users", "counts"),
    [
        *((None, *case) for case in WRONG),
        *((mentors(3), *case) for case in WRONG),
        (mentors(3), [1, 3], {"triggered": 2}),
    ],
)
async def test_results_that_do_not_cover_the_pairs_are_refused(
    core: SqlCore, worker: Worker, remaining: list[str] | None, users: list[int], counts: dict[str, int]
) -> None:
    await core.open_run(worker, [pairs([1, 2, 3] if remaining else [1, 2])])
    batch = await worker.claim_one()
    before = await core.everything()
    stored_rows = [(mentor(number), SCENARIO, "triggered") for number in users]
    with pytest.raises(psycopg.DatabaseError):
        await worker.complete_with(batch, stored_rows, {SCENARIO: counts}, remaining=remaining)
    assert await core.everything() == before


async def test_recording_does_not_wait_for_its_invocation(core: SqlCore, worker: Worker) -> None:
    """A finish, the end of a slice or a cancellation that locks it does not delay workers that record."""
    run = await core.open_run(worker, [pairs([1])])
    batch = await worker.claim_one()
    holder = await core.session()
    async with holder.transaction():
        await holder.run("select from public.scheduler_invocations where id = %s for no key update", run)
        assert await worker.complete(batch) == "done"


# Where users are cut off


async def test_users_cut_off_keep_their_groups_and_queue(core: SqlCore, worker: Worker) -> None:
    skipped = {**pairs([5, 6], ["onboarding"])[0], "skip": "mentor_not_active"}
    run = await core.open_manual_run(worker, [[*pairs([1, 2], ["lapsed"]), *pairs([3, 4], ["milestone"]), skipped]])
    batch = {**await worker.claim_one(), "deliveries": 2}
    outcomes = dict.fromkeys(mentors(5), "skipped")
    assert await worker.complete(batch, "triggered", outcomes, remaining=mentors(2, 3, 4, 6)) == "done"
    assert await core.batches("state, pairs, mentors, evaluations") == [
        ("done", [*pairs([1], ["lapsed"]), skipped | {"user_ids": mentors(5)}], 2, 2),
        ("open", [*pairs([2], ["lapsed"]), *pairs([3, 4], ["milestone"]), skipped | {"user_ids": mentors(6)}], 4, 4),
    ]
    (again,) = (await worker.claim(manual_only=True))["batches"]
    assert (again["batch_no"], again["deliveries"], again["invocation_id"]) == (2, 1, run)


@pytest.mark.parametrize(
    "remaining",
    [[], mentors(1, 2, 3), mentors(4), mentors(3, 4), mentors(2, 2, 9)],
    ids=["none", "all", "an unknown user", "an unknown user as well", "an unknown user beside one named twice"],
)
async def test_remaining_users_from_outside_the_batch_are_refused(
    core: SqlCore, worker: Worker, remaining: Sequence[str]
) -> None:
    await core.open_run(worker, [pairs([1, 2, 3])])
    batch = await worker.claim_one()
    before = await core.everything()
    with pytest.raises(psycopg.errors.DataException, match="expected some but not all of its users to remain"):
        await worker.complete(batch, remaining=remaining)
    assert await core.everything() == before


async def test_users_cut_off_while_a_retry_reads_come_once(core: SqlCore, worker: Worker) -> None:
    """The retry read the abandoned batch as a whole; its remaining users, requeued under a later number, were in it."""
    run = await core.open_run(worker, [pairs([1, 2, 3]), pairs([4])])
    late, _ = (await worker.claim())["batches"]
    await worker.cancel(run)
    first = await unfinished(worker, run, mentors=1)
    await worker.complete(late, remaining=mentors(3))
    second = await unfinished(worker, run, after=first["last_user_id"], mentors=1)
    assert [[row["user_id"] for row in page["mentors"]] for page in (first, second)] == [mentors(1, 2, 3), mentors(4)]
    assert (await unfinished(worker, run, after=second["last_user_id"], mentors=1))["last_user_id"] is None


async def test_a_run_stays_open_while_users_are_requeued(core: SqlCore) -> None:
    recorder, finisher = await core.workers(2)
    run = await core.open_run(recorder, [pairs([1, 2])])
    batch = await recorder.claim_one()
    _, finished = await core.race(
        recorder, recorder.complete(batch, remaining=mentors(2)), finisher, finisher.finish(run)
    )
    assert not finished["ended_now"]


async def test_users_requeued_beside_a_cancellation_are_abandoned(core: SqlCore) -> None:
    recorder, canceller = await core.workers(2)
    run = await core.open_run(recorder, [pairs([1, 2])])
    batch = await recorder.claim_one()
    _, recorded = await core.race(
        canceller, canceller.cancel(run), recorder, recorder.complete(batch, remaining=mentors(2))
    )
    counts = (await core.describe(run))["counts"]
    assert (recorded, counts["triggered"], counts["not_evaluated"], await core.queued()) == ("done", 1, 1, 0)
