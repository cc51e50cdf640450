"""A worker takes all that is queued, stops when the engine or the time does, and releases what it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from functions.runs.batch_processor import WorkerStats
from functions.runs.batch_worker import BatchWorker
from functions.runs.process_gate import ProcessGate
from shared.deadline import Deadline
from shared.errors import DatabaseError, DatabaseRefusedError, DatabaseUnavailableError
from shared.evaluations import EvaluationBatch, GroupedResults
from shared.post_client import HttpError, HttpResponse
from shared.queue_repository import ClaimedBatches, Poison, QueueRepository
from tests.unit.clock import ManualClock
from tests.unit.fake_database import FakeDatabase
from tests.unit.fake_post_client import reply
from tests.unit.functions.fake_engine import ENGINE_TIMEOUT, FakeEngine, Trouble, make_batch, make_users
from tests.unit.functions.fake_sql import make_services
from tests.unit.functions.single_engine import SingleEngine
from tests.unit.log_lines import LogLines

# Four are enough for four calls at a time, and half as many again wait for their record.
IN_HAND_AT_FOUR_CALLS = 6


async def nothing() -> None:
    """Happens where a test puts nothing else in its place."""


class FakeQueue(QueueRepository):
    """The queue within the process. `before_claim` and `after_claim` happen while a claim is under way."""

    def __init__(self, batches: Sequence[EvaluationBatch] = (), *, at_a_time: int = 100) -> None:
        self.waiting = [batch for batch in batches if not batch.is_poison]
        self.poison = [batch for batch in batches if batch.is_poison]
        self.at_a_time = at_a_time
        self.recorded: list[EvaluationBatch] = []
        self.released: list[tuple[EvaluationBatch, bool]] = []
        self.in_hand: list[EvaluationBatch] = []
        self.split_by_others: list[EvaluationBatch] = []
        self.quantities: list[int] = []
        self.in_hand_at_poison_claims: list[int] = []
        self.before_claim: Callable[[], Awaitable[object]] = nothing
        self.after_claim: Callable[[], None] = lambda: None
        self.before_record: Callable[[], Awaitable[object]] = nothing

    async def claim(self, quantity: int, *, manual_only: bool, poison: Poison | None = None) -> ClaimedBatches:
        if poison is not None:
            self.in_hand_at_poison_claims.append(len(self.in_hand))
        self.quantities.append(quantity)
        await self.before_claim()
        quantity = min(quantity, self.at_a_time)
        if self.poison and (poison == "first" or (poison == "last" and not self.waiting)):
            taken = [self.poison.pop(0)]
        else:
            taken, self.waiting = self.waiting[:quantity], self.waiting[quantity:]
        poison_waits = bool(not taken and not manual_only and poison is None and self.poison)
        self.in_hand += taken
        self.after_claim()
        return ClaimedBatches(tuple(taken), stale=0, engine_paused=False, poison_waits=poison_waits)

    async def complete(self, batch: EvaluationBatch, results: GroupedResults, **_: object) -> str:
        await self.before_record()
        self.in_hand.remove(batch)
        self.recorded.append(batch)
        return "done"

    async def release(self, batch: EvaluationBatch, *, delay_seconds: int = 0, count_delivery: bool) -> None:
        self.in_hand.remove(batch)
        self.released.append((batch, count_delivery))
        (self.poison if batch.is_poison else self.waiting).append(batch)

    async def split(self, batch: EvaluationBatch) -> bool:
        self.in_hand.remove(batch)
        if batch in self.split_by_others:
            return False
        self.poison += one_user_batches(range(len(batch.users)), poison=True)
        return True


def make_worker(
    queue: FakeQueue,
    engine: FakeEngine | SingleEngine,
    *,
    seconds: float = 1000,
    gate: ProcessGate | None = None,
    pace: float = 0,
    **kind: bool,
) -> BatchWorker:
    """Four calls at a time, `pace` seconds apart; `kind` is `manual_only` or `poison_overdue`."""
    services = make_services(FakeDatabase(), engine, EVALUATION_BATCH_SIZE="100")
    client = engine.client(concurrency=4)
    services = replace(services, queue=queue, engine=client, gate=gate or services.gate)
    deadline = engine.deadline(seconds)
    deadline.space_calls(pace)
    return BatchWorker(services, deadline, **kind)


def one_user_batches(numbers: range, *, poison: bool = False) -> list[EvaluationBatch]:
    users = make_users(numbers.stop)[numbers.start :]
    return [make_batch([user], deliveries=3 if poison else 1, is_poison=poison) for user in users]


async def run(
    queue: FakeQueue, engine: FakeEngine | SingleEngine, *, begins_at: float = 0, **settings: Any
) -> WorkerStats:
    """Works on a run that is wholly queued, so many seconds after the slice's start."""
    worker = make_worker(queue, engine, **settings)
    engine.clock.advance(begins_at)
    worker.on_enumeration_done()
    await worker.run()
    return worker.stats


