"""Whatever happens to runs in whatever order, every pair has one outcome and all that counts them agrees (I2)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .asked import all_undone, listed, pairs_of, record_each
from .sql_core import Json, Pairs, SqlCore, Worker, assert_counts_add_up, mentor

TYPES = ("lapsed", "milestone", "onboarding")
OUTCOMES = ("triggered", "not_triggered", "suppressed", "failed")
MENTORS = 24
STEPS = ("enqueue", "enqueue", "claim", "claim", "complete", "complete", "complete", "release", "reappear", "finish")
ENDS = ("cancel", "expire")

Pair = tuple[str, str]


@dataclass
class Expected:
    """What a run has to look like. `pairs`: outcomes, None while open; `batches`: of each, its pairs and its state."""

    id: str
    numbers: Any = field(default_factory=lambda: iter(range(MENTORS)))
    pages: Any = field(default_factory=lambda: count(1))
    pairs: dict[Pair, str | None] = field(default_factory=dict)
    batches: dict[int, tuple[list[Pair], str]] = field(default_factory=dict)
    ended: bool = False
    enumerated: bool = False

    def end_early(self) -> None:
        if self.ended:
            return
        self.ended = True
        for batch_no, (of_batch, state) in self.batches.items():
            if state == "open":
                self.batches[batch_no] = (of_batch, "abandoned")
                self.pairs |= dict.fromkeys(of_batch, "not_evaluated")


class Story:
    """Does to the database what is drawn, and keeps account."""

    def __init__(self, core: SqlCore, worker: Worker, runs: list[Expected], random: Random) -> None:
        self._core = core
        self._worker = worker
        self._runs = {run.id: run for run in runs}
        self._random = random
        self._in_hand: list[Json] = []

    async def go_on(self, step: str) -> None:
        run = self._random.choice(list(self._runs.values()))
        await getattr(self, step)(run)

    async def enqueue(self, run: Expected) -> None:
        page = next(run.pages)
        batches = [frozen for _ in range(self._random.randint(0, 2)) if (frozen := self._freeze(run))]
        done = self._random.random() < 0.2
        accepted = await self._worker.enqueue(
            run.id, batches, expected=str(page - 1) if page > 1 else None, following=str(page), done=done
        )
        assert accepted == (not run.ended and not run.enumerated)
        if accepted:
            run.enumerated = done
            for frozen in batches:
                run.batches[len(run.batches) + 1] = (pairs_of(frozen), "open")
                run.pairs |= dict.fromkeys(pairs_of(frozen))

    def _freeze(self, run: Expected) -> Pairs:
        groups: Pairs = []
        for _ in range(self._random.randint(1, 2)):
            if numbers := [number for number, _ in zip(run.numbers, range(self._random.randint(1, 3)), strict=False)]:
                types = self._random.sample(TYPES, self._random.randint(1, 3))
                skip = {"skip": "mentor_not_active"} if self._random.random() < 0.2 else {}
                groups.append({"scenario_types": types, "user_ids": [mentor(number) for number in numbers]} | skip)
        return groups

    async def claim(self, _: Expected) -> None:
        claimed = (await self._worker.claim(self._random.randint(1, 4)))["batches"]
        for batch in claimed:
            assert self._runs[batch["invocation_id"]].batches[batch["batch_no"]][1] == "open"
        self._in_hand += claimed

    async def complete(self, _: Expected) -> None:
        """Perhaps for the second time, perhaps after the run's end."""
        if not self._in_hand:
            return
        batch = self._random.choice(self._in_hand)
        run = self._runs[batch["invocation_id"]]
        of_batch, state = run.batches[batch["batch_no"]]
        skipped = {pair for group in batch["pairs"] if "skip" in group for pair in pairs_of([group])}
        outcomes = {pair: "skipped" if pair in skipped else self._random.choice(OUTCOMES) for pair in of_batch}
        came_to = await record_each(self._worker, batch, outcomes)
        assert came_to == ("already_done" if state == "done" else "done")
        if came_to == "done":
            run.batches[batch["batch_no"]] = (of_batch, "done")
            run.pairs |= outcomes

    async def release(self, _: Expected) -> None:
        if self._in_hand:
            batch = self._random.choice(self._in_hand)
            await self._worker.release(batch, blameless=self._random.random() < 0.5)

    async def reappear(self, _: Expected) -> None:
        await self._core.let_batches_reappear()

    async def finish(self, run: Expected) -> None:
        is_over = run.enumerated and all(state == "done" for _, state in run.batches.values())
        assert (await self._worker.finish(run.id))["ended_now"] == (is_over and not run.ended)
        run.ended = run.ended or is_over

    async def cancel(self, run: Expected) -> None:
        await self._worker.cancel(run.id)
        run.end_early()

    async def expire(self, run: Expected) -> None:
        await self._core.expire_now(run.id)
        await self._core.owner.run("select scheduler.expire()")
        run.end_early()


async def check(core: SqlCore, worker: Worker, run: Expected) -> None:
    described = await core.describe(run.id)
    counts = described["counts"]
    assert (described["finished_at"] is not None) == run.ended
    outcomes = [outcome for outcome in run.pairs.values() if outcome]
    assert counts["evaluations"] == len(run.pairs)
    for outcome in (*OUTCOMES, "skipped", "not_evaluated"):
        assert counts[outcome] == outcomes.count(outcome), outcome
        for scenario_type in TYPES:
            expected = sum(of[1] == scenario_type and came_to == outcome for of, came_to in run.pairs.items())
            assert described["scenarios"].get(scenario_type, {}).get(outcome, 0) == expected
    assert sum(cause["count"] for cause in described["failures"]) == counts["failed"]
    assert counts["batches"] == len(run.batches)
    if run.ended:
        assert_counts_add_up(described)
        undone = {(one.user_id, one.scenario_type) for one in await all_undone(worker, run.id, mentors=3)}
        assert undone == {pair for pair, outcome in run.pairs.items() if outcome in {"failed", "not_evaluated"}}


async def check_histories(worker: Worker, runs: list[Expected]) -> None:
    for number in range(MENTORS):
        user_id = mentor(number)
        history = {
            item["id"]: {result["scenario_type"]: result["outcome"] for result in item["results"]}
            for item in (await listed(worker, user_id=user_id))["items"]
        }
        expected = {
            run.id: {pair[1]: outcome for pair, outcome in run.pairs.items() if pair[0] == user_id} for run in runs
        }
        assert history == {run_id: results for run_id, results in expected.items() if results}


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    number_of_runs=st.integers(1, 3),
    steps=st.lists(st.sampled_from(STEPS), min_size=10, max_size=50),
    ends=st.lists(st.sampled_from(ENDS), max_size=2),
    seed=st.integers(0, 2**32),
)
async def test_any_story_adds_up(
    core: SqlCore, worker: Worker, number_of_runs: int, steps: list[str], ends: list[str], seed: int
) -> None:
    await core.owner.run("delete from public.scheduler_invocations")
    random = Random(seed)
    runs = [Expected(await core.open_manual_run(worker, done=False)) for _ in range(number_of_runs)]
    story = Story(core, worker, runs, random)
    for end in ends:
        steps.insert(random.randint(len(steps) // 2, len(steps)), end)
    for step in steps:
        await story.go_on(step)
    for run in runs:
        await check(core, worker, run)
        await story.cancel(run)
        await check(core, worker, dataclasses.replace(run))
    await check_histories(worker, runs)
    assert await core.queued() == 0
