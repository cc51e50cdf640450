"""Chains of retries: whichever run is named, a retry evaluates what is left of the whole chain, and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NamedTuple

import pytest

from functions.runs.mentor_selection import MentorSelector
from shared.errors import OUTCOME_UNKNOWN
from shared.evaluations import MentorScenarios, to_pairs
from shared.slice_repository import OpenInvocation
from tests.unit.environment import make_config

from .processes import Process
from .requests import add_mentors, ask, ended_run, opened, refusal, seen
from .sql_core import CONFIG, EVALUATED, SqlCore, Worker, mentor, pairs

MENTORS = range(8)
# What became of a mentor's pair, by letter; "." was not evaluated, "?" left unknown by the engine.
OUTCOMES = {"t": "triggered", "n": "not_triggered", "f": "failed", "?": "failed"}
LEFT = "f.?"


class Run(NamedTuple):
    """One run of a chain, the first or a retry.

    Args:
        outcomes: of the mentors whom it evaluates, in their order; those after the last letter are triggered.
        names: of a retry, which run of the chain its request names.
        reads: after how many mentors its enumeration is cut off; None: never.
        ends: how, where it is cut off or has not evaluated all.
        then: what happens to it afterwards.
    """

    outcomes: str = ""
    names: int = 0
    reads: int | None = None
    dry: bool = False
    include_unknown: bool = False
    ends: str = "cancelled"
    then: tuple[str, ...] = ()


CHAINS: dict[str, list[Run]] = {
    "all is settled": [Run("tntn")],
    "the second retry of the first run": [Run("tffffftt"), Run("tnff"), Run("tf"), Run()],
    "each names the one before": [Run("ffffffff"), Run("tffff"), Run("tff", names=1), Run(names=2)],
    "a success names the chain's end": [Run("f"), Run(), Run(names=1)],
    "cancelled, marked as failed and expired": [
        Run("tf.f"),
        Run("t..", ends="failed"),
        Run(".", ends="expired"),
        Run(names=1),
    ],
    "cut off before any mentor was read": [Run(reads=0), Run(reads=0), Run("f", names=1), Run()],
    "cut off among what its source left": [Run("ffff"), Run("tf", reads=2), Run("t", reads=1), Run()],
    "cut off in what its source had not read": [
        Run("tff", reads=3),
        Run("t", reads=4, ends="expired"),
        Run(".", reads=1),
        Run("f", reads=2, names=1),
        Run(),
    ],
    "everything read, the end not noted": [Run("ff"), Run("tf", reads=2), Run()],
    "unknown outcomes only on request": [Run("t?f?"), Run("f"), Run(include_unknown=True), Run()],
    "unknown outcomes again": [Run("??f"), Run("?f", include_unknown=True), Run("t"), Run(include_unknown=True), Run()],
    "a request for unknown outcomes cut off": [
        Run("t?f?"),
        Run("..", reads=2, include_unknown=True),
        Run(),
        Run("..", names=1, include_unknown=True),
        Run(names=1),
        Run("f", include_unknown=True),
        Run(),
    ],
    "one without unknown outcomes cut off": [
        Run("?ff?", reads=4),
        Run(".", reads=2),
        Run(".", reads=5),
        Run(include_unknown=True),
    ],
    "a dry retry settles nothing": [Run("ff"), Run(dry=True), Run("f"), Run(names=1), Run(names=1), Run(names=2)],
    "the retries of a dry run": [Run("ff", dry=True), Run("tf"), Run(names=1), Run()],
    "a deleted retry has settled what it settled": [
        Run("fff"),
        Run("tff", then=("deleted", "pruned")),
        Run("t", then=("deleted",)),
        Run("f", then=("pruned",)),
        Run(),
    ],
    "a deleted first run": [
        Run("fff"),
        Run("tf", then=("first deleted", "pruned")),
        Run("t", names=1),
        Run(names=1),
    ],
    "all but the last are gone": [
        Run("fff"),
        Run("tff", then=("first deleted",)),
        Run("tf", names=1, then=("second deleted", "pruned")),
        Run("f", names=2),
        Run(names=2),
    ],
    "a deleted retry that was cut off": [Run("fff"), Run("t", reads=1, then=("deleted", "pruned")), Run("f"), Run()],
    "a deleted source that was cut off": [
        Run("ff", reads=3),
        Run("t", reads=1, then=("first deleted", "pruned")),
        Run("t", reads=1, names=1, then=("second deleted", "pruned")),
        Run(names=2),
    ],
}


class Chain:
    """Plays a chain, and knows by itself what is left."""

    def __init__(self, core: SqlCore, worker: Worker) -> None:
        self._core, self._worker = core, worker
        self.ids: list[str] = []
        self.runs: list[Run] = []
        self.gone: set[int] = set()
        self.standing = dict.fromkeys(MENTORS, ".")
        self.is_read = True

    @property
    def source(self) -> str:
        """The newest run that was not dry, if one was not."""
        dry = all(run.dry for run in self.runs)
        return [each for each, run in zip(self.ids, self.runs, strict=True) if dry or not run.dry][-1]

    def left(self, *, include_unknown: bool) -> list[int]:
        return [
            number
            for number, came_to in self.standing.items()
            if came_to in LEFT and (include_unknown or came_to != "?")
        ]

    async def play(self, run: Run) -> None:
        """Open, enumerate, record and end one run; the first one is scheduled."""
        unread = self.left(include_unknown=True)[: run.reads]
        expected = [number for number in self.left(include_unknown=run.include_unknown) if number in unread]
        if not self.runs:
            run_id = await self._core.open_run(self._worker, done=False)
            await self._core.change(run_id, f"dry_run = {run.dry}")
            work: dict[str, Any] = {"id": run_id, "scheduled_for": "", "trigger": "schedule", "retry_of": None}
            work |= {"enumeration_cursor": None, "enumeration_done": False, "scenarios": CONFIG["scenarios"]}
        else:
            request = {"user_ids": None, "scenario_types": None, "include_unknown": run.include_unknown}
            asked: dict[str, Any] = {"retry_of": self.ids[run.names], "dry_run": run.dry, "request": request}
            run = run._replace(dry=run.dry or self.runs[run.names].dry)
            if self.is_read and not expected:
                assert await refusal(self._worker, **asked) == "nothing_to_retry"
                return
            answer = await ask(self._worker, **asked)
            assert answer["outcome"] == "opened", answer
            assert (answer["invocation"]["retry_of"], answer["invocation"]["dry_run"]) == (self.source, run.dry)
            work, run_id = answer["work"], answer["invocation"]["id"]
        assert await self._enumerate(work, run.reads) == expected
        outcomes = dict(zip(expected, run.outcomes.ljust(len(expected), "t"), strict=False))
        await self._record(run_id, outcomes)
        await self._end(run_id, run, is_cut_off=run.reads is not None or "." in outcomes.values())
        self.ids.append(run_id)
        self.runs.append(run)
        if not run.dry or self.runs[0].dry:
            # What is not evaluated stays what it was.
            self.standing |= {number: each for number, each in outcomes.items() if each != "."}
            self.is_read = run.reads is None
        for event in run.then:
            await self._happen(event)

    async def _enumerate(self, work: Any, reads: int | None) -> list[int]:
        """As the function does, a mentor a page; the mentors who are to be evaluated."""
        invocation, database = OpenInvocation.from_row(work), OneByOne(self._worker, make_config()).database
        cursor, selected = invocation.enumeration.cursor, list[MentorScenarios]()
        pages = MentorSelector(database).pages(invocation.enumeration)
        while len(selected) != reads and (page := await anext(pages, None)):
            batches = [to_pairs(page.mentors)] if page.mentors else []
            following = page.cursor or cursor
            assert await self._worker.enqueue(invocation.id, batches, expected=cursor, following=following)
            selected += page.mentors
            cursor = following
        if reads is None:
            assert await self._worker.enqueue(invocation.id, [], expected=cursor, done=True)
        await pages.aclose()  # type: ignore[attr-defined]
        return [int(each.user_id[-12:], 16) for each in selected if each.skip_reason is None]

    async def _record(self, run_id: str, outcomes: dict[int, str]) -> None:
        for batch in (await self._worker.claim())["batches"]:
            assert batch["invocation_id"] == run_id
            (group,) = batch["pairs"]
            (user_id,), (kind,) = group["user_ids"], group["scenario_types"]
            came_to = outcomes.get(int(user_id[-12:], 16), "?")
            if came_to == ".":
                continue
            outcome = "skipped" if "skip" in group else OUTCOMES[came_to]
            said = await self._worker.complete_with(
                batch,
                [] if outcome == "not_triggered" else [(user_id, kind, outcome)],
                {kind: {outcome: 1}},
                users_evaluated=int(outcome in EVALUATED),
                causes={user_id: "outcome_unknown"} if came_to == "?" else {},
            )
            assert said == "done"

    async def _end(self, run_id: str, run: Run, *, is_cut_off: bool) -> None:
        if not is_cut_off:
            assert (await self._worker.finish(run_id))["ended_now"]
        elif run.ends == "expired":
            await self._core.expire(run_id)
        else:
            assert not (await self._worker.update(run_id, status=run.ends))["ended_otherwise"]

    async def _happen(self, event: str) -> None:
        if event == "pruned":
            await (await self._core.session()).run("call scheduler.prune()")
            return
        number = {"first deleted": 0, "second deleted": 1}.get(event, len(self.ids) - 1)
        assert await self._worker.delete(self.ids[number]) == "deleted"
        self.gone.add(number)

    async def check(self) -> None:
        """Each run that is shown says the same of the next retry: what it would read, and how many mentors."""
        left = len(self.left(include_unknown=False))
        retry = {"invocation_id": self.source, "mentors": left if self.is_read else None}
        for number, run_id in enumerate(self.ids):
            detail = await seen(self._worker, run_id)
            if number in self.gone:
                assert detail is None
            else:
                assert detail["retry"] == (retry if left or not self.is_read else None)


class OneByOne(Process):
    """A process that reads a mentor a page."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.database.limits = {"mentors": 1, "rows": 1}