async def soon(event: asyncio.Event) -> None:
    """Waits for what happens at once, or never where the code is broken."""
    async with asyncio.timeout(20):
        await event.wait()


async def set_event(event: asyncio.Event) -> None:
    event.set()


async def test_a_batch_queued_during_a_claim_is_taken(clock: ManualClock) -> None:
    """The claim looked before it was queued; by the time it answers, all is queued."""
    queue = FakeQueue()
    worker = make_worker(queue, FakeEngine(clock))

    def queue_all() -> None:
        queue.after_claim = lambda: None
        queue.waiting.append(make_batch(make_users(5)))
        worker.on_enqueued()
        worker.on_enumeration_done()

    queue.after_claim = queue_all
    await worker.run()
    assert (worker.stats.batches, queue.waiting) == (1, [])


@pytest.mark.parametrize("status", [401, 503])
async def test_all_batches_are_released_uncounted_where_the_engine_is_down(clock: ManualClock, status: int) -> None:
    queue = FakeQueue([make_batch(make_users(5)) for _ in range(10)])
    done = await run(queue, FakeEngine(clock, trouble=lambda _: httpx.Response(status)))
    assert done.fatal_error is not None
    assert (done.fatal_error.code, done.batches) == (f"engine_http_{status}", 0)
    assert (len(queue.waiting), queue.in_hand) == (10, [])
    assert [count_delivery for _, count_delivery in queue.released] == [False] * IN_HAND_AT_FOUR_CALLS


@pytest.mark.parametrize("status", [401, 500])
async def test_the_log_has_no_words_of_the_engine(clock: ManualClock, log: LogLines, status: int) -> None:
    answer = httpx.Response(status, json={"message": "nothing for Ann Miller"})
    done = await run(FakeQueue(one_user_batches(range(1))), FakeEngine(clock, trouble=lambda _: answer))
    assert done.fatal_error is not None
    assert "Ann Miller" in done.fatal_error.message
    (stopped,) = log.of("engine_stopped")
    assert (stopped["error_code"], "Ann" in str(stopped)) == (f"engine_http_{status}", False)


async def test_log_and_run_have_a_transports_words(clock: ManualClock, log: LogLines) -> None:
    error = HttpError("no connection: invalid peer certificate: certificate expired", is_connecting=True)
    done = await run(FakeQueue(one_user_batches(range(1))), SingleEngine(clock, trouble=lambda _: error))
    assert done.fatal_error is not None
    (stopped,) = log.of("engine_stopped")
    assert (stopped["error_code"], done.fatal_error.code) == ("engine_unreachable",) * 2
    assert stopped["detail"] == done.fatal_error.message == f"the engine is away: {error}"


async def test_calls_that_must_not_be_repeated_are_not_cancelled(clock: ManualClock) -> None:
    """The engine refuses access to one batch while a call of another one is under way."""
    good, bad = one_user_batches(range(2))
    answered = asyncio.Event()

    async def answer_later() -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        answered.set()

    def reject(pair: tuple[str, str]) -> HttpResponse | None:
        if pair[0] == "user-000":
            return None
        answering.append(asyncio.create_task(answer_later()))
        return reply(401)

    answering: list[asyncio.Task[None]] = []
    queue = FakeQueue([good, bad])
    engine = SingleEngine(clock, trouble=reject, held={"user-000": answered})
    done = await run(queue, engine)
    assert (queue.recorded, [batch for batch, _ in queue.released]) == ([good], [bad])
    assert engine.sent == [("user-000", "a"), ("user-001", "a")]
    assert (done.batches, done.fatal_error and done.fatal_error.code) == (1, "engine_http_401")


