"""Pages of the roster become batches: nobody twice, nobody forgotten, and a slower worker gives way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from functions.enumeration import enumerate_mentors
from functions.roster import Roster
from shared.evaluations import MentorScenarios, from_pairs
from shared.invocations import Enumeration, Invocations, OpenInvocation
from shared.time_budget import TimeBudget
from tests.unit.clock import ManualClock
from tests.unit.environment import make_config
from tests.unit.fake_database import FakeDatabase
from tests.unit.functions.pretend_sql import RUN_ID, SLOT, mentor_id
from tests.unit.log_lines import LogLines

TYPES = json.dumps([{"type": "for_new", "segments": ["new"]}, {"type": "for_old", "segments": ["old"]}])


class Worker:
    """One worker's enumeration over a fake database that notes what is queued.

    Args:
        segments: of each mentor, in the order of the ids.
        rows: of the view, instead of these mentors.
        accepts: whether each page is taken; when they are used up, all are.
    """

    def __init__(
        self,
        segments: Sequence[str],
        *,
        rows: Sequence[dict[str, Any]] | None = None,
        accepts: Sequence[bool] = (),
        cursor: str | None = None,
        batch_size: int = 3,
        most_rows: int = 4,
    ) -> None:
        self._accepts = list(accepts)
        if rows is None:
            rows = [{"user_id": mentor_id(n), "segments": [segment]} for n, segment in enumerate(segments)]
        self._database = FakeDatabase(rows, most_rows=most_rows, functions={"scheduler_enqueue": self._enqueue})
        self._invocation = OpenInvocation(RUN_ID, SLOT, "schedule", Enumeration(cursor=cursor))
        self._batch_size = batch_size
        self.clock = ManualClock()
        self.pages: list[dict[str, Any]] = []
        self.times_told = 0

    def _enqueue(self, arguments: dict[str, Any]) -> dict[str, bool]:
        self.pages.append(arguments)
        self.clock.advance(10)
        return {"accepted": self._accepts.pop(0) if self._accepts else True}

    def _told(self) -> None:
        self.times_told += 1

    async def run(self, *, seconds: float = 1000) -> None:
        config = make_config(SCENARIO_TYPES=TYPES)
        invocations = Invocations(self._database, config)
        await enumerate_mentors(
            self._invocation,
            roster=Roster(self._database, config),
            invocations=invocations,
            batch_size=self._batch_size,
            budget=TimeBudget(seconds, self.clock),
            on_queued=self._told,
        )

    def batches(self) -> list[list[tuple[MentorScenarios, ...]]]:
        """The batches of each page."""
        return [[from_pairs(batch) for batch in page["batches"]] for page in self.pages]

    def queued(self) -> list[MentorScenarios]:
        return [mentor for page in self.batches() for batch in page for mentor in batch]

    def steps(self) -> list[tuple[str | None, str | None, bool]]:
        return [(page["expected_cursor"], page["next_cursor"], page["done"]) for page in self.pages]


segments = st.lists(st.sampled_from(["new", "old", "odd"]), max_size=30)


@given(segments, st.integers(1, 10), st.integers(1, 10))
async def test_each_mentor_is_in_one_batch_or_skipped(segments: list[str], batch_size: int, most_rows: int) -> None:
    worker = Worker(segments, batch_size=batch_size, most_rows=most_rows)
    await worker.run()
    assert sorted(worker.queued()) == [
        MentorScenarios(mentor_id(n), (f"for_{segment}",)) for n, segment in enumerate(segments) if segment != "odd"
    ]
    assert sum(page["skip_reasons"].get("no_scenario_applies", 0) for page in worker.pages) == segments.count("odd")


@given(segments, st.integers(1, 10), st.integers(1, 10))
async def test_batches_are_full_but_for_a_pages_last_and_never_empty(
    segments: list[str], batch_size: int, most_rows: int
) -> None:
    worker = Worker(segments, batch_size=batch_size, most_rows=most_rows)
    await worker.run()
    for page in worker.batches():
        sizes = [len(batch) for batch in page]
        assert all(size == batch_size for size in sizes[:-1])
        assert all(0 < size <= batch_size for size in sizes[-1:])


@given(segments, st.integers(1, 10), st.integers(1, 10))
async def test_the_batches_of_a_page_follow_one_another_in_the_order_of_ids(
    segments: list[str], batch_size: int, most_rows: int
) -> None:
    """A mentor's batch is found by its first and its last id."""
    worker = Worker(segments, batch_size=batch_size, most_rows=most_rows)
    await worker.run()
    ranges = [(min(batch).user_id, max(batch).user_id) for page in worker.batches() for batch in page]
    assert all(before[1] < after[0] for before, after in pairwise(ranges))


