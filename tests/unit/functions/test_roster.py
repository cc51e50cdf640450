"""Whom a run is about: each of them once, wherever its reading is interrupted and taken up again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.roster import PAGE_SIZE, REST, Roster, RosterPage
from shared.evaluations import MENTOR_NOT_ACTIVE, MentorScenarios
from shared.invocations import Enumeration
from tests.unit.environment import make_config
from tests.unit.fake_database import FakeDatabase
from tests.unit.functions.pretend_sql import mentor_id, mentor_row

TYPES = json.dumps(
    [
        {"type": "for_all"},
        {"type": "for_new", "segments": ["new"]},
        {"type": "for_old", "segments": ["old"]},
        {"type": "off", "enabled": False},
    ]
)
ONLY_NEW = json.dumps([{"type": "for_new", "segments": ["new"]}])
# However far a reading that is not interrupted may go.
TO_THE_END = 10**9

SOURCE, RETRY = "8a4e3f0c-5d0e-4d3e-9d53-0f5e0c4f6a11", "9b5f401d-6e1f-4e4f-8e64-106f1d507b22"


@dataclass
class Run:
    """A run that was: `undone` are those of its batches that did not come to an end, by their pairs."""

    enumeration: Enumeration
    batches: list[list[MentorScenarios]] = field(default_factory=list)
    undone: set[str] = field(default_factory=set)

    def row(self) -> dict[str, Any]:
        enumeration = self.enumeration
        types = enumeration.scenario_types
        return {
            "triggered_by": "retry" if enumeration.is_retry else "manual",
            "retry_of": enumeration.retry_of,
            "request": {
                "user_ids": None if enumeration.user_ids is None else list(enumeration.user_ids),
                "scenario_types": None if types is None else sorted(types),
            },
            "enumeration_cursor": enumeration.cursor,
            "enumeration_done": enumeration.done,
        }


class Programme:
    """The active mentors and the runs that were, as the database knows them.

    Args:
        segments: of each mentor, in the order of the ids; None for one who is not active.
        most_rows: the Data API's own limit, and about how many of a run's undone mentors an answer holds.
    """

    def __init__(
        self, segments: Sequence[Sequence[str] | None], *, most_rows: int = 1000, scenario_types: str = TYPES
    ) -> None:
        rows = [mentor_row(n, *each) for n, each in enumerate(segments) if each is not None]
        self._segments = {row["user_id"]: row["segments"] for row in rows}
        self._most_rows = most_rows
        self.runs: dict[str, Run] = {}
        self.database = FakeDatabase(
            rows,
            most_rows=most_rows,
            functions={"scheduler_active_mentors": self._active, "scheduler_undone": self._read_undone},
        )
        config = make_config(SCENARIO_TYPES=scenario_types)
        self.roster = Roster(self.database, config)

    def _active(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        asked = arguments["user_ids"]
        assert len(asked) <= PAGE_SIZE
        return [
            {"user_id": each, "segments": self._segments[each]} for each in reversed(asked) if each in self._segments
        ]

    def _read_undone(self, arguments: dict[str, Any]) -> dict[str, Any] | None:
        assert arguments["mentors"] == PAGE_SIZE
        run = self.runs.get(arguments["invocation_id"])
        if run is None:
            return None
        mentors: list[MentorScenarios] = []
        last = None
        for batch in run.batches:
            undone = [mentor for mentor in batch if mentor.user_id in run.undone]
            if undone and batch[0].user_id > (arguments["after_user_id"] or "") and len(mentors) < self._most_rows:
                mentors += undone
                last = batch[-1].user_id
        return {
            "mentors": [
                {
                    "user_id": each.user_id,
                    "scenario_types": each.scenario_types,
                    "active": each.user_id in self._segments,
                }
                for each in sorted(mentors)
            ],
            "last_user_id": last,
            "rest": run.row(),
        }

    async def pages(self, enumeration: Enumeration) -> list[RosterPage]:
        return [page async for page in self.roster.pages(enumeration)]

    async def ids(self, enumeration: Enumeration) -> list[str]:
        return [mentor.user_id for page in await self.pages(enumeration) for mentor in page.mentors]

    async def carry_out(self, run_id: str, enumeration: Enumeration, slices: Sequence[int], *, batch_size: int) -> Run:
        """Reads a run's roster, so many pages in each slice; it is done when it gets to the end in time."""
        run = self.runs[run_id] = Run(enumeration)
        for most_pages in slices:
            pages = self.roster.pages(run.enumeration)
            for _ in range(most_pages):
                page = await anext(pages, None)
                if page is None:
                    run.enumeration = replace(run.enumeration, done=True)
                    return run
                starts = range(0, len(page.mentors), batch_size)
                run.batches += [page.mentors[start : start + batch_size] for start in starts]
                run.enumeration = replace(run.enumeration, cursor=page.cursor)
        return run