async def test_results_before_a_fatal_error_are_recorded(clock: ManualClock) -> None:
    queue = FakeQueue([make_batch(make_users(20))])
    engine = SingleEngine(clock, trouble=lambda _: reply(401) if len(engine.sent) > 5 else None)
    done = await run(queue, engine)
    assert (len(queue.recorded), done.outcomes.total() < 20, done.progressed) == (1, True, True)
    assert done.fatal_error is not None


@pytest.mark.parametrize(("seconds_left", "claimed"), [(ENGINE_TIMEOUT, 0), (ENGINE_TIMEOUT + 0.1, 2)])
async def test_nothing_is_claimed_without_time_for_a_whole_call(
    clock: ManualClock, seconds_left: float, claimed: int
) -> None:
    queue = FakeQueue(one_user_batches(range(2)))
    done = await run(queue, SingleEngine(clock), seconds=25, begins_at=25 - seconds_left)
    assert (done.batches, bool(queue.quantities)) == (claimed, claimed > 0)


async def test_a_record_under_way_outlasts_the_engines_rejection(clock: ManualClock) -> None:
    good, bad = make_batch(make_users(1)), make_batch(make_users(3)[1:])
    queue = FakeQueue([good, bad], at_a_time=1)
    recording, stopped = asyncio.Event(), asyncio.Event()
    queue.before_record = lambda: asyncio.gather(set_event(recording), stopped.wait())

    async def wait_for_the_record() -> None:
        if len(queue.quantities) > 1:
            await soon(recording)

    def reject_bad_users(user_ids: Sequence[str]) -> httpx.Response | None:
        if "user-000" in user_ids:
            return None
        asyncio.get_running_loop().call_soon(stopped.set)
        return httpx.Response(401)

    queue.before_claim = wait_for_the_record
    assert (await run(queue, FakeEngine(clock, trouble=reject_bad_users))).fatal_error is not None
    assert (queue.recorded, [batch for batch, _ in queue.released]) == ([good], [bad])


@pytest.mark.parametrize("error", [DatabaseRefusedError("PGRST303", "early"), DatabaseUnavailableError("away")])
async def test_a_record_that_fails_drops_no_other_batch_in_hand(clock: ManualClock, error: DatabaseError) -> None:
    queue = FakeQueue(one_user_batches(range(4)))
    errors = [error]

    async def refuse_the_first() -> None:
        if errors:
            raise errors.pop()
        for _ in range(50):
            await asyncio.sleep(0)

    queue.before_record = refuse_the_first
    with pytest.raises(type(error)):
        await run(queue, FakeEngine(clock))
    assert (len(queue.recorded), len(queue.in_hand)) == (3, 1)


@pytest.mark.parametrize(
    ("error", "released"), [(DatabaseRefusedError("22P05", "no"), 1), (DatabaseUnavailableError("away"), 0)]
)
async def test_a_batch_claimed_too_late_is_not_begun(clock: ManualClock, error: DatabaseError, released: int) -> None:
    """It goes back to the queue at once, unless the database is away."""
    queue = FakeQueue(one_user_batches(range(2)), at_a_time=1)
    failed = asyncio.Event()

    async def wait_for_the_failure() -> None:
        if len(queue.quantities) > 1:
            await soon(failed)

    async def fail() -> None:
        failed.set()
        raise error

    queue.before_claim, queue.before_record = wait_for_the_failure, fail
    engine = FakeEngine(clock)
    with pytest.raises(type(error)):
        await run(queue, engine)
    assert len(engine.calls) == 1
    assert [count_delivery for _, count_delivery in queue.released] == [False] * released


