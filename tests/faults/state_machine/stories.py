"""What can happen, and how likely. hypothesis draws numbers, which decide: drawn field by field, most would be zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from random import Random

from .clock import (
    Answer,
    Dispatch,
    Expire,
    FallDue,
    LetBatchesReappear,
    LetRunsGrowOld,
    LetSlicesGrowOld,
    LetThePauseEnd,
    LetTimeRunOut,
)
from .ending import Delete, Prune, Update
from .meddling import HELD_ROWS, Lose, Stop, Stray
from .opening import TYPES, Enqueue, Open, OpenSlot, Page
from .operation import Operation
from .working import Claim, Complete, Finish, HandBack, Release, Split
from .world import AT_ONCE, Attempt

# How likely each is, against the others.
Weighed = Mapping[Callable[[Random], Operation], int]


def seldom(random: Random) -> bool:
    return random.random() < 0.15


def which_run(random: Random) -> int:
    return random.choice([0, 0, 0, 0, 1, 1, 2, 3])


def which_batch(random: Random) -> int:
    return random.choice([0, 0, 1, 1, 2, 3, 4, 5])


def open_slot(random: Random) -> Operation:
    return OpenSlot(
        which=random.choice([0, 1, 1, 1, -1]),
        requested=random.choice(["none", "none", "due", "other"]),
        missed_for_good=seldom(random),
    )


def open_run(random: Random) -> Operation:
    return Open(
        key=random.randint(-1, 2),
        body=int(seldom(random)),
        dry_run=seldom(random),
        retry_of=random.choice([-1, -1, 0, 1, 1, 2, 3]),
        post_slice=random.random() < 0.5,
        repeated=seldom(random),
    )


def page(random: Random) -> Page:
    return tuple(
        tuple(
            (random.randint(1, 3), random.randrange(len(TYPES)), seldom(random))
            for _ in range(random.choice([1, 1, 2]))
        )
        for _ in range(random.choice([0, 1, 1, 2, 3]))
    )


def enqueue(random: Random) -> Operation:
    return Enqueue(
        run=which_run(random),
        page=page(random),
        skipped=random.choice([0, 0, 0, 2]),
        done=seldom(random),
        stale=seldom(random),
    )


def claim(random: Random) -> Operation:
    return Claim(quantity=random.randint(1, 4), lasts=random.random() < 0.7, manual_only=seldom(random))


def complete(random: Random) -> Operation:
    return Complete(
        hand=which_batch(random), seed=random.randrange(100), cut_off=random.random() < 0.3, repeated=seldom(random)
    )


def release(random: Random) -> Operation:
    return Release(
        hand=which_batch(random),
        blameless=random.random() < 0.5,
        at_once=not seldom(random),
        repeated=seldom(random),
    )


def split(random: Random) -> Operation:
    return Split(hand=which_batch(random))


def finish(random: Random) -> Operation:
    return Finish(run=which_run(random))


def hand_back(random: Random) -> Operation:
    return HandBack(
        dispatch=random.randint(-1, 2),
        progressed=random.random() < 0.5,
        engine_answers=random.random() < 0.5,
        engine_error=random.choice([None, None, None, "engine_unavailable", "engine_rejected"]),
        retry_after_seconds=random.choice([None, 100]),
    )


def update(random: Random) -> Operation:
    return Update(run=which_run(random), cancel=not seldom(random), note=random.choice([None, "a note"]))


def delete(random: Random) -> Operation:
    return Delete(run=which_run(random))


def let_time_run_out(random: Random) -> Operation:
    return LetTimeRunOut(run=which_run(random))


def answer(random: Random) -> Operation:
    return random.choice([Answer(200), Answer(401), Answer(None, "could not be reached")])


def stray(random: Random) -> Operation:
    return Stray(random.choice(["copy", "copy", "again", "nonsense"]), random.randint(0, 3))


def just(operation: Operation) -> Callable[[Random], Operation]:
    return lambda _: operation


ALONE: Weighed = {
    open_slot: 2,
    open_run: 3,
    enqueue: 7,
    claim: 6,
    complete: 6,
    release: 4,
    split: 2,
    finish: 3,
    hand_back: 3,
    update: 1,
    delete: 2,
    answer: 3,
    stray: 2,
    let_time_run_out: 1,
    just(Dispatch()): 4,
    just(Expire()): 1,
    just(Prune()): 1,
    just(FallDue()): 1,
    just(LetBatchesReappear()): 3,
    just(LetThePauseEnd()): 3,
    just(LetSlicesGrowOld()): 1,
    just(LetRunsGrowOld()): 1,
    just(Lose(1)): 1,
    just(Lose(2)): 1,
}
BY_WORKERS: Weighed = {
    open_slot: 2,
    open_run: 2,
    enqueue: 3,
    claim: 3,
    complete: 4,
    release: 2,
    split: 1,
    finish: 2,
    hand_back: 1,
    update: 1,
    delete: 1,
}
BY_ITSELF: Weighed = {
    just(Dispatch()): 2,
    just(Expire()): 1,
    just(Prune()): 2,
    just(LetBatchesReappear()): 1,
    let_time_run_out: 1,
}
FOR_BATCHES: Weighed = {claim: 3, complete: 4, release: 2, split: 2, finish: 2, update: 1, just(Expire()): 1}
FOR_AN_END: Weighed = {
    finish: 4,
    complete: 3,
    update: 3,
    enqueue: 1,
    delete: 1,
    just(Expire()): 2,
    just(Prune()): 1,
    let_time_run_out: 2,
}
FOR_RUNS: Weighed = {open_slot: 3, open_run: 3, hand_back: 2, just(Dispatch()): 3, update: 1, delete: 1}
RACES: tuple[Weighed, ...] = ({**BY_WORKERS, **BY_ITSELF}, FOR_BATCHES, FOR_AN_END, FOR_RUNS)


def about_the_first(operation: Operation) -> Operation:
    return replace(operation, **{field.name: 0 for field in fields(operation) if field.name in ("run", "hand")})


# What some stories do without, so that others come further.
MAY_BE_LEFT_OUT = (Update, Delete, Prune, HandBack, Split, Stray, Lose, Open, OpenSlot, LetTimeRunOut, LetRunsGrowOld)


@dataclass(frozen=True)
class Moment:
    """What is done at once, and who stops it in the middle."""

    attempts: tuple[Attempt, ...]
    stop: Stop | None = None


class Teller:
    """What a number means depends on those before it, since hypothesis likes to repeat what it has drawn."""

    def __init__(self, start: int) -> None:
        random = Random(start)
        self._so_far = [start]
        self._left_out = tuple(random.sample(MAY_BE_LEFT_OUT, random.randint(0, 5)))
        self.by_expiry = random.random() < 0.3
        self.has_secrets = random.random() < 0.8
        self.is_installed = random.random() < 0.95

    def beginning(self) -> list[Moment]:
        """A night under way, and somebody's run beside it."""
        random = Random(str(self._so_far))
        night = [OpenSlot(), Enqueue(page=page(random), done=random.random() < 0.3)]
        person = [Open(), Enqueue(page=page(random), done=random.random() < 0.3)]
        return [Moment((Attempt(operation),)) for operation in (*night, *person)]

    def moments(self, number: int) -> list[Moment]:
        """What happens next: mostly one thing."""
        self._so_far.append(number)
        random = Random(str(self._so_far))
        tales = {self._one: 60, self._catching_up: 6, self._dying: 6, self._race: 16, self._stop: 12}
        (tell,) = random.choices(list(tales), list(tales.values()))
        return tell(random)

    def _one(self, random: Random) -> list[Moment]:
        return [Moment((Attempt(self._operation(ALONE, random)),))]

    def _catching_up(self, random: Random) -> list[Moment]:
        """So far that a run may only have to be finished."""
        run, claims = random.randint(0, 1), random.randint(1, 4)
        completes = [Complete(hand=hand, seed=random.randrange(100)) for hand in range(claims)]
        steps = [Enqueue(run=run, done=True), Claim(quantity=claims), *completes]
        return [Moment((Attempt(operation),)) for operation in steps]

    def _dying(self, random: Random) -> list[Moment]:
        return [Moment((self._racer(BY_WORKERS, random, dies=True),))]

    def _race(self, random: Random) -> list[Moment]:
        """Mostly about the same batch or the same run, which is brought to where it is open to several ends."""
        weighed = random.choice(RACES)
        racers = [self._racer(weighed, random) for _ in range(random.randint(2, AT_ONCE))]
        if random.random() < 0.6:
            racers = [replace(racer, operation=about_the_first(racer.operation)) for racer in racers]
        before: list[Moment] = []
        if weighed is FOR_BATCHES:
            before = [Moment((Attempt(Claim(quantity=2)),))]
        elif weighed is FOR_AN_END and random.random() < 0.6:
            before = self._catching_up(random)
        return [*before, Moment(tuple(racers))]

    def _stop(self, random: Random) -> list[Moment]:
        stop = Stop(random.choice(list(HELD_ROWS)), random.choice([0, 0, 0, 1]))
        *before, race = self._race(random)
        return [*before, replace(race, stop=stop)]

    def _racer(self, weighed: Weighed, random: Random, *, dies: bool = False) -> Attempt:
        operation = self._operation(weighed, random)
        dies = dies or (seldom(random) and not operation.as_owner)
        return Attempt(operation, random.randint(0, 4), random.choice(["rollback", "killed"]) if dies else "")

    def _operation(self, weighed: Weighed, random: Random) -> Operation:
        while True:
            (draw,) = random.choices(list(weighed), list(weighed.values()))
            operation = draw(random)
            if not isinstance(operation, self._left_out):
                return operation
