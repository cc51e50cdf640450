"""A drain takes everything that is queued, stops when the engine or the time does, and gives back what it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from functions.drain import Process
from shared.errors import DatabaseError, DatabaseRefusedError, DatabaseUnavailableError
from shared.evaluations import EvaluationBatch
from shared.time_budget import TimeBudget
from tests.unit.clock import ManualClock
from tests.unit.functions.pretend_engine import PretendEngine, make_batch, make_users
from tests.unit.functions.pretend_queue import PretendQueue, make_drain

# Four are enough for four calls at a time, and half as many again wait for their record.
IN_HAND_AT_FOUR_CALLS = 6


async def test_everything_that_is_queued_is_recorded_once(clock: ManualClock) -> None:
    batches = [make_batch(make_users(5)) for _ in range(30)]
    queue = PretendQueue(batches)
    drain = make_drain(queue, PretendEngine(clock), ENGINE_MAX_CONCURRENCY="2")
    drain.note_all_queued()

    done = await drain.run()

    assert done.batches == 30
    assert queue.released == []
    assert sorted(map(id, queue.recorded)) == sorted(map(id, batches))


async def test_what_is_queued_while_a_claim_is_under_way_is_not_left_lying(clock: ManualClock) -> None:
    """The claim looked before it was queued; by the time it answers, all is queued."""
    queue = PretendQueue()
    drain = make_drain(queue, PretendEngine(clock))

    def queue_everything() -> None:
        queue.after_claim = lambda: None
        queue.waiting.append(make_batch(make_users(5)))
        drain.note_queued()
        drain.note_all_queued()

    queue.after_claim = queue_everything

    done = await drain.run()

    assert done.batches == 1
    assert queue.waiting == []


async def test_it_waits_for_more_while_the_enumeration_goes_on(clock: ManualClock) -> None:
    queue = PretendQueue()
    drain = make_drain(queue, PretendEngine(clock))
    running = asyncio.create_task(drain.run())
    await soon(queue.news)
    queue.news.clear()

    queue.waiting.append(make_batch(make_users(5)))
    drain.note_queued()
    while not queue.recorded:
        await soon(queue.news)
        queue.news.clear()
    assert not running.done()
    drain.note_all_queued()

    assert (await running).batches == 1


@pytest.mark.parametrize(("status", "code"), [(401, "engine_http_401"), (503, "engine_http_503")])
async def test_an_engine_that_is_no_use_stops_it_and_everything_is_given_back_blamelessly(
    clock: ManualClock, status: int, code: str
) -> None:
    batches = [make_batch(make_users(5)) for _ in range(10)]
    queue = PretendQueue(batches)
    drain = make_drain(queue, PretendEngine(clock, trouble=lambda _: httpx.Response(status)))
    drain.note_all_queued()

    done = await drain.run()

    assert done.stopped_by is not None
    assert done.stopped_by.code == code
    assert done.batches == 0
    assert (len(queue.waiting), queue.in_hand) == (10, [])
    assert [blameless for _, blameless in queue.released] == [True] * IN_HAND_AT_FOUR_CALLS


async def test_a_record_under_way_is_finished_when_the_engine_stops_the_rest(clock: ManualClock) -> None:
    """What the engine has answered for good must be recorded, or it would have to be asked again."""
    good, bad = make_batch(make_users(1)), make_batch(make_users(3)[1:])
    queue = PretendQueue([good, bad], at_a_time=1)
    recording, stopped = asyncio.Event(), asyncio.Event()
    queue.before_record = lambda: asyncio.gather(_set(recording), stopped.wait())

    async def wait_for_the_record() -> None:
        if queue.claims > 1:
            await soon(recording)

    def turn_bad_users_away(user_ids: Sequence[str]) -> httpx.Response | None:
        if "user-000" in user_ids:
            return None
        asyncio.get_running_loop().call_soon(stopped.set)
        return httpx.Response(401)

    queue.before_claim = wait_for_the_record
    drain = make_drain(queue, PretendEngine(clock, trouble=turn_bad_users_away))
    drain.note_all_queued()
    done = await drain.run()

    assert done.stopped_by is not None
    assert queue.recorded == [good]
    assert [batch for batch, _ in queue.released] == [bad]


@pytest.mark.parametrize("error", [DatabaseRefusedError("PGRST303", "early"), DatabaseUnavailableError("away")])
async def test_a_record_that_fails_drops_no_other_batch_in_hand(clock: ManualClock, error: DatabaseError) -> None:
    queue = PretendQueue([make_batch(make_users(n + 1)[n:]) for n in range(4)])
    records = 0

    async def refuse_the_first() -> None:
        nonlocal records
        records += 1
        if records == 1:
            raise error
        for _ in range(50):
            await asyncio.sleep(0)

    queue.before_record = refuse_the_first
    drain = make_drain(queue, PretendEngine(clock))
    drain.note_all_queued()
    with pytest.raises(type(error)):
        await drain.run()
    assert (len(queue.recorded), len(queue.in_hand)) == (3, 1)


@pytest.mark.parametrize(
    ("error", "released"), [(DatabaseRefusedError("22P05", "no"), 1), (DatabaseUnavailableError("away"), 0)]
)
async def test_what_is_claimed_while_a_record_fails_is_not_begun(
    clock: ManualClock, error: DatabaseError, released: int
) -> None:
    """It goes back to the queue at once, unless the database is away."""
    queue = PretendQueue([make_batch(make_users(1)), make_batch(make_users(2)[1:])], at_a_time=1)
    failed = asyncio.Event()

    async def wait_for_the_failure() -> None:
        if queue.claims > 1:
            await soon(failed)

    async def fail() -> None:
        failed.set()
        raise error

    queue.before_claim, queue.before_record = wait_for_the_failure, fail
    engine = PretendEngine(clock)
    drain = make_drain(queue, engine)
    drain.note_all_queued()
    with pytest.raises(type(error)):
        await drain.run()
    assert len(engine.calls) == 1
    assert [blameless for _, blameless in queue.released] == [True] * released


async def soon(event: asyncio.Event) -> None:
    """Wait for what happens at once, or never where the code is broken."""
    async with asyncio.timeout(20):
        await event.wait()


async def _set(event: asyncio.Event) -> None:
    event.set()


async def test_when_the_time_is_up_nothing_more_is_claimed(clock: ManualClock) -> None:
    queue = PretendQueue([make_batch(make_users(1))])
    drain = make_drain(queue, PretendEngine(clock), seconds=100)
    drain.note_all_queued()
    clock.now += 81

    done = await drain.run()

    assert (done.batches, queue.claims) == (0, 0)


async def test_a_batch_that_most_of_the_time_was_not_enough_for_is_not_blameless(clock: ManualClock) -> None:
    batch = make_batch(make_users(1))
    queue = PretendQueue([batch])
    drain = make_drain(queue, PretendEngine(clock, poison={"user-000": 0}), seconds=15)
    drain.note_all_queued()

    await drain.run()

    assert queue.released == [(batch, False)]


@pytest.mark.parametrize("manual_only", [False, True])
async def test_whether_nights_are_left_alone_is_said_with_every_claim(clock: ManualClock, manual_only: bool) -> None:
    queue = PretendQueue([make_batch(make_users(2)) for _ in range(20)])
    drain = make_drain(queue, PretendEngine(clock), manual_only=manual_only)
    drain.note_all_queued()
    await drain.run()
    assert queue.manual_only == {manual_only}


async def test_no_more_is_claimed_than_keeps_the_engine_busy(clock: ManualClock) -> None:
    """What is in hand but not begun would be kept from other workers, and begun after a cancel."""
    queue = PretendQueue([make_batch(make_users(2)) for _ in range(50)], at_a_time=2)
    in_hand: list[int] = []

    async def look() -> None:
        # What is claimed and not recorded, and what is asked for.
        in_hand.append(50 - len(queue.waiting) - len(queue.recorded) + queue.quantities[-1])

    queue.before_claim = look
    drain = make_drain(queue, PretendEngine(clock), ENGINE_MAX_CONCURRENCY="4")
    drain.note_all_queued()

    assert (await drain.run()).batches == 50

    assert max(in_hand) <= IN_HAND_AT_FOUR_CALLS


async def test_while_enough_batches_wait_for_their_record_nothing_is_claimed(clock: ManualClock) -> None:
    queue = PretendQueue([make_batch(make_users(2)) for _ in range(50)])
    recording, may_record = asyncio.Event(), asyncio.Event()
    queue.before_record = lambda: asyncio.gather(_set(recording), may_record.wait())
    drain = make_drain(queue, PretendEngine(clock), ENGINE_MAX_CONCURRENCY="4")
    drain.note_all_queued()
    running = asyncio.create_task(drain.run())
    await soon(recording)
    for _ in range(100):
        await asyncio.sleep(0)

    assert 50 - len(queue.waiting) == IN_HAND_AT_FOUR_CALLS
    assert sum(queue.quantities) == IN_HAND_AT_FOUR_CALLS

    may_record.set()
    assert (await running).batches == 50


async def test_nothing_is_claimed_while_enough_calls_wait(clock: ManualClock) -> None:
    queue = PretendQueue([make_batch(make_users(40)) for _ in range(10)])
    engine = PretendEngine(clock)
    calls_to_come: list[int] = []

    async def look() -> None:
        claimed = 10 - len(queue.waiting)
        calls_to_come.append(40 * claimed - len(engine.calls))

    queue.before_claim = look
    drain = make_drain(queue, engine, ENGINE_MAX_CONCURRENCY="4", ENGINE_USERS_PER_CALL="1", EVALUATION_BATCH_SIZE="40")
    drain.note_all_queued()

    assert (await drain.run()).batches == 10

    # Three wait for each of the four that are under way, at most: of a batch's forty others could have most.
    assert max(calls_to_come) < 3 * 4 + 4
    assert set(queue.quantities) == {1}


@pytest.mark.parametrize("skip_reasons", [("mentor_not_active",) * 3, ("mentor_not_active", None, None)])
async def test_pairs_that_are_skipped_are_recorded_and_counted(
    clock: ManualClock, skip_reasons: tuple[str | None, ...]
) -> None:
    users = [user._replace(skip_reason=reason) for user, reason in zip(make_users(3), skip_reasons, strict=True)]
    queue = PretendQueue([make_batch(users)])
    drain = make_drain(queue, PretendEngine(clock))
    drain.note_all_queued()
    done = await drain.run()
    assert done.outcomes["skipped"] == 2 * sum(reason is not None for reason in skip_reasons)
    assert sum(done.outcomes.values()) == 6


# Batches that may kill their worker, or outlive it


async def test_a_batch_that_only_partly_fits_is_recorded_and_its_rest_put_back(clock: ManualClock) -> None:
    batch = make_batch(make_users(6))
    queue = PretendQueue([batch])
    engine = PretendEngine(clock, poison={"user-003": 0})
    drain = make_drain(queue, engine, seconds=15, ENGINE_USERS_PER_CALL="2")
    drain.note_all_queued()

    done = await drain.run()

    assert queue.recorded == [batch]
    assert queue.cut_off == [("user-002", "user-003")]
    assert queue.released == []
    assert done.progressed
    assert sum(done.outcomes.values()) == 2 * 4


class Looking:
    """What is in hand whenever the engine is called."""

    def __init__(self, *queues: PretendQueue) -> None:
        self._queues = queues
        self.seen: dict[str, int] = {}

    def __call__(self, user_ids: Sequence[str]) -> httpx.Response | None:
        self.seen[user_ids[0]] = sum(len(queue.in_hand) for queue in self._queues)
        return None


def one_user_batches(numbers: range, *, deliveries: int = 1, is_poison: bool = False) -> list[EvaluationBatch]:
    return [
        make_batch([user], deliveries=deliveries, is_poison=is_poison)
        for user in make_users(numbers.stop)[numbers.start :]
    ]


def poison_batches(numbers: range) -> list[EvaluationBatch]:
    return one_user_batches(numbers, deliveries=3, is_poison=True)


@pytest.mark.parametrize("users", [1, 5])
@pytest.mark.parametrize(("deliveries", "is_split"), [(1, False), (2, False), (3, True), (4, True), (99, True)])
async def test_from_its_third_delivery_a_batch_is_split_into_the_poison_queue_and_not_evaluated(
    clock: ManualClock, deliveries: int, is_split: bool, users: int
) -> None:
    batch = make_batch(make_users(users), deliveries=deliveries)
    queue = PretendQueue([batch])
    engine = PretendEngine(clock)
    drain = make_drain(queue, engine)
    drain.note_all_queued()

    done = await drain.run()

    assert (batch not in queue.recorded) == is_split
    assert [recorded.is_poison for recorded in queue.recorded] == [is_split] * (users if is_split else 1)
    assert done.batches == len(queue.recorded)
    assert {len(call.users) for call in engine.calls} == {1 if is_split else users}


async def test_a_batch_that_another_worker_split_is_let_go(clock: ManualClock) -> None:
    theirs, other = make_batch(make_users(5), deliveries=3), make_batch(make_users(5))
    queue = PretendQueue([theirs, other])
    queue.split_by_others.append(theirs)
    drain = make_drain(queue, PretendEngine(clock))
    drain.note_all_queued()
    await drain.run()
    assert queue.recorded == [other]
    assert queue.released == []


async def test_poison_batches_come_last_and_one_at_a_time(clock: ManualClock) -> None:
    queue = PretendQueue([*poison_batches(range(3)), *one_user_batches(range(3, 30))])
    looking = Looking(queue)
    drain = make_drain(queue, PretendEngine(clock, trouble=looking))
    drain.note_all_queued()

    assert (await drain.run()).batches == 30

    assert [batch.is_poison for batch in queue.recorded] == [False] * 27 + [True] * 3
    assert [looking.seen[user.user_id] for user in make_users(3)] == [1] * 3
    assert max(looking.seen.values()) > 1
    assert set(queue.in_hand_at_poison_claims) == {0}
    assert queue.released == []


async def test_what_is_queued_meanwhile_comes_before_the_next_poison_batch(clock: ManualClock) -> None:
    queue = PretendQueue(poison_batches(range(3)))

    async def queue_more() -> None:
        if len(queue.recorded) == 1:
            queue.waiting += one_user_batches(range(10, 13))

    queue.before_record = queue_more
    drain = make_drain(queue, PretendEngine(clock))
    drain.note_all_queued()
    assert (await drain.run()).batches == 6
    assert [batch.is_poison for batch in queue.recorded] == [True, True, False, False, False, True]
    assert set(queue.in_hand_at_poison_claims) == {0}


async def test_one_poison_batch_that_has_waited_too_long_comes_first(clock: ManualClock) -> None:
    queue = PretendQueue([*poison_batches(range(2)), *one_user_batches(range(2, 30))])
    drain = make_drain(queue, PretendEngine(clock), poison_overdue=True)
    drain.note_all_queued()
    assert (await drain.run()).batches == 30
    assert [batch.is_poison for batch in queue.recorded] == [True] + [False] * 28 + [True]


@pytest.mark.parametrize("poison_overdue", [False, True])
async def test_a_process_that_is_not_idle_takes_no_poison_batch(clock: ManualClock, poison_overdue: bool) -> None:
    """An evaluation-batch, or another slice: its end would count against that, or its own death against the batch."""
    process = Process()
    queue = PretendQueue([*poison_batches(range(2)), *one_user_batches(range(2, 5))])
    engine = PretendEngine(clock)
    async with process.shared(engine.budget()):
        drain = make_drain(queue, engine, process=process, poison_overdue=poison_overdue)
        drain.note_all_queued()
        assert (await drain.run()).batches == 3
    assert [batch.is_poison for batch in queue.recorded] == [False] * 3
    assert (len(queue.poison), queue.in_hand_at_poison_claims) == (2, [])


async def test_while_one_slice_has_a_poison_batch_no_other_of_the_process_has_anything(clock: ManualClock) -> None:
    process = Process()
    first, second = PretendQueue(poison_batches(range(5))), PretendQueue(one_user_batches(range(5, 30)))
    looking = Looking(first, second)
    engine = PretendEngine(clock, trouble=looking)
    has_poison = asyncio.Event()
    first.before_record = lambda: _set(has_poison)
    drains = [make_drain(queue, engine, process=process) for queue in (first, second)]
    for drain in drains:
        drain.note_all_queued()
    running = asyncio.create_task(drains[0].run())
    await soon(has_poison)

    done = [await drains[1].run(), await running]

    assert [each.batches for each in done] == [25, 5]
    assert [looking.seen[user.user_id] for user in make_users(5)] == [1] * 5
    assert max(looking.seen.values()) > 1


async def test_a_slice_that_waits_for_a_poison_batch_to_its_end_has_claimed_nothing(clock: ManualClock) -> None:
    process = Process()
    queue = PretendQueue(one_user_batches(range(2)))
    async with process.alone() as is_idle:
        assert is_idle
        drain = make_drain(queue, PretendEngine(clock), seconds=0.05, process=process)
        drain.note_all_queued()
        done = await drain.run()
    assert (done.batches, queue.claims) == (0, 0)


async def test_a_manual_slice_leaves_poison_batches_alone(clock: ManualClock) -> None:
    queue = PretendQueue([make_batch(make_users(3), deliveries=3), *poison_batches(range(2))])
    drain = make_drain(queue, PretendEngine(clock), manual_only=True)
    drain.note_all_queued()
    done = await drain.run()
    assert (done.batches, done.progressed, len(queue.poison)) == (0, True, 5)
    assert queue.in_hand_at_poison_claims == []


async def test_a_poison_batch_that_was_delivered_too_often_is_recorded_without_a_call(clock: ManualClock) -> None:
    queue = PretendQueue(one_user_batches(range(1), deliveries=6, is_poison=True))
    engine = PretendEngine(clock)
    drain = make_drain(queue, engine)
    drain.note_all_queued()
    assert (await drain.run()).outcomes == {"failed": 2}
    assert engine.calls == []


async def test_a_database_that_goes_away_beside_a_poison_batch_leaves_the_process_to_others(clock: ManualClock) -> None:
    process = Process()
    queue = PretendQueue(poison_batches(range(1)))

    async def goes_away() -> None:
        raise DatabaseUnavailableError("away")

    queue.before_record = goes_away
    drain = make_drain(queue, PretendEngine(clock), process=process)
    drain.note_all_queued()
    with pytest.raises(DatabaseUnavailableError):
        await drain.run()
    async with process.alone() as is_idle:
        assert is_idle


async def test_whoever_waited_for_the_process_has_it_before_the_next_poison_batch() -> None:
    process, begun = Process(), asyncio.Event()

    async def share() -> None:
        async with process.shared(TimeBudget(10)):
            begun.set()
            await asyncio.Event().wait()

    async with process.alone():
        sharing = asyncio.create_task(share())
        await asyncio.sleep(0)
    async with process.alone() as is_idle:
        assert not is_idle
    await soon(begun)
    sharing.cancel()
    await asyncio.gather(sharing, return_exceptions=True)
    async with process.alone() as is_idle:
        assert is_idle
