"""Pairs survive being frozen, and counts add up to the pairs."""

from __future__ import annotations

from collections import Counter
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from shared.evaluations import (
    MENTOR_NOT_ACTIVE,
    SCENARIO_NOT_APPLICABLE,
    EvaluationResult,
    GroupedResults,
    MentorScenarios,
    Outcome,
    from_pairs,
    to_pairs,
)

types = st.lists(st.sampled_from(["a", "b", "c"]), unique=True).map(tuple)
reasons = st.none() | st.sampled_from([MENTOR_NOT_ACTIVE, SCENARIO_NOT_APPLICABLE])
users = st.lists(st.builds(MentorScenarios, st.uuids().map(str), types, reasons), unique_by=lambda user: user.user_id)
results = st.lists(
    st.builds(
        EvaluationResult,
        st.text(max_size=3),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(get_args(Outcome)),
    )
)


@given(users)
def test_every_user_comes_back_from_the_frozen_form_with_her_types_and_reason(before: list[MentorScenarios]) -> None:
    after = from_pairs(to_pairs(before))
    assert Counter(after) == Counter(before)


@given(users)
def test_freezing_what_came_back_changes_nothing_more(before: list[MentorScenarios]) -> None:
    pairs = to_pairs(before)
    assert to_pairs(from_pairs(pairs)) == pairs


@given(users)
def test_the_frozen_form_has_one_group_for_each_set_of_types_and_reason(before: list[MentorScenarios]) -> None:
    groups = [(tuple(group["scenario_types"]), group.get("skip")) for group in to_pairs(before)]
    assert len(groups) == len(set(groups)) == len({user[1:] for user in before})


def test_users_keep_their_order_within_a_group() -> None:
    before = [MentorScenarios(user_id, ("a",)) for user_id in ("3", "1", "2")]
    assert to_pairs(before) == [{"scenario_types": ["a"], "user_ids": ["3", "1", "2"]}]
    assert from_pairs(to_pairs(before)) == tuple(before)


def test_only_a_group_that_is_skipped_says_so() -> None:
    before = [MentorScenarios("1", ("a",)), MentorScenarios("2", ("a",), MENTOR_NOT_ACTIVE)]
    assert to_pairs(before) == [
        {"scenario_types": ["a"], "user_ids": ["1"]},
        {"scenario_types": ["a"], "user_ids": ["2"], "skip": MENTOR_NOT_ACTIVE},
    ]


def test_a_mentor_may_be_in_a_group_that_is_skipped_and_in_one_that_is_not() -> None:
    before = (MentorScenarios("1", ("a",)), MentorScenarios("1", ("b",), SCENARIO_NOT_APPLICABLE))
    assert from_pairs(to_pairs(before)) == before


@given(results)
def test_counts_add_up_to_the_results(counted: list[EvaluationResult]) -> None:
    counts = GroupedResults(counted).scenario_counts()
    assert sum(n for outcomes in counts.values() for n in outcomes.values()) == len(counted)
    assert Counter((result.scenario_type, result.outcome) for result in counted) == {
        (scenario_type, outcome): n for scenario_type, outcomes in counts.items() for outcome, n in outcomes.items()
    }


def test_what_did_not_happen_is_not_counted_as_zero() -> None:
    assert GroupedResults([EvaluationResult("u", "a", "triggered")]).scenario_counts() == {"a": {"triggered": 1}}
    assert GroupedResults([]).scenario_counts() == {}


@given(results)
def test_what_is_recorded_is_every_result_but_those_not_triggered(recorded: list[EvaluationResult]) -> None:
    rows = [
        (user_id, group["scenario_type"], group["outcome"], group["attempts"], group["error_code"], notification_id)
        for group in GroupedResults(recorded).notable()
        for user_id, notification_id in zip(
            group["user_ids"], group["notification_ids"] or [None] * len(group["user_ids"]), strict=True
        )
    ]
    assert Counter(rows) == Counter(
        (
            result.user_id,
            result.scenario_type,
            result.outcome,
            result.attempts,
            result.error_code,
            result.notification_id,
        )
        for result in recorded
        if result.outcome != "not_triggered"
    )
    assert GroupedResults(recorded).outcomes() == Counter(result.outcome for result in recorded)
