"""The mentors of a run: each once, wherever its reading is interrupted and taken up again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from functions.runs.mentor_selection import PAGE_SIZE, REMAINING, MentorSelector, SelectionPage
from functions.runs.peer_mentors import ActivePeerMentor, fetch_active_among, fetch_active_peer_mentors
from shared.database import ANSWER_TOO_LARGE
from shared.errors import DatabaseRefusedError, MentorsViewError
from shared.evaluations import INVALID_SEGMENTS, MENTOR_NOT_ACTIVE, MentorScenarios
from shared.slice_repository import Enumeration
from tests.unit.environment import make_config
from tests.unit.fake_database import FakeDatabase
from tests.unit.functions.fake_sql import FakeSql, mentor_id, mentor_row

BY_SEGMENT = [{"type": "for_new", "segments": ["new"]}, {"type": "for_old", "segments": ["old"]}]
TYPES = json.dumps([{"type": "for_all"}, *BY_SEGMENT, {"type": "off", "enabled": False}])
ONLY_NEW = json.dumps(BY_SEGMENT[:1])
SOURCE, RETRY = "8a4e3f0c-5d0e-4d3e-9d53-0f5e0c4f6a11", "9b5f401d-6e1f-4e4f-8e64-106f1d507b22"
OF_SOURCE: dict[str, Any] = {"is_retry": True, "retry_of": SOURCE}


class Programme:
    """The active mentors and what earlier runs left open, as the database knows them.

    Args:
        segments: of each mentor, in the order of the ids; None for an inactive one.
        most_rows: the Data API's own limit, and about how many of a run's open mentors an answer holds.
    """

    def __init__(
        self, segments: Sequence[Sequence[str] | None], *, most_rows: int = 1000, scenario_types: str = TYPES
    ) -> None:
        rows = [mentor_row(n, *each) for n, each in enumerate(segments) if each is not None]
        self._active = {row["user_id"] for row in rows}
        self._most_rows = most_rows
        self.runs: dict[str, tuple[Sequence[list[MentorScenarios]], dict[str, Any]]] = {}
        self.sql = FakeSql(rows, most_rows=most_rows)
        self.sql.answers["scheduler_unfinished"] = self._left_open
        self.selector = MentorSelector(self.sql.database, make_config(SCENARIO_TYPES=scenario_types))

    def _left_open(self, arguments: dict[str, Any]) -> dict[str, Any] | None:
        if arguments["invocation_id"] not in self.runs:
            return None
        batches, row = self.runs[arguments["invocation_id"]]
        mentors: list[MentorScenarios] = []
        for batch in batches:
            if batch[0].user_id > (arguments["after_user_id"] or "") and len(mentors) < self._most_rows:
                mentors += batch
        found = [
            {"user_id": user_id, "scenario_types": types, "active": user_id in self._active}
            for user_id, types, _ in mentors
        ]
        return {"mentors": found, "last_user_id": mentors[-1].user_id if mentors else None, "remaining": row}

    def has_run(self, run_id: str, *left_open: list[MentorScenarios], done: bool = True, **members: Any) -> None:
        """A run that left these batches open; it read all mentors unless it is not `done`."""
        row: dict[str, Any] = {"trigger": "manual", "retry_of": None, "request": {}, "enumeration_cursor": None}
        self.runs[run_id] = left_open, row | {"enumeration_done": done} | members

    async def pages(self, **enumeration: Any) -> list[SelectionPage]:
        return [page async for page in self.selector.pages(Enumeration(**enumeration))]


def mentors_in(pages: Sequence[SelectionPage]) -> list[MentorScenarios]:
    return [mentor for page in pages for mentor in page.mentors]


def pairs(*numbers: int, types: tuple[str, ...] = ("for_all",), skip: str | None = None) -> list[MentorScenarios]:
    return [MentorScenarios(mentor_id(n), types, skip) for n in numbers]


def mentor_ids(*numbers: int) -> list[str]:
    return [mentor_id(n) for n in numbers]


async def test_each_mentor_comes_with_the_types_that_apply() -> None:
    """In the order of the configuration; of chosen types only those that apply."""
    programme = Programme([["new"], ["old", "new"], [], ["old"]])
    of_each = [("for_all", "for_new"), ("for_all", "for_new", "for_old"), ("for_all",), ("for_all", "for_old")]
    expected = [MentorScenarios(mentor_id(n), types) for n, types in enumerate(of_each)]
    assert await programme.pages() == [SelectionPage(expected, Counter(), mentor_id(3))]
    (page,) = await programme.pages(scenario_types=frozenset({"for_new", "off", "unknown"}))
    assert page == SelectionPage(pairs(0, 1, types=("for_new",)), Counter(no_scenario_applies=2), mentor_id(3))


async def test_a_page_without_applicable_types_moves_on() -> None:
    programme = Programme([["old"], ["old"], ["new"]], most_rows=2, scenario_types=ONLY_NEW)
    assert await programme.pages() == [
        SelectionPage([], Counter(no_scenario_applies=2), mentor_id(1)),
        SelectionPage(pairs(2, types=("for_new",)), Counter(), mentor_id(2)),
    ]


# Chosen mentors


@pytest.mark.parametrize(
    ("chosen", "types"), [(None, ("for_all", "for_new", "for_old")), (frozenset({"for_old", "off"}), ("for_old",))]
)
async def test_a_chosen_inactive_mentor_is_skipped(chosen: frozenset[str] | None, types: tuple[str, ...]) -> None:
    programme = Programme([["new", "old"], None, ["old", "new"], ["new"]])
    (page,) = await programme.pages(user_ids=tuple(mentor_ids(0, 1, 2, 7)), scenario_types=chosen)
    inactive = pairs(1, 7, types=types, skip=MENTOR_NOT_ACTIVE)
    assert page == SelectionPage(sorted(pairs(0, 2, types=types) + inactive), Counter(), mentor_id(7))
    assert programme.sql.database.pages_read == 0, "no others are read"


@pytest.mark.parametrize("count", [1, PAGE_SIZE, 2 * PAGE_SIZE + 500])
async def test_however_many_are_chosen_each_comes_once(count: int) -> None:
    """Every third is not active, and to every fifth nothing applies."""
    segments = [None if n % 3 == 0 else ["old"] if n % 5 == 0 else ["new"] for n in range(count)]
    programme = Programme(segments, scenario_types=ONLY_NEW)
    chosen = tuple(mentor_ids(*range(count)))
    pages = await programme.pages(user_ids=chosen)
    applicable = mentor_ids(*(n for n, each in enumerate(segments) if each != ["old"]))
    assert [mentor.user_id for mentor in mentors_in(pages)] == applicable
    assert sum(page.skip_reasons["no_scenario_applies"] for page in pages) == count - len(applicable)
    assert all(
        len(call["user_ids"]) <= PAGE_SIZE for call in programme.sql.all_arguments_of("scheduler_active_mentors")
    )
    middle = len(applicable) // 2
    rest = await programme.pages(user_ids=chosen, cursor=applicable[middle])
    assert [mentor.user_id for mentor in mentors_in(rest)] == applicable[middle + 1 :]


# What another run left open


async def test_a_retry_reads_only_what_its_source_left_open() -> None:
    programme = Programme([["new"], None, *[["new"]] * 4], most_rows=2)
    gone = pairs(2, types=("for_new", "gone"))
    programme.has_run(SOURCE, pairs(0, 1), gone, pairs(5))
    inactive = pairs(1, skip=MENTOR_NOT_ACTIVE)
    assert await programme.pages(**OF_SOURCE) == [
        SelectionPage(pairs(0) + inactive, Counter(), mentor_id(1)),
        SelectionPage(gone + pairs(5), Counter(), mentor_id(5)),
    ]
    assert programme.sql.database.pages_read == 0


@pytest.mark.parametrize(
    ("cursor", "left"),
    [
        *((None, (0, 1, 2, 4, 5, 9)), (mentor_id(0), (1, 2, 4, 5, 9)), (mentor_id(2), (4, 5, 9))),
        *((REMAINING + mentor_id(4), (5, 9)), (REMAINING + mentor_id(9), ())),
    ],
)
async def test_a_retry_then_reads_what_its_source_did_not_reach(cursor: str | None, left: tuple[int, ...]) -> None:
    """As it was chosen for the source, and wherever the retry stands."""
    programme = Programme([["new"]] * 6, most_rows=1)
    request = {"user_ids": mentor_ids(0, 3, 4, 5, 9), "scenario_types": ["for_new"]}
    left_open = pairs(0), pairs(1), pairs(2)
    programme.has_run(SOURCE, *left_open, done=False, enumeration_cursor=mentor_id(3), request=request)
    unread = pairs(4, 5, types=("for_new",)) + pairs(9, types=("for_new",), skip=MENTOR_NOT_ACTIVE)
    pages = await programme.pages(cursor=cursor, **OF_SOURCE)
    assert mentors_in(pages) == [each for each in pairs(0, 1, 2) + unread if each.user_id in mentor_ids(*left)]
    assert not left or pages[-1].cursor == REMAINING + mentor_id(9)


async def test_a_retry_of_a_retry_reads_the_first_runs_remainder() -> None:
    programme = Programme([["new"]] * 6)
    programme.has_run(SOURCE, pairs(0), pairs(1), done=False, enumeration_cursor=mentor_id(2))
    of_source = {"trigger": "retry", "retry_of": SOURCE}
    programme.has_run(RETRY, pairs(0), done=False, enumeration_cursor=mentor_id(0), **of_source)
    pages = await programme.pages(is_retry=True, retry_of=RETRY)
    assert [mentor.user_id for mentor in mentors_in(pages)] == mentor_ids(0, 1, 3, 4, 5)
    assert [page.cursor for page in pages] == [mentor_id(0), REMAINING + mentor_id(1), 2 * REMAINING + mentor_id(5)]


@pytest.mark.parametrize("cursor", [None, mentor_id(1), REMAINING + mentor_id(4)])
async def test_a_source_that_was_pruned_ends_the_reading(cursor: str | None) -> None:
    programme = Programme([["new"]] * 6, most_rows=1)
    assert await programme.pages(cursor=cursor, **OF_SOURCE) == []
    assert await programme.pages(cursor=cursor, is_retry=True, retry_of=None) == []
    programme.has_run(SOURCE, pairs(2), pairs(3))
    pages = programme.selector.pages(Enumeration(**OF_SOURCE))
    assert (await anext(pages)).mentors == pairs(2)
    programme.runs.clear()
    assert await anext(pages, None) is None


# What the view may show, and answers that cannot be read


def mentor(number: int, *segments: str, **members: Any) -> ActivePeerMentor:
    return ActivePeerMentor(mentor_id(number), frozenset(segments), **members)


async def read(database: FakeDatabase) -> list[list[ActivePeerMentor]]:
    return [page.mentors async for page in fetch_active_peer_mentors(database)]


async def test_a_mentor_in_several_rows_comes_once_with_all_segments() -> None:
    twice = [mentor_row(2, "old"), mentor_row(2, "near", "old")]
    rows = [mentor_row(1, "new"), *twice, mentor_row(3) | {"segments": None}]
    database = FakeDatabase(rows, most_rows=2, functions={"scheduler_active_mentors": lambda _: twice})
    assert await read(database) == [[mentor(1, "new"), mentor(2, "old", "near")], [mentor(3)]]
    assert await fetch_active_among(database, mentor_ids(1, 2)) == [mentor(2, "old", "near")]


@pytest.mark.parametrize("odd", [[None], ["new", None], [["new"], ["old"]], "new", 5, {"new": "old"}])
async def test_unusable_segments_cost_their_row_only(odd: Any) -> None:
    unusable = [mentor_row(n) | {"segments": odd} for n in (2, 3)]
    (page,) = await read(FakeDatabase([mentor_row(1), unusable[0], mentor_row(2, "old"), unusable[1]]))
    without_segments = mentor(3, skip_reason=INVALID_SEGMENTS, unusable_rows=1)
    assert page == [mentor(1), mentor(2, "old", unusable_rows=1), without_segments]


@pytest.mark.parametrize(
    ("code", "is_of_the_view"), [("22P02", True), ("42501", False), ("PGRST202", False), ("invalid_api_key", False)]
)
async def test_a_view_that_raises_is_named_without_its_words(code: str, is_of_the_view: bool) -> None:
    def raises(_: object) -> None:
        raise DatabaseRefusedError(code, 'invalid input syntax for type uuid: "anna"')

    with pytest.raises(MentorsViewError if is_of_the_view else DatabaseRefusedError) as caught:
        await read(FakeDatabase(functions={"scheduler_active_mentors_page": raises}))
    if is_of_the_view:
        assert "SQLSTATE 22P02" in str(caught.value)
        assert "anna" not in str(caught.value)


async def test_an_answer_that_is_too_long_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer of more than 60 mentors can be read."""
    database, ids = FakeSql([mentor_row(n) for n in range(130)]).database, mentor_ids(*range(130))
    call = database.call

    async def call_if_short(function: str, **arguments: Any) -> Any:
        if arguments.get("rows", 0) > 60 or len(arguments.get("user_ids", ())) > 60:
            raise DatabaseRefusedError(ANSWER_TOO_LARGE, "too long")
        return await call(function, **arguments)

    monkeypatch.setattr(database, "call", call_if_short)
    assert [each.user_id for page in await read(database) for each in page] == ids
    assert sorted(each.user_id for each in await fetch_active_among(database, ids)) == ids