async def test_a_mentor_to_whom_nothing_applies_is_skipped_and_takes_no_room() -> None:
    worker = Worker(["new", "odd"] * 5, batch_size=5, most_rows=10)
    await worker.run()
    page, end = worker.pages
    assert [len(batch) for batch in worker.batches()[0]] == [5]
    assert (page["skip_reasons"], end["skip_reasons"]) == ({"no_scenario_applies": 5}, {})


async def test_unusable_rows_are_counted_once_and_named_in_one_line(log: LogLines) -> None:
    rows: list[dict[str, Any]] = [{"user_id": None, "segments": ["new"]}] * 2
    rows += [{"user_id": mentor_id(n), "segments": [None] if n < 30 else ["new"]} for n in range(32)]
    worker = Worker([], rows=rows)
    await worker.run(seconds=75)
    # The first slice ends with the last page and before the end is noted; the second finds nothing but the end.
    last = worker.pages[-1]["next_cursor"]
    resumed = Worker([], rows=rows, cursor=last)
    await resumed.run()

    assert [page["skip_reasons"] for page in worker.pages] == [{"invalid_segments": 4}] * 7 + [{"invalid_segments": 2}]
    assert [page["skip_reasons"] for page in resumed.pages] == [{"user_id_missing": 2}]
    skipped = [mentor for mentor in worker.queued() if mentor.skip_reason == "invalid_segments"]
    assert skipped == [MentorScenarios(mentor_id(n), ("for_new", "for_old"), "invalid_segments") for n in range(30)]
    first, second = log.of("mentor_rows_unusable")
    assert first["severity"] == "WARNING"
    assert (first["invalid_segments"], first["user_id_missing"]) == (30, 0)
    assert first["sample_user_ids"] == [mentor_id(n) for n in range(10)]
    assert (second["invalid_segments"], second["user_id_missing"], second["sample_user_ids"]) == (0, 2, [])


async def test_page_after_page_is_queued_and_then_the_end_is_noted(log: LogLines) -> None:
    worker = Worker(["new", "odd", "new", "new", "new", "new"])
    await worker.run()
    assert [mentor.user_id for mentor in worker.queued()] == [mentor_id(n) for n in (0, 2, 3, 4, 5)]
    assert worker.steps() == [
        (None, mentor_id(3), False),
        (mentor_id(3), mentor_id(5), False),
        (mentor_id(5), None, True),
    ]
    assert worker.times_told == 2
    (line,) = log.of("mentors_enumerated")
    assert (line["invocation_id"], line["slot"], line["mentors"], line["batches"]) == (RUN_ID, SLOT, 6, 2)


async def test_an_enumeration_goes_on_where_it_stands() -> None:
    worker = Worker(["new"] * 6, cursor=mentor_id(3))
    await worker.run()
    assert [mentor.user_id for mentor in worker.queued()] == [mentor_id(4), mentor_id(5)]
    assert worker.steps()[0] == (mentor_id(3), mentor_id(5), False)


async def test_without_any_mentor_only_the_end_is_noted() -> None:
    worker = Worker([])
    await worker.run()
    assert worker.steps() == [(None, None, True)]
    assert worker.times_told == 0


async def test_where_another_worker_was_faster_this_one_gives_way(log: LogLines) -> None:
    worker = Worker(["new"] * 9, accepts=[True, False])
    await worker.run()
    assert len(worker.pages) == 2
    assert worker.times_told == 1
    assert log.of("mentors_enumerated") == []


async def test_where_another_worker_noted_the_end_this_one_says_nothing(log: LogLines) -> None:
    await Worker(["new"] * 2, accepts=[True, False]).run()
    assert log.of("mentors_enumerated") == []


async def test_when_the_time_ends_the_rest_is_left_and_the_end_is_not_noted() -> None:
    worker = Worker(["new"] * 9)
    await worker.run(seconds=15)
    assert worker.steps() == [(None, mentor_id(3), False), (mentor_id(3), mentor_id(7), False)]
