"""The mentors of a run: each once, in one batch, wherever reading is interrupted and continued."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.runs.enumeration import enumerate_mentors
from functions.runs.mentor_selection import PAGE_SIZE, REMAINING, MentorSelector, SelectionPage
from functions.runs.peer_mentors import ActivePeerMentor, fetch_active_among, fetch_active_peer_mentors
from shared.database import ANSWER_TOO_LARGE
from shared.deadline import Deadline
from shared.errors import DatabaseRefusedError, MentorsViewError
from shared.evaluations import INVALID_SEGMENTS, MENTOR_NOT_ACTIVE, MentorScenarios, from_pairs
from shared.slice_repository import Enumeration, OpenInvocation
from tests.unit.clock import ManualClock
from tests.unit.fake_database import FakeDatabase
from tests.unit.functions.fake_engine import FakeEngine
from tests.unit.functions.fake_sql import RUN_ID, SLOT, FakeSql, make_services, mentor_id, mentor_row
from tests.unit.log_lines import LogLines

BY_SEGMENT = [{"type": "for_new", "segments": ["new"]}, {"type": "for_old", "segments": ["old"]}]
TYPES = json.dumps([{"type": "for_all"}, *BY_SEGMENT, {"type": "off", "enabled": False}])
NEW_OR_OLD = json.dumps(BY_SEGMENT)
ONLY_NEW = json.dumps(BY_SEGMENT[:1])
SOURCE, RETRY = "8a4e3f0c-5d0e-4d3e-9d53-0f5e0c4f6a11", "9b5f401d-6e1f-4e4f-8e64-106f1d507b22"
OF_SOURCE: dict[str, Any] = {"is_retry": True, "retry_of": SOURCE}


class Programme:
    """The active mentors and what earlier runs left open, as the database knows them.

    Args:
        segments: of each mentor, in the order of the ids; None for an inactive one.
        most_rows: the Data API's own limit, and about how many of a run's open mentors an answer holds.
        accepts: whether each page is taken; each takes ten seconds.
    """

    def __init__(
        self,
        segments: Sequence[Sequence[str | None] | None],
        *,
        most_rows: int = 1000,
        scenario_types: str = TYPES,
        without_user_id: int = 0,
        batch_size: int = 3,
        accepts: Sequence[bool] = (),
    ) -> None:
        rows = [{"user_id": mentor_id(n), "segments": each} for n, each in enumerate(segments) if each is not None]
        self._active = {row["user_id"] for row in rows}
        self._most_rows = most_rows
        self._accepts = list(accepts)
        self._clock = ManualClock()
        self.runs: dict[str, tuple[Sequence[list[MentorScenarios]], dict[str, Any]]] = {}
        self.sql = FakeSql([{"user_id": None, "segments": []}] * without_user_id + rows, most_rows=most_rows)
        self.sql.answers |= {"scheduler_unfinished": self._left_open, "scheduler_enqueue": self._enqueue}
        settings = {"SCENARIO_TYPES": scenario_types, "EVALUATION_BATCH_SIZE": str(batch_size)}
        self._services = make_services(self.sql.database, FakeEngine(self._clock), **settings)
        self.selector = MentorSelector(self._services.database)
        self._scenarios = self._services.table.scenarios
        self.queued: list[None] = []

    def _enqueue(self, _: object) -> dict[str, bool]:
        self._clock.advance(10)
        return {"accepted": self._accepts.pop(0) if self._accepts else True}

    async def enumerate(self, *, cursor: str | None = None, seconds: float = 1000) -> None:
        await enumerate_mentors(
            self._services,
            OpenInvocation(RUN_ID, SLOT, "schedule", self.enumeration(cursor=cursor)),
            deadline=Deadline(seconds, self._clock),
            on_enqueued=lambda: self.queued.append(None),
        )

    def enqueued(self, member: str) -> list[Any]:
        """This argument of each page that was to be queued."""
        return [page[member] for page in self.sql.all_arguments_of("scheduler_enqueue")]

    def batches(self) -> list[list[tuple[MentorScenarios, ...]]]:
        """The batches of each page."""
        return [[from_pairs(batch) for batch in page] for page in self.enqueued("batches")]

    def mentors(self) -> list[MentorScenarios]:
        return [mentor for page in self.batches() for batch in page for mentor in batch]

    def steps(self) -> list[tuple[str | None, str | None, bool]]:
        return list(zip(*map(self.enqueued, ("expected_cursor", "next_cursor", "done")), strict=True))

    def _left_open(self, arguments: dict[str, Any]) -> dict[str, Any] | None:
        if arguments["invocation_id"] not in self.runs:
            return None
        batches, row = self.runs[arguments["invocation_id"]]
        mentors: list[MentorScenarios] = []
        for batch in batches:
            if batch[0].user_id > (arguments["after_user_id"] or "") and len(mentors) < self._most_rows:
                mentors += batch
        found = [
            {"user_id": user_id, "scenario_types": types, "unknown_types": unknown}
            | {"active": user_id in self._active, "organizations": []}
            for user_id, types, _, unknown in mentors
        ]
        return {"mentors": found, "last_user_id": mentors[-1].user_id if mentors else None, "remaining": row}

    def has_run(self, run_id: str, *left_open: list[MentorScenarios], done: bool = True, **members: Any) -> None:
        """A run that left these batches open; it read all mentors unless it is not `done`."""
        row: dict[str, Any] = {"trigger": "manual", "retry_of": None, "request": {}, "enumeration_cursor": None}
        self.runs[run_id] = left_open, row | {"enumeration_done": done} | members

    async def pages(self, **enumeration: Any) -> list[SelectionPage]:
        return [page async for page in self.selector.pages(self.enumeration(**enumeration))]

    def enumeration(self, **members: Any) -> Enumeration:
        return Enumeration(scenarios=self._scenarios, **members)


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
    pages = programme.selector.pages(programme.enumeration(**OF_SOURCE))
    assert (await anext(pages)).mentors == pairs(2)
    programme.runs.clear()
    assert await anext(pages, None) is None


# Pages become batches


@given(st.lists(st.sampled_from(["new", "old", "odd"]), max_size=30), st.integers(1, 10), st.integers(1, 10))
async def test_each_mentor_is_in_one_batch_or_counted(segments: list[str], batch_size: int, most_rows: int) -> None:
    programme = Programme(
        [[each] for each in segments], scenario_types=NEW_OR_OLD, most_rows=most_rows, batch_size=batch_size
    )
    await programme.enumerate()
    assert sorted(programme.mentors()) == [
        MentorScenarios(mentor_id(n), (f"for_{segment}",)) for n, segment in enumerate(segments) if segment != "odd"
    ]
    skipped = sum(reasons.get("no_scenario_applies", 0) for reasons in programme.enqueued("skip_reasons"))
    assert skipped == segments.count("odd")
    for page in programme.batches():
        sizes = [len(batch) for batch in page]
        assert all(size == batch_size for size in sizes[:-1])
        assert all(0 < size <= batch_size for size in sizes[-1:])
    # A mentor's batch is found by its first and its last id.
    ranges = [(min(batch).user_id, max(batch).user_id) for page in programme.batches() for batch in page]
    assert all(before[1] < after[0] for before, after in pairwise(ranges))


async def test_after_the_last_page_the_end_is_noted(log: LogLines) -> None:
    segments = [["new"], ["odd"], *[["new"]] * 4]
    programme = Programme(segments, most_rows=4, scenario_types=NEW_OR_OLD)
    await programme.enumerate()
    third, last = mentor_id(3), mentor_id(5)
    assert programme.steps() == [(None, third, False), (third, last, False), (last, None, True)]
    assert len(programme.queued) == 2
    (line,) = log.of("mentors_enumerated")
    assert (line["invocation_id"], line["slot"], line["mentors"], line["batches"]) == (RUN_ID, SLOT, 6, 2)


async def test_unusable_rows_are_counted_once_and_named_in_one_line(log: LogLines) -> None:
    """The first slice ends with the last page and before the end is noted; the second finds nothing but the end."""
    segments = [[None] if n < 30 else ["new"] for n in range(32)]
    slices = first, second = [Programme(segments, most_rows=4, without_user_id=2) for _ in range(2)]
    await first.enumerate(seconds=75)
    await second.enumerate(cursor=first.enqueued("next_cursor")[-1])

    assert first.enqueued("skip_reasons") == [{"invalid_segments": 4}] * 7 + [{"invalid_segments": 2}]
    assert second.enqueued("skip_reasons") == [{"user_id_missing": 2}]
    skipped = [mentor for each in slices for mentor in each.mentors() if mentor.skip_reason is not None]
    assert skipped == pairs(*range(30), types=("for_all", "for_new", "for_old"), skip=INVALID_SEGMENTS)
    of_first, of_second = log.of("mentor_rows_unusable")
    assert (of_first["severity"], of_first["invalid_segments"], of_first["user_id_missing"]) == ("WARNING", 30, 0)
    assert of_first["sample_user_ids"] == mentor_ids(*range(10))
    assert [of_second[name] for name in ("invalid_segments", "user_id_missing", "sample_user_ids")] == [0, 2, []]


async def test_an_enumeration_continues_where_it_stands() -> None:
    first, second = [Programme([["new"]] * 9, most_rows=4) for _ in range(2)]
    await first.enumerate(seconds=15)
    assert first.steps() == [(None, mentor_id(3), False), (mentor_id(3), mentor_id(7), False)]
    await second.enumerate(cursor=mentor_id(7))
    assert [mentor.user_id for mentor in second.mentors()] == [mentor_id(8)]
    assert second.steps() == [(mentor_id(7), mentor_id(8), False), (mentor_id(8), None, True)]


@pytest.mark.parametrize(("mentors", "accepts", "queued"), [(9, [True, False], 1), (0, [False], 0)])
async def test_where_another_worker_was_faster_this_one_stops(
    log: LogLines, mentors: int, accepts: list[bool], queued: int
) -> None:
    programme = Programme([["new"]] * mentors, most_rows=4, accepts=accepts)
    await programme.enumerate()
    assert (len(programme.steps()), len(programme.queued)) == (len(accepts), queued)
    assert log.of("mentors_enumerated") == []


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
