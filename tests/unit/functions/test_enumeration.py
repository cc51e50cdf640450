"""Pages of mentors become batches: each mentor once, none left out, and of two workers the slower one stops."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from functions.runs.enumeration import enumerate_mentors
from shared.deadline import Deadline
from shared.evaluations import MentorScenarios, from_pairs
from shared.slice_repository import Enumeration, OpenInvocation
from tests.unit.clock import ManualClock
from tests.unit.fake_database import FakeDatabase
from tests.unit.functions.fake_engine import FakeEngine
from tests.unit.functions.fake_sql import RUN_ID, SLOT, make_services, mentor_id, mentor_row
from tests.unit.log_lines import LogLines

TYPES = json.dumps([{"type": "for_new", "segments": ["new"]}, {"type": "for_old", "segments": ["old"]}])


class Worker:
    """One worker's enumeration; its `accepts` say whether each page is taken, and each takes ten seconds."""

    def __init__(
        self, rows: Sequence[dict[str, Any]], *, accepts: Sequence[bool] = (), most_rows: int = 4, batch_size: int = 3
    ) -> None:
        self._accepts = list(accepts)
        self._clock = ManualClock()
        database = FakeDatabase(rows, most_rows=most_rows, functions={"scheduler_enqueue": self._enqueue})
        settings = {"SCENARIO_TYPES": TYPES, "EVALUATION_BATCH_SIZE": str(batch_size)}
        self._services = make_services(database, FakeEngine(self._clock), **settings)
        self.pages: list[dict[str, Any]] = []
        self.queued: list[None] = []

    def _enqueue(self, arguments: dict[str, Any]) -> dict[str, bool]:
        self.pages.append(arguments)
        self._clock.advance(10)
        return {"accepted": self._accepts.pop(0) if self._accepts else True}

    async def run(self, *, cursor: str | None = None, seconds: float = 1000) -> None:
        await enumerate_mentors(
            self._services,
            OpenInvocation(RUN_ID, SLOT, "schedule", Enumeration(cursor=cursor)),
            deadline=Deadline(seconds, self._clock),
            on_enqueued=lambda: self.queued.append(None),
        )

    def batches(self) -> list[list[tuple[MentorScenarios, ...]]]:
        """The batches of each page."""
        return [[from_pairs(batch) for batch in page["batches"]] for page in self.pages]

    def mentors(self) -> list[MentorScenarios]:
        return [mentor for page in self.batches() for batch in page for mentor in batch]

    def steps(self) -> list[tuple[str | None, str | None, bool]]:
        return [(page["expected_cursor"], page["next_cursor"], page["done"]) for page in self.pages]


def rows_of(segments: Sequence[str]) -> list[dict[str, Any]]:
    return [mentor_row(n, segment) for n, segment in enumerate(segments)]


NINE = rows_of(["new"] * 9)


@given(st.lists(st.sampled_from(["new", "old", "odd"]), max_size=30), st.integers(1, 10), st.integers(1, 10))
async def test_each_mentor_is_in_one_batch_or_counted(segments: list[str], batch_size: int, most_rows: int) -> None:
    worker = Worker(rows_of(segments), most_rows=most_rows, batch_size=batch_size)
    await worker.run()
    assert sorted(worker.mentors()) == [
        MentorScenarios(mentor_id(n), (f"for_{segment}",)) for n, segment in enumerate(segments) if segment != "odd"
    ]
    assert sum(page["skip_reasons"].get("no_scenario_applies", 0) for page in worker.pages) == segments.count("odd")
    for page in worker.batches():
        sizes = [len(batch) for batch in page]
        assert all(size == batch_size for size in sizes[:-1])
        assert all(0 < size <= batch_size for size in sizes[-1:])
    # A mentor's batch is found by its first and its last id.
    ranges = [(min(batch).user_id, max(batch).user_id) for page in worker.batches() for batch in page]
    assert all(before[1] < after[0] for before, after in pairwise(ranges))


async def test_after_the_last_page_the_end_is_noted(log: LogLines) -> None:
    worker = Worker(rows_of(["new", "odd", "new", "new", "new", "new"]))
    await worker.run()
    third, last = mentor_id(3), mentor_id(5)
    assert worker.steps() == [(None, third, False), (third, last, False), (last, None, True)]
    assert len(worker.queued) == 2
    (line,) = log.of("mentors_enumerated")
    assert (line["invocation_id"], line["slot"], line["mentors"], line["batches"]) == (RUN_ID, SLOT, 6, 2)


async def test_unusable_rows_are_counted_once_and_named_in_one_line(log: LogLines) -> None:
    rows: list[dict[str, Any]] = [{"user_id": None, "segments": ["new"]}] * 2
    rows += [{"user_id": mentor_id(n), "segments": [None] if n < 30 else ["new"]} for n in range(32)]
    # The first slice ends with the last page and before the end is noted; the second finds nothing but the end.
    worker, resumed = Worker(rows), Worker(rows)
    await worker.run(seconds=75)
    await resumed.run(cursor=worker.pages[-1]["next_cursor"])

    assert [page["skip_reasons"] for page in worker.pages] == [{"invalid_segments": 4}] * 7 + [{"invalid_segments": 2}]
    assert [page["skip_reasons"] for page in resumed.pages] == [{"user_id_missing": 2}]
    skipped = [mentor for mentor in worker.mentors() if mentor.skip_reason == "invalid_segments"]
    assert skipped == [MentorScenarios(mentor_id(n), ("for_new", "for_old"), "invalid_segments") for n in range(30)]
    first, second = log.of("mentor_rows_unusable")
    assert (first["severity"], first["invalid_segments"], first["user_id_missing"]) == ("WARNING", 30, 0)
    assert first["sample_user_ids"] == [mentor_id(n) for n in range(10)]
    assert (second["invalid_segments"], second["user_id_missing"], second["sample_user_ids"]) == (0, 2, [])


async def test_an_enumeration_goes_on_where_it_stands() -> None:
    worker = Worker(NINE)
    await worker.run(seconds=15)
    assert worker.steps() == [(None, mentor_id(3), False), (mentor_id(3), mentor_id(7), False)]
    resumed = Worker(NINE)
    await resumed.run(cursor=mentor_id(7))
    assert [mentor.user_id for mentor in resumed.mentors()] == [mentor_id(8)]
    assert resumed.steps() == [(mentor_id(7), mentor_id(8), False), (mentor_id(8), None, True)]


async def test_where_another_worker_was_faster_this_one_stops(log: LogLines) -> None:
    beaten_at_the_second_page, beaten_at_the_end = Worker(NINE, accepts=[True, False]), Worker([], accepts=[False])
    await beaten_at_the_second_page.run()
    assert (len(beaten_at_the_second_page.pages), len(beaten_at_the_second_page.queued)) == (2, 1)
    await beaten_at_the_end.run()
    assert beaten_at_the_end.steps() == [(None, None, True)]
    assert log.of("mentors_enumerated") == []
