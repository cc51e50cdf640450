"""Mentors by what a run has frozen: which types are due, and in a retry which are switched off since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.runs.enumeration import enumerate_mentors
from functions.runs.mentor_selection import MentorSelector
from shared.deadline import Deadline
from shared.errors import OUTCOME_UNKNOWN
from shared.evaluations import INVALID_SEGMENTS, MENTOR_NOT_ACTIVE, SCENARIO_DISABLED, MentorScenarios, from_pairs
from shared.scenario_config import Scenarios
from shared.scenario_types import ScenarioType
from shared.slice_repository import Enumeration, OpenInvocation
from tests.unit.clock import ManualClock
from tests.unit.functions.fake_engine import FakeEngine
from tests.unit.functions.fake_sql import RUN_ID, SLOT, FakeSql, make_services, mentor_id, mentor_row
from tests.unit.functions.fake_sql import config_row as row
from tests.unit.log_lines import captured_log

Row = dict[str, Any]
SOURCE, FIRST_RETRY = "8a4e3f0c-5d0e-4d3e-9d53-0f5e0c4f6a12", "9b5f401d-6e1f-4e4f-8e64-106f1d507b22"
TYPES = [ScenarioType(type=name) for name in ("all", "new", "weekly")]
# As it was when the source was opened: `new` for mentors with the segment `new`, and `weekly` not due.
FROZEN = Scenarios.resolve(TYPES, [row("new", segments=["new"])]).model_copy(
    update={"not_due": frozenset({("weekly", None)})}
)
# Since then: `new` is off, `all` is off in the north, and to whom types apply has changed.
SINCE = [row("new", enabled=False), row("all", "north", enabled=False), row("all", segments=["other"])]
SINCE += [row("weekly", schedule="0 6 * * *"), row("all", "south", segments=["other"])]


def retry(*rows: Row, retry_of: str = SOURCE, include_unknown: bool = False) -> Enumeration:
    scenarios = Scenarios.resolve(TYPES, rows).model_copy(update={"source": FROZEN})
    return Enumeration(is_retry=True, retry_of=retry_of, scenarios=scenarios, include_unknown=include_unknown)


def left(
    number: int, *types: str, unknown: Sequence[str] = (), organizations: Sequence[str] = (), active: bool = True
) -> Row:
    """A mentor with pairs that a run left unfinished."""
    row = {"user_id": mentor_id(number), "scenario_types": types, "unknown_types": unknown}
    return row | {"active": active, "organizations": organizations}


def runs(**unfinished: tuple[list[Row], Row]) -> Any:
    """Answers for each run what it left unfinished, in one page, and its own enumeration."""

    def answer(arguments: Row) -> Row:
        mentors, remaining = unfinished[arguments["invocation_id"]]
        page = [each for each in mentors if each["user_id"] > (arguments["after_user_id"] or "")]
        return {"mentors": page, "last_user_id": page[-1]["user_id"] if page else None, "remaining": remaining}

    return answer


def stopped(cursor: str | None = None, *, done: bool = False, **members: Any) -> Row:
    """A run's own enumeration, by default cut off."""
    usual: Row = {"trigger": "schedule", "retry_of": None, "request": {}}
    return usual | {"enumeration_cursor": cursor, "enumeration_done": done} | members


def pair(number: int, *types: str, skip: str | None = SCENARIO_DISABLED) -> MentorScenarios:
    return MentorScenarios(mentor_id(number), types, skip)


async def selected(sql: FakeSql, enumeration: Enumeration) -> list[MentorScenarios]:
    return [mentor async for page in MentorSelector(sql.database).pages(enumeration) for mentor in page.mentors]


@pytest.mark.parametrize(
    ("not_due", "types", "unusable"), [((), ("all", "new"), 1), (("all",), ("new",), 1), (("all", "new"), (), 0)]
)
async def test_types_that_are_not_due_are_nowhere(
    not_due: Sequence[str], types: tuple[str, ...], unusable: int
) -> None:
    """Nor is a row unusable, or a mentor skipped for it, where no type is due: that is no fault of the view."""
    scenarios = FROZEN.model_copy(update={"not_due": frozenset((name, None) for name in (*not_due, "weekly"))})
    sql = FakeSql([mentor_row(0, "new"), mentor_row(1) | {"segments": [None]}])
    (page,) = [page async for page in MentorSelector(sql.database).pages(Enumeration(scenarios=scenarios))]
    expected = [pair(0, *types, skip=None), pair(1, *types, skip=INVALID_SEGMENTS)] if types else []
    assert page.mentors == expected
    assert (page.skip_reasons["no_scenario_applies"], page.skip_reasons[INVALID_SEGMENTS]) == (
        2 - len(expected),
        unusable,
    )