@pytest.mark.parametrize(("begins_at", "count_delivery"), [(0, True), (7, True), (8, False)])
async def test_a_delivery_counts_where_its_batch_had_most_time(
    clock: ManualClock, begins_at: float, count_delivery: bool
) -> None:
    """Four calls hang until the time budget ends, and those of two more batches wait for a place."""
    queue = FakeQueue(one_user_batches(range(IN_HAND_AT_FOUR_CALLS)))
    engine = FakeEngine(clock, poison={user.user_id: 0 for user in make_users(IN_HAND_AT_FOUR_CALLS)})
    await run(queue, engine, seconds=15, begins_at=begins_at)
    counted = [is_counted for _, is_counted in sorted(queue.released, key=lambda each: each[0].users)]
    assert counted == [count_delivery] * 4 + [False] * (IN_HAND_AT_FOUR_CALLS - 4)


@pytest.mark.parametrize(("pace", "calls"), [(5, 4), (9, 2)])
async def test_a_paced_worker_claims_no_more_than_it_may_call(clock: ManualClock, pace: float, calls: int) -> None:
    """The first call waits as well. What was claimed and could not be called about is released uncounted."""
    queue = FakeQueue(one_user_batches(range(20)))
    engine = FakeEngine(clock)
    done = await run(queue, engine, seconds=24, pace=pace)
    assert (done.batches, len(engine.calls), clock.slept) == (calls, calls, [pace] * calls)
    assert sum(queue.quantities) <= calls + 2
    assert max(queue.quantities) <= calls / 2 + 1, "no turn is left for retries and canaries"
    assert (len(queue.waiting), queue.in_hand) == (20 - calls, [])
    assert not any(count_delivery for _, count_delivery in queue.released)


async def test_in_the_last_fifth_of_the_time_nothing_is_claimed(clock: ManualClock) -> None:
    queue = FakeQueue(one_user_batches(range(2)))
    done = await run(queue, FakeEngine(clock), seconds=100, begins_at=81)
    assert (done.batches, queue.quantities) == (0, [])


async def test_while_enough_batches_wait_for_their_record_nothing_is_claimed(clock: ManualClock) -> None:
    """A batch in hand that has not begun is kept from other workers, and would begin after a cancel."""
    queue = FakeQueue([make_batch(make_users(2)) for _ in range(50)])
    recording, may_record = asyncio.Event(), asyncio.Event()
    queue.before_record = lambda: asyncio.gather(set_event(recording), may_record.wait())
    running = asyncio.create_task(run(queue, FakeEngine(clock)))
    await soon(recording)
    for _ in range(100):
        await asyncio.sleep(0)
    assert 50 - len(queue.waiting) == sum(queue.quantities) == IN_HAND_AT_FOUR_CALLS
    may_record.set()
    assert (await running).batches == 50


# Batches that may kill their worker


@pytest.mark.parametrize(("deliveries", "is_split"), [(2, False), (3, True)])
async def test_from_its_third_delivery_a_batch_is_split_by_user(
    clock: ManualClock, log: LogLines, deliveries: int, is_split: bool
) -> None:
    batch = make_batch(make_users(5), deliveries=deliveries)
    queue = FakeQueue([batch])
    engine = FakeEngine(clock)
    assert (await run(queue, engine)).batches == len(queue.recorded)
    assert [recorded.is_poison for recorded in queue.recorded] == [is_split] * (5 if is_split else 1)
    assert {len(call.users) for call in engine.calls} == {1 if is_split else 5}
    assert [line["mentors"] for line in log.of("batch_split")] == [5] * is_split


async def test_a_batch_that_another_worker_split_is_left_to_it(clock: ManualClock) -> None:
    theirs, other = make_batch(make_users(5), deliveries=3), make_batch(make_users(5))
    queue = FakeQueue([theirs, other])
    queue.split_by_others.append(theirs)
    await run(queue, FakeEngine(clock))
    assert (queue.recorded, queue.released) == ([other], [])


def noting(in_hand: dict[str, int], *queues: FakeQueue) -> Trouble:
    """Notes how many batches are in hand whenever the engine is called about a user."""

    def note(user_ids: Sequence[str]) -> None:
        in_hand[user_ids[0]] = sum(len(queue.in_hand) for queue in queues)

    return note


def assert_alone(users: int, in_hand: dict[str, int]) -> None:
    """The first users had nothing else in hand beside them; some of the others had."""
    assert [in_hand.pop(user.user_id) for user in make_users(users)] == [1] * users
    assert max(in_hand.values()) > 1


