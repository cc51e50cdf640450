"""A drain keeps to its process's share of the engine's calls: it takes no more batches than that is good for."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import pytest

from functions.drain import Drain
from shared.invocations import LeaseRequest
from tests.unit.clock import ManualClock
from tests.unit.functions.pretend_engine import PretendEngine, make_batch, make_users
from tests.unit.functions.pretend_queue import PretendQueue, make_drain

# Enough for so many calls, and half as many again, two at least, that wait for their record.
IN_HAND_AT = {1: 3, 2: 4, 8: 12}


def below_a_ceiling(queue: PretendQueue, engine: PretendEngine, *, seconds: float = 1000) -> Drain:
    """A drain of a process that may have 32 calls in flight, of forty that all may have."""
    return make_drain(
        queue,
        engine,
        seconds=seconds,
        ENGINE_MAX_CONCURRENCY="32",
        ENGINE_MAX_CONCURRENCY_TOTAL="40",
    )


class Hands:
    """The most batches in hand at a time, seen whenever the engine is called."""

    def __init__(self, queue: PretendQueue) -> None:
        self._queue = queue
        self.seen: list[int] = []

    def __call__(self, user_ids: Sequence[str]) -> httpx.Response | None:
        self.seen.append(len(self._queue.in_hand))
        return None


async def test_where_no_ceiling_is_set_no_lease_is_asked_for(clock: ManualClock) -> None:
    queue = PretendQueue([make_batch(make_users(2)) for _ in range(20)])
    drain = make_drain(queue, PretendEngine(clock), ENGINE_MAX_CONCURRENCY="4")
    drain.note_all_queued()
    assert (await drain.run()).batches == 20
    assert set(queue.leases) == {None}


@pytest.mark.parametrize("share", [1, 2, 8])
async def test_no_more_is_in_hand_than_the_share_is_good_for(clock: ManualClock, share: int) -> None:
    """The rest is left to others, who have calls to make."""
    queue = PretendQueue([make_batch(make_users(2)) for _ in range(60)])
    queue.grant = lambda _: share
    hands = Hands(queue)
    drain = below_a_ceiling(queue, PretendEngine(clock, trouble=hands))
    drain.note_all_queued()

    assert (await drain.run()).batches == 60

    assert max(hands.seen) <= IN_HAND_AT[share]
    assert queue.released == []
    # One claim for what was recorded since the last one, and no more.
    assert queue.claims <= 60 + 2


async def test_a_share_that_shrinks_and_grows_is_kept_to(clock: ManualClock) -> None:
    queue = PretendQueue([make_batch(make_users(2)) for _ in range(90)])
    hands = Hands(queue)

    def grant(_: LeaseRequest) -> int:
        return 8 if len(queue.recorded) < 30 else 1 if len(queue.recorded) < 60 else 2

    queue.grant = grant
    drain = below_a_ceiling(queue, PretendEngine(clock, trouble=hands))
    drain.note_all_queued()

    assert (await drain.run()).batches == 90

    assert max(hands.seen) > IN_HAND_AT[2]
    assert max(hands.seen[50:60]) <= IN_HAND_AT[1]
    assert max(hands.seen[70:]) <= IN_HAND_AT[2]


async def test_who_may_call_nobody_holds_nothing_and_looks_again_now_and_then(clock: ManualClock) -> None:
    queue = PretendQueue([make_batch(make_users(2)) for _ in range(10)])
    in_hand: list[int] = []

    def grant(_: LeaseRequest) -> int:
        in_hand.append(len(queue.in_hand))
        return 0 if queue.claims <= 7 else 4

    queue.grant = grant
    drain = below_a_ceiling(queue, PretendEngine(clock))
    drain.note_all_queued()

    done = await drain.run()

    assert done.batches == 10
    assert in_hand[:8] == [0] * 8
    assert len(clock.slept) == 7
    assert queue.released == []


async def test_who_may_call_nobody_to_the_end_has_done_nothing(clock: ManualClock) -> None:
    """Not even progressed: else its hand-back would ask for the next slice at once, which would find the same."""
    queue = PretendQueue([make_batch(make_users(2)) for _ in range(10)])
    queue.grant = lambda _: 0
    engine = PretendEngine(clock)
    drain = below_a_ceiling(queue, engine, seconds=25)
    drain.note_all_queued()

    done = await drain.run()

    assert (done.batches, done.progressed, engine.calls) == (0, False, [])
    assert (len(queue.waiting), queue.in_hand, queue.released) == (10, [], [])
    assert queue.claims <= 21


async def test_an_empty_queue_and_no_share_are_not_the_same(clock: ManualClock) -> None:
    queue = PretendQueue()
    drain = below_a_ceiling(queue, PretendEngine(clock))
    drain.note_all_queued()
    await drain.run()
    assert queue.claims == 1
    assert clock.slept == []


async def test_a_poison_batch_is_not_taken_without_a_share_either(clock: ManualClock) -> None:
    queue = PretendQueue([make_batch([user], deliveries=3, is_poison=True) for user in make_users(3)])
    queue.grant = lambda _: 0 if queue.claims in (2, 3, 4) else 2
    drain = below_a_ceiling(queue, PretendEngine(clock))
    drain.note_all_queued()
    assert (await drain.run()).batches == 3
    assert len(clock.slept) == 3