def a_source(undone: Sequence[Sequence[MentorScenarios]], **enumeration: Any) -> Run:
    """A run of which all of these are undone, by batch; everybody was read unless `enumeration` says else."""
    everybody = {mentor.user_id for batch in undone for mentor in batch}
    return Run(Enumeration(**{"done": True} | enumeration), [list(batch) for batch in undone], everybody)


def pairs(*numbers: int, types: tuple[str, ...] = ("for_all",)) -> list[MentorScenarios]:
    return [MentorScenarios(mentor_id(n), types) for n in numbers]


def mentor_ids(*numbers: int) -> list[str]:
    return [mentor_id(n) for n in numbers]


# Everybody


async def test_everybody_comes_with_what_applies_in_the_order_of_the_configuration() -> None:
    (page,) = await Programme([["new"], ["old", "new"], []]).pages(Enumeration())
    assert page == RosterPage(
        [
            MentorScenarios(mentor_id(0), ("for_all", "for_new")),
            MentorScenarios(mentor_id(1), ("for_all", "for_new", "for_old")),
            MentorScenarios(mentor_id(2), ("for_all",)),
        ],
        skip_reasons=Counter(),
        cursor=mentor_id(2),
    )


async def test_of_chosen_types_only_those_that_apply_are_evaluated() -> None:
    chosen = Enumeration(scenario_types=frozenset({"for_new", "off", "unknown"}))
    (page,) = await Programme([["new"], ["old"]]).pages(chosen)
    assert page.mentors == [MentorScenarios(mentor_id(0), ("for_new",))]
    assert page.skip_reasons == {"no_scenario_applies": 1}


async def test_a_page_of_mentors_to_whom_nothing_applies_moves_on_all_the_same() -> None:
    programme = Programme([["old"], ["old"], ["new"]], most_rows=2, scenario_types=ONLY_NEW)
    assert await programme.pages(Enumeration()) == [
        RosterPage([], Counter(no_scenario_applies=2), mentor_id(1)),
        RosterPage([MentorScenarios(mentor_id(2), ("for_new",))], Counter(), mentor_id(2)),
    ]


async def test_without_mentors_there_is_no_page() -> None:
    assert await Programme([]).pages(Enumeration()) == []


# Chosen mentors


async def test_a_chosen_mentor_who_is_not_active_is_skipped_with_the_reason() -> None:
    programme = Programme([["new"], None, ["old"]])
    chosen = Enumeration(user_ids=tuple(mentor_ids(0, 1, 2, 7)))
    (page,) = await programme.pages(chosen)
    assert page.mentors == [
        MentorScenarios(mentor_id(0), ("for_all", "for_new")),
        MentorScenarios(mentor_id(1), ("for_all", "for_new", "for_old"), MENTOR_NOT_ACTIVE),
        MentorScenarios(mentor_id(2), ("for_all", "for_old")),
        MentorScenarios(mentor_id(7), ("for_all", "for_new", "for_old"), MENTOR_NOT_ACTIVE),
    ]
    assert not page.skip_reasons


async def test_a_chosen_mentor_who_is_not_active_is_skipped_for_the_chosen_types_only() -> None:
    chosen = Enumeration(user_ids=(mentor_id(1),), scenario_types=frozenset({"for_old", "off"}))
    (page,) = await Programme([]).pages(chosen)
    assert page.mentors == [MentorScenarios(mentor_id(1), ("for_old",), MENTOR_NOT_ACTIVE)]


async def test_a_chosen_mentor_to_whom_nothing_applies_is_counted() -> None:
    chosen = Enumeration(user_ids=tuple(mentor_ids(0, 1)))
    (page,) = await Programme([["new"], ["old"]], scenario_types=ONLY_NEW).pages(chosen)
    assert page.mentors == [MentorScenarios(mentor_id(0), ("for_new",))]
    assert page.skip_reasons == {"no_scenario_applies": 1}


