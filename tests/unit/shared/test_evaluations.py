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
users = st.lists(st.builds(MentorScenarios, st.uuids().map(str), types, reasons))
results = st.lists(
    st.builds(EvaluationResult, st.text(max_size=3), st.sampled_from(["a", "b"]), st.sampled_from(get_args(Outcome)))
)


@given(users)
def test_every_user_comes_back_from_the_frozen_form(before: list[MentorScenarios]) -> None:
    pairs = to_pairs(before)
    assert Counter(from_pairs(pairs)) == Counter(before)
    assert to_pairs(from_pairs(pairs)) == pairs
    assert len(pairs) == len({user[1:] for user in before})


def test_users_keep_their_order_in_groups_with_reasons_to_skip() -> None:
    before = (
        *(MentorScenarios(user_id, ("a",)) for user_id in ("3", "1", "2")),
        MentorScenarios("1", ("b",), SCENARIO_NOT_APPLICABLE),
    )
    assert to_pairs(before) == [
        {"scenario_types": ["a"], "user_ids": ["3", "1", "2"]},
        {"scenario_types": ["b"], "user_ids": ["1"], "skip": SCENARIO_NOT_APPLICABLE},
    ]
    assert from_pairs(to_pairs(before)) == before


@given(results)
def test_counts_add_up_to_the_results_without_zeros(counted: list[EvaluationResult]) -> None:
    counts = GroupedResults(counted).scenario_counts()
    assert Counter((result.scenario_type, result.outcome) for result in counted) == {
        (scenario_type, outcome): n for scenario_type, outcomes in counts.items() for outcome, n in outcomes.items()
    }
    assert all(n > 0 for outcomes in counts.values() for n in outcomes.values())
    assert GroupedResults(counted).outcomes() == Counter(result.outcome for result in counted)


def test_every_result_is_recorded_but_those_not_triggered() -> None:
    recorded = [
        EvaluationResult("1", "a", "triggered", notification_id="n-1"),
        EvaluationResult("2", "a", "triggered"),
        EvaluationResult("3", "a", "triggered", attempts=2),
        EvaluationResult("4", "a", "failed", 2, "gone", "no device"),
        EvaluationResult("5", "a", "not_triggered"),
    ]
    names = ("scenario_type", "outcome", "attempts", "error_code", "error_message", "user_ids", "notification_ids")
    assert GroupedResults(recorded).stored_rows() == [
        dict(zip(names, values, strict=True))
        for values in (
            ("a", "triggered", 1, None, None, ["1", "2"], ["n-1", None]),
            ("a", "triggered", 2, None, None, ["3"], None),
            ("a", "failed", 2, "gone", "no device", ["4"], None),
        )
    ]
