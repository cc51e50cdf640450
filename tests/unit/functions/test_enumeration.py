"""Mentors become batches: nobody twice, nobody forgotten, and a slower worker gives way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from functions.enumeration import cut_page, enumerate_mentors
from functions.peer_mentors import ActivePeerMentor
from shared.config import ScenarioEvaluationConfig
from shared.evaluations import MentorScenarios, from_pairs
from shared.invocations import Invocations, OpenInvocation
from shared.time_budget import TimeBudget
from tests.unit.clock import ManualClock
from tests.unit.environment import make_config
from tests.unit.fake_database import FakeDatabase
from tests.unit.log_lines import LogLines

TYPES = json.dumps([{"type": "for_new", "segments": ["new"]}, {"type": "for_old", "segments": ["old"]}])
segments = st.frozensets(st.sampled_from(["new", "old", "odd"]))
mentors = st.lists(st.builds(ActivePeerMentor, st.uuids().map(str), segments), unique_by=lambda mentor: mentor.user_id)


def config_with(batch_size: int) -> ScenarioEvaluationConfig:
    return make_config(SCENARIO_TYPES=TYPES, EVALUATION_BATCH_SIZE=str(batch_size))


@given(mentors, st.integers(1, 10))
def test_each_mentor_is_in_one_batch_or_skipped(page: list[ActivePeerMentor], batch_size: int) -> None:
    config = config_with(batch_size)
    cut = cut_page(page, config)
    assert [user for batch in cut.batches for user in batch] == [
        MentorScenarios(mentor.user_id, types)
        for mentor in page
        if (types := config.scenario_types_for(mentor.segments))
    ]
    assert sum(len(batch) for batch in cut.batches) + cut.skipped == len(page)


@given(mentors, st.integers(1, 10))
def test_batches_are_full_but_for_the_last_and_never_empty(page: list[ActivePeerMentor], batch_size: int) -> None:
    sizes = [len(batch) for batch in cut_page(page, config_with(batch_size)).batches]
    assert all(size == batch_size for size in sizes[:-1])
    assert all(0 < size <= batch_size for size in sizes[-1:])


def test_a_mentor_to_whom_nothing_applies_is_skipped_and_takes_no_room() -> None:
    page = [ActivePeerMentor(str(n), frozenset({"new"} if n % 2 else {"odd"})) for n in range(10)]
    cut = cut_page(page, config_with(5))
    assert [len(batch) for batch in cut.batches] == [5]
    assert cut.skipped == 5


class Enumeration:
    """One worker's enumeration over a fake database, which notes what is queued."""

    def __init__(self, count: int, *, accepts: Sequence[bool] = (), cursor: str | None = None) -> None:
        self._accepts = list(accepts)
        rows = [{"user_id": f"mentor-{n:04}", "segments": ["new"]} for n in range(count)]
        self.database = FakeDatabase(rows, most_rows=4, functions={"scheduler_enqueue": self._enqueue})
        self.clock = ManualClock()
        self.pages: list[dict[str, Any]] = []
        self.times_told = 0
        self._invocation = OpenInvocation("invocation-1", "2026-11-23T02:00:00+00:00", "schedule", cursor, False)

    def _enqueue(self, arguments: dict[str, Any]) -> dict[str, bool]:
        self.pages.append(arguments)
        self.clock.advance(10)
        return {"accepted": self._accepts.pop(0) if self._accepts else True}

    def _told(self) -> None:
        self.times_told += 1

    async def run(self, *, seconds: float = 1000) -> None:
        config = config_with(3)
        await enumerate_mentors(
            self._invocation,
            database=self.database,
            invocations=Invocations(self.database, config),
            config=config,
            budget=TimeBudget(seconds, self.clock),
            on_queued=self._told,
        )

    def queued(self) -> list[str]:
        return [user.user_id for page in self.pages for batch in page["batches"] for user in from_pairs(batch)]

    def steps(self) -> list[tuple[str | None, str | None, bool]]:
        return [(page["expected_cursor"], page["next_cursor"], page["done"]) for page in self.pages]


async def test_page_after_page_is_queued_and_then_the_end_is_noted(log: LogLines) -> None:
    enumeration = Enumeration(6)
    await enumeration.run()
    assert enumeration.queued() == [f"mentor-{n:04}" for n in range(6)]
    assert enumeration.steps() == [
        (None, "mentor-0003", False),
        ("mentor-0003", "mentor-0005", False),
        ("mentor-0005", None, True),
    ]
    assert enumeration.times_told == 2
    (line,) = log.of("mentors_enumerated")
    assert line["mentors"] == 6


async def test_an_enumeration_goes_on_where_it_stands() -> None:
    enumeration = Enumeration(6, cursor="mentor-0003")
    await enumeration.run()
    assert enumeration.queued() == ["mentor-0004", "mentor-0005"]
    assert enumeration.steps()[0] == ("mentor-0003", "mentor-0005", False)


async def test_without_any_mentor_only_the_end_is_noted() -> None:
    enumeration = Enumeration(0)
    await enumeration.run()
    assert enumeration.steps() == [(None, None, True)]
    assert enumeration.times_told == 0


async def test_where_another_worker_was_faster_this_one_gives_way(log: LogLines) -> None:
    enumeration = Enumeration(9, accepts=[True, False])
    await enumeration.run()
    assert len(enumeration.pages) == 2
    assert enumeration.times_told == 1
    assert log.of("mentors_enumerated") == []


async def test_where_another_worker_noted_the_end_this_one_says_nothing(log: LogLines) -> None:
    enumeration = Enumeration(2, accepts=[True, False])
    await enumeration.run()
    assert log.of("mentors_enumerated") == []


async def test_when_the_time_ends_the_rest_is_left_and_the_end_is_not_noted() -> None:
    enumeration = Enumeration(9)
    await enumeration.run(seconds=15)
    assert enumeration.steps() == [(None, "mentor-0003", False), ("mentor-0003", "mentor-0007", False)]