async def test_types_switched_off_since_are_skipped() -> None:
    """For all, or in the mentor's organization; whatever else has changed is not looked at."""
    sql = FakeSql()
    unfinished = [
        left(0, "all", "new"),
        left(1, "all", "new", organizations=["north"]),
        left(2, "new", "all", active=False),
    ]
    unfinished += [left(3, "all", "weekly", organizations=["north"]), left(4, "weekly"), left(5, "gone")]
    sql.answers["scheduler_unfinished"] = runs(**{SOURCE: (unfinished, stopped(done=True))})
    assert await selected(sql, retry(*SINCE)) == [
        *(pair(0, "all", skip=None), pair(0, "new")),
        pair(1, "all", "new"),
        *(pair(2, "all", skip=MENTOR_NOT_ACTIVE), pair(2, "new")),
        *(pair(3, "weekly", skip=None), pair(3, "all")),
        pair(4, "weekly", skip=None),
        pair(5, "gone"),
    ]
    assert {tuple(call["organizations"]) for call in sql.all_arguments_of("scheduler_unfinished")} == {("north",)}


async def test_unknown_outcomes_are_skipped_until_they_are_requested() -> None:
    """Also one whose type is off: switched on again it must not be sent without a request."""
    sql = FakeSql()
    unfinished = [left(1, "all", "new", "weekly", unknown=["new", "weekly"]), left(2, "weekly", unknown=["weekly"])]
    unfinished.append(left(3, "all", unknown=["all"], active=False))
    unfinished.append(left(4, "all", "weekly", unknown=["all"], organizations=["north"]))
    sql.answers["scheduler_unfinished"] = runs(**{SOURCE: (unfinished, stopped(done=True))})

    def unknown(number: int, *types: str, skip: str | None = OUTCOME_UNKNOWN) -> MentorScenarios:
        return pair(number, *types, skip=skip)._replace(unknown_types=types)

    in_the_north = [pair(4, "weekly", skip=None), unknown(4, "all")]
    assert await selected(sql, retry(*SINCE)) == [
        *(pair(1, "all", skip=None), unknown(1, "new", "weekly")),
        *(unknown(2, "weekly"), unknown(3, "all"), *in_the_north),
    ]
    assert await selected(sql, retry(*SINCE, include_unknown=True)) == [
        *(pair(1, "all", "weekly", skip=None)._replace(unknown_types=("weekly",)), unknown(1, "new")),
        *(unknown(2, "weekly", skip=None), unknown(3, "all", skip=MENTOR_NOT_ACTIVE), *in_the_north),
    ]


async def test_mentors_the_source_did_not_read_are_selected_as_it_froze() -> None:
    """Also where the source is a retry that was cut off itself, and had requested unknown outcomes."""
    segments = [["new"], ["new"], ["new"], [], ["org:north"], ["org:north", "new"], ["org:south", "other"]]
    sql = FakeSql([mentor_row(number, *each) for number, each in enumerate(segments)])
    of_retry = stopped(mentor_id(0), trigger="retry", retry_of=SOURCE, request={"include_unknown": True})
    of_source = [left(1, "all", "new", unknown=["new"])]
    sql.answers["scheduler_unfinished"] = runs(
        **{SOURCE: (of_source, stopped(mentor_id(1))), FIRST_RETRY: ([left(0, "new")], of_retry)}
    )
    rest = [
        *(pair(1, "all", skip=None), pair(1, "new", skip=OUTCOME_UNKNOWN)._replace(unknown_types=("new",))),
        *(pair(2, "all", skip=None), pair(2, "new")),
        pair(3, "all", skip=None),
        pair(4, "all"),
        pair(5, "all", "new"),
        pair(6, "all", skip=None),
    ]
    assert await selected(sql, retry(*SINCE)) == rest
    assert await selected(sql, retry(*SINCE, retry_of=FIRST_RETRY)) == [pair(0, "new"), *rest]


@given(st.lists(st.sampled_from(["all", "all new", "new", "all north"]), min_size=1, max_size=12), st.integers(1, 5))
async def test_a_mentor_partly_switched_off_is_in_one_batch(kinds: list[str], batch_size: int) -> None:
    """With the two parts of its pairs, and counted once."""
    sql, clock = FakeSql(), ManualClock()
    unfinished = [
        left(number, *kind.replace("north", "weekly").split(), organizations=["north"] * ("north" in kind))
        for number, kind in enumerate(kinds)
    ]
    sql.answers["scheduler_unfinished"] = runs(**{SOURCE: (unfinished, stopped(done=True))})
    services = make_services(sql.database, FakeEngine(clock), EVALUATION_BATCH_SIZE=str(batch_size))
    opened = OpenInvocation(RUN_ID, SLOT, "retry", retry(*SINCE))
    with captured_log() as log:
        await enumerate_mentors(services, opened, deadline=Deadline(1000, clock), on_enqueued=lambda: None)

    batches = [from_pairs(each) for call in sql.all_arguments_of("scheduler_enqueue") for each in call["batches"]]
    assert sum(len({mentor.user_id for mentor in batch}) for batch in batches) == len(kinds)
    assert all(len(batch) >= batch_size for batch in batches[:-1])
    assert all(0 < len(batch) <= batch_size + 1 for batch in batches)
    frozen = {(mentor.user_id, name): mentor.skip_reason for batch in batches for mentor in batch for name in mentor[1]}
    assert frozen == {
        (mentor["user_id"], name): SCENARIO_DISABLED
        if name == "new" or (name == "all" and mentor["organizations"])
        else None
        for mentor in unfinished
        for name in mentor["scenario_types"]
    }
    (line,) = log.of("mentors_enumerated")
    assert (line["mentors"], line["batches"]) == (len(kinds), len(batches))