async def test_nobody_but_the_chosen_is_read() -> None:
    programme = Programme([["new"]] * 5)
    assert await programme.ids(Enumeration(user_ids=tuple(mentor_ids(1, 3)))) == mentor_ids(1, 3)
    assert programme.database.pages_read == 0


@pytest.mark.parametrize("count", [1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE + 500])
async def test_however_many_are_chosen_each_comes_once(count: int) -> None:
    """Every third is not active."""
    programme = Programme([None if n % 3 == 0 else ["new"] for n in range(count)])
    chosen = mentor_ids(*range(count))
    pages = await programme.pages(Enumeration(user_ids=tuple(chosen)))
    assert [mentor.user_id for page in pages for mentor in page.mentors] == chosen
    assert [page.cursor for page in pages] == [page.mentors[-1].user_id for page in pages]
    assert max(len(page.mentors) for page in pages) <= PAGE_SIZE


async def test_the_reading_of_chosen_mentors_goes_on_after_the_cursor() -> None:
    programme = Programme([["new"]] * 9)
    chosen = tuple(mentor_ids(0, 2, 4, 6))
    assert await programme.ids(Enumeration(user_ids=chosen, cursor=mentor_id(2))) == mentor_ids(4, 6)
    assert await programme.ids(Enumeration(user_ids=chosen, cursor=mentor_id(6))) == []


# What another run left undone


async def test_a_retry_reads_what_the_other_left_undone_with_the_types_that_it_left() -> None:
    programme = Programme([["new"]] * 6, most_rows=2)
    programme.runs[SOURCE] = a_source([pairs(0, 1, types=("for_all",)), pairs(2, types=("for_new", "gone")), pairs(5)])
    assert await programme.pages(Enumeration(is_retry=True, retry_of=SOURCE)) == [
        RosterPage(pairs(0, 1), Counter(), mentor_id(1)),
        RosterPage([*pairs(2, types=("for_new", "gone")), *pairs(5)], Counter(), mentor_id(5)),
    ]


async def test_who_is_not_active_any_more_is_skipped_with_the_reason() -> None:
    programme = Programme([["new"], None])
    programme.runs[SOURCE] = a_source([pairs(0, 1)])
    (page,) = await programme.pages(Enumeration(is_retry=True, retry_of=SOURCE))
    assert page.mentors == [*pairs(0), MentorScenarios(mentor_id(1), ("for_all",), MENTOR_NOT_ACTIVE)]


async def test_a_retry_of_a_run_that_read_everybody_reads_nobody_beside_the_undone() -> None:
    programme = Programme([["new"]] * 6)
    programme.runs[SOURCE] = a_source([pairs(2)], cursor=mentor_id(2))
    assert await programme.ids(Enumeration(is_retry=True, retry_of=SOURCE)) == mentor_ids(2)
    assert programme.database.pages_read == 0


async def test_after_the_undone_come_those_whom_the_other_did_not_read() -> None:
    programme = Programme([["new"]] * 6)
    programme.runs[SOURCE] = a_source([pairs(1)], cursor=mentor_id(3), done=False)
    pages = await programme.pages(Enumeration(is_retry=True, retry_of=SOURCE))
    assert [mentor.user_id for page in pages for mentor in page.mentors] == mentor_ids(1, 4, 5)
    assert [page.cursor for page in pages] == [mentor_id(1), REST + mentor_id(5)]


async def test_the_rest_of_chosen_mentors_and_types_is_read_as_it_was_chosen() -> None:
    programme = Programme([["new"]] * 6)
    chosen = {"user_ids": tuple(mentor_ids(0, 2, 4, 9)), "scenario_types": frozenset({"for_new"})}
    programme.runs[SOURCE] = a_source([], cursor=mentor_id(0), done=False, **chosen)
    (page,) = await programme.pages(Enumeration(is_retry=True, retry_of=SOURCE))
    assert page.mentors == [
        MentorScenarios(mentor_id(2), ("for_new",)),
        MentorScenarios(mentor_id(4), ("for_new",)),
        MentorScenarios(mentor_id(9), ("for_new",), MENTOR_NOT_ACTIVE),
    ]