@pytest.mark.parametrize("overdue", [0, 1])
async def test_poison_batches_come_alone_and_last_unless_overdue(clock: ManualClock, overdue: int) -> None:
    queue = FakeQueue([*one_user_batches(range(3), poison=True), *one_user_batches(range(3, 30))])
    in_hand: dict[str, int] = {}
    engine = FakeEngine(clock, trouble=noting(in_hand, queue))
    assert (await run(queue, engine, poison_overdue=bool(overdue))).batches == 30
    assert [batch.is_poison for batch in queue.recorded] == [True] * overdue + [False] * 27 + [True] * (3 - overdue)
    assert_alone(3, in_hand)
    assert set(queue.in_hand_at_poison_claims) == {0}
    assert queue.released == []


async def test_a_batch_queued_meanwhile_comes_before_the_next_poison_batch(clock: ManualClock) -> None:
    queue = FakeQueue(one_user_batches(range(3), poison=True))

    async def queue_more() -> None:
        if len(queue.recorded) == 1:
            queue.waiting += one_user_batches(range(10, 13))

    queue.before_record = queue_more
    assert (await run(queue, FakeEngine(clock))).batches == 6
    assert [batch.is_poison for batch in queue.recorded] == [True, True, False, False, False, True]
    assert set(queue.in_hand_at_poison_claims) == {0}


@pytest.mark.parametrize("poison_overdue", [False, True])
async def test_a_process_that_is_not_idle_takes_no_poison_batch(clock: ManualClock, poison_overdue: bool) -> None:
    """It serves an evaluation-batch or another slice, whose end would count against the poison batch."""
    gate = ProcessGate()
    queue = FakeQueue([*one_user_batches(range(2), poison=True), *one_user_batches(range(2, 5))])
    engine = FakeEngine(clock)
    async with gate.shared(engine.deadline()):
        await run(queue, engine, gate=gate, poison_overdue=poison_overdue)
    assert [batch.is_poison for batch in queue.recorded] == [False] * 3
    assert (len(queue.poison), queue.in_hand_at_poison_claims) == (2, [])


async def test_beside_a_poison_batch_no_slice_of_the_process_works(clock: ManualClock) -> None:
    gate = ProcessGate()
    first, second = FakeQueue(one_user_batches(range(5), poison=True)), FakeQueue(one_user_batches(range(5, 30)))
    in_hand: dict[str, int] = {}
    engine = FakeEngine(clock, trouble=noting(in_hand, first, second))
    has_poison = asyncio.Event()
    first.before_record = lambda: set_event(has_poison)
    running = asyncio.create_task(run(first, engine, gate=gate))
    await soon(has_poison)
    assert [(await run(second, engine, gate=gate)).batches, (await running).batches] == [25, 5]
    assert_alone(5, in_hand)


async def test_a_slice_that_never_gets_the_process_claims_nothing(clock: ManualClock) -> None:
    gate = ProcessGate()
    queue = FakeQueue(one_user_batches(range(2)))
    async with gate.exclusive():
        done = await run(queue, FakeEngine(clock), seconds=0.05, gate=gate)
    assert (done.batches, queue.quantities) == (0, [])


async def test_a_request_that_waits_for_the_process_precedes_poison_batches() -> None:
    gate = ProcessGate()

    async def share() -> None:
        async with gate.shared(Deadline(10)):
            await asyncio.Event().wait()

    async with gate.exclusive():
        sharing = asyncio.create_task(share())
        await asyncio.sleep(0)
    async with gate.exclusive() as is_idle:
        assert not is_idle
    sharing.cancel()
    await asyncio.gather(sharing, return_exceptions=True)
    assert gate.is_idle


async def test_a_manual_slice_leaves_poison_batches_alone(clock: ManualClock) -> None:
    queue = FakeQueue([make_batch(make_users(3), deliveries=3), *one_user_batches(range(2), poison=True)])
    done = await run(queue, FakeEngine(clock), manual_only=True)
    assert (done.batches, done.progressed, len(queue.poison)) == (0, True, 5)
    assert queue.in_hand_at_poison_claims == []