@pytest.mark.parametrize("name", CHAINS)
async def test_no_pair_is_missed_or_evaluated_again(core: SqlCore, worker: Worker, name: str) -> None:
    await add_mentors(core, MENTORS)
    await core.change_settings("retention_days = 90")
    chain = Chain(core, worker)
    for run in CHAINS[name]:
        await chain.play(run)
        await chain.check()


async def open_chain(core: SqlCore, worker: Worker) -> list[str]:
    """A run, its retry that left something, and the open retry of that."""
    first = await ended_run(core, worker)
    second = await opened(worker, retry_of=first)
    await worker.cancel(second)
    return [first, second, await opened(worker, retry_of=first)]


async def test_one_retry_of_a_chain_is_open(core: SqlCore, worker: Worker) -> None:
    runs = await open_chain(core, worker)
    for run, dry in [(run, dry) for run in runs for dry in (False, True)]:
        expected = "retry_source_open" if run == runs[-1] else "retry_already_open"
        assert await refusal(worker, retry_of=run, dry_run=dry) == expected
        assert (await seen(worker, run))["retry"] is None
    await worker.cancel(runs.pop())
    workers = await core.workers(12)
    answers = await asyncio.gather(*(ask(one, retry_of=runs[n % 2]) for n, one in enumerate(workers)))
    assert Counter(answer["outcome"] for answer in answers) == {"opened": 1, "retry_already_open": 11}