@pytest.mark.parametrize(
    ("cursor", "left"),
    [
        (None, (0, 1, 2, 4, 5)),
        (mentor_id(0), (1, 2, 4, 5)),
        (mentor_id(1), (2, 4, 5)),
        (mentor_id(2), (4, 5)),
        (REST + mentor_id(4), (5,)),
        (REST + mentor_id(5), ()),
    ],
)
async def test_a_retry_goes_on_wherever_it_stands(cursor: str | None, left: tuple[int, ...]) -> None:
    programme = Programme([["new"]] * 6, most_rows=1)
    programme.runs[SOURCE] = a_source([pairs(0), pairs(1), pairs(2)], cursor=mentor_id(3), done=False)
    assert await programme.ids(Enumeration(cursor=cursor, is_retry=True, retry_of=SOURCE)) == mentor_ids(*left)


@pytest.mark.parametrize("cursor", [None, mentor_id(1), REST + mentor_id(4), REST + REST + mentor_id(4)])
async def test_a_source_that_was_pruned_ends_the_reading(cursor: str | None) -> None:
    programme = Programme([["new"]] * 6)
    assert await programme.pages(Enumeration(cursor=cursor, is_retry=True, retry_of=SOURCE)) == []


async def test_a_source_that_is_pruned_between_two_pages_ends_the_reading() -> None:
    programme = Programme([["new"]] * 6, most_rows=1)
    programme.runs[SOURCE] = a_source([pairs(0), pairs(1)])
    pages = programme.roster.pages(Enumeration(is_retry=True, retry_of=SOURCE))
    assert (await anext(pages)).mentors == pairs(0)
    programme.runs.clear()
    assert await anext(pages, None) is None


async def test_a_retry_whose_source_is_not_even_named_any_more_reads_nobody() -> None:
    assert await Programme([["new"]]).pages(Enumeration(is_retry=True, retry_of=None)) == []


async def test_a_retry_of_a_retry_reads_the_first_ones_rest_as_well() -> None:
    programme = Programme([["new"]] * 6)
    programme.runs[SOURCE] = a_source([pairs(0), pairs(1)], cursor=mentor_id(2), done=False)
    programme.runs[RETRY] = a_source([pairs(0)], cursor=mentor_id(0), done=False, is_retry=True, retry_of=SOURCE)
    pages = await programme.pages(Enumeration(is_retry=True, retry_of=RETRY))
    assert [mentor.user_id for page in pages for mentor in page.mentors] == mentor_ids(0, 1, 3, 4, 5)
    assert [page.cursor for page in pages] == [mentor_id(0), REST + mentor_id(1), REST + REST + mentor_id(5)]


# Whatever happens


slices = st.lists(st.integers(0, 3), max_size=6)


@given(
    segments=st.lists(st.none() | st.sampled_from([["new"], ["old"], ["new", "old"], []]), max_size=12),
    only_new=st.booleans(),
    chosen=st.none() | st.sets(st.integers(0, 14), min_size=1),
    most_rows=st.integers(1, 5),
    batch_size=st.integers(1, 4),
    runs=st.lists(st.tuples(slices, st.randoms(use_true_random=False)), min_size=1, max_size=4),
)
async def test_in_a_chain_of_retries_everybody_who_is_left_comes_once_and_in_order(
    segments: list[list[str] | None],
    only_new: bool,
    chosen: set[int] | None,
    most_rows: int,
    batch_size: int,
    runs: list[tuple[list[int], Any]],
) -> None:
    """Each run is interrupted anywhere, cut off anywhere, and leaves anything undone; the last one gets to the end."""
    programme = Programme(segments, most_rows=most_rows, scenario_types=ONLY_NEW if only_new else TYPES)
    user_ids = None if chosen is None else tuple(mentor_ids(*sorted(chosen)))
    enumeration = Enumeration(user_ids=user_ids)
    left = await programme.ids(enumeration)
    assert left == sorted(set(left))

    for number, (interrupted, chance) in enumerate(runs):
        run_id = f"run {number}"
        run = await programme.carry_out(run_id, enumeration, interrupted, batch_size=batch_size)
        read = [mentor.user_id for batch in run.batches for mentor in batch]
        assert read == left[: len(read)]
        run.undone = {user_id for user_id in read if chance.random() < 0.5}
        left = [user_id for user_id in left if user_id not in read or user_id in run.undone]
        enumeration = Enumeration(is_retry=True, retry_of=run_id)

    last = await programme.carry_out("last", enumeration, [1] * 50 + [TO_THE_END], batch_size=batch_size)
    assert last.enumeration.done
    assert [mentor.user_id for batch in last.batches for mentor in batch] == left
    assert all(batch == sorted(batch) for batch in last.batches)