async def test_a_retry_waits_for_one_that_ends_meanwhile(core: SqlCore, worker: Worker) -> None:
    """Both name the first run; what the faster one settled is not evaluated again, and it has read all."""
    first, rival = await ended_run(core, worker), await core.worker()

    async def open_and_settle() -> str:
        retry = await opened(worker, retry_of=first)
        assert await worker.enqueue(retry, [pairs([0])], done=True)
        await worker.complete(await worker.claim_one())
        assert (await worker.finish(retry))["ended_now"]
        return retry

    retry, outcome = await core.race(worker, open_and_settle(), rival, refusal(rival, retry_of=first))
    assert outcome == "nothing_to_retry"
    assert (await seen(worker, retry))["retry"] is None


async def test_a_key_stands_for_the_retry_that_it_opened(core: SqlCore, worker: Worker) -> None:
    """Whatever a request that names the same run would read by now."""
    first = await ended_run(core, worker)
    retry = await opened(worker, retry_of=first, key="k")
    await worker.cancel(retry)
    again = await ask(worker, retry_of=first, key="k")
    assert (again["outcome"], again["invocation"]["id"], again["invocation"]["retry_of"]) == ("same", retry, first)


async def test_a_dry_retry_is_continued_where_its_run_is_gone(core: SqlCore, worker: Worker) -> None:
    """What is left of a run that is not shown any more may be pruned, and a retry of a dry run is dry."""
    first = await ended_run(core, worker)
    dry = await opened(worker, retry_of=first, dry_run=True)
    await worker.cancel(dry)
    await worker.delete(first)
    invocation = (await ask(worker, retry_of=dry))["invocation"]
    assert (invocation["retry_of"], invocation["dry_run"]) == (dry, True)


@pytest.mark.parametrize(("hours", "is_open"), [(167, True), (168, False)])
async def test_a_chain_can_be_retried_while_keys_of_its_first_run_last(
    core: SqlCore, worker: Worker, hours: int, is_open: bool
) -> None:
    first = await ended_run(core, worker)
    await core.change(first, f"engine_scope_since = now() - interval '{hours} hours'")
    if is_open:
        await worker.cancel(await opened(worker, retry_of=first))
    assert bool((await seen(worker, first))["retry"]) == is_open
    assert (await ask(worker, retry_of=first))["outcome"] == ("opened" if is_open else "retry_window_closed")


async def test_mentors_left_are_counted_once(core: SqlCore, worker: Worker) -> None:
    """Whatever is left of their pairs, in whatever parts of a batch; of one that is open, all."""
    run = await core.open_run(worker, [pairs([1, 2, 3], ["a", "b"]), pairs([4], ["a"])])
    first, second = (await worker.claim())["batches"]
    await worker.complete(first, "failed", {mentor(3): "triggered"}, remaining=[mentor(2)])
    await worker.complete(second, "triggered")
    await worker.cancel(run)
    assert (await seen(worker, run))["retry"] == {"invocation_id": run, "mentors": 2}


async def test_a_mentor_in_two_parts_of_a_batch_is_counted_once(core: SqlCore, worker: Worker) -> None:
    """Both types are unknown; one is asked for again, the other is off."""
    asked = MentorScenarios(mentor(1), ("a",), None, ("a",))
    off = MentorScenarios(mentor(1), ("b",), OUTCOME_UNKNOWN, ("b",))
    await core.open_run(worker, [to_pairs([asked, off])])
    assert await core.batches("mentors, evaluations, mentors_left, mentors_unknown") == [(1, 2, 0, 1)]
