"""Pairs survive being frozen, and counts add up to the pairs."""

from __future__ import annotations

from shared.evaluations import EvaluationResult, GroupedResults, MentorScenarios, from_pairs, to_pairs

RESULTS = (
    EvaluationResult("1", "a", "triggered", notification_id="n-1"),
    EvaluationResult("2", "a", "triggered"),
    EvaluationResult("3", "a", "triggered", attempts=2),
    EvaluationResult("4", "a", "failed", 2, "gone", "no device"),
    EvaluationResult("5", "a", "not_triggered"),
    EvaluationResult("1", "b", "triggered", 2, notification_id="n-2"),
)


def test_users_keep_their_order_in_groups_with_reasons_to_skip() -> None:
    before = (
        *(MentorScenarios(user_id, ("a",)) for user_id in ("3", "1", "2")),
        MentorScenarios("1", ("b",), "scenario_not_applicable"),
        MentorScenarios("4", ("b", "a")),
    )
    pairs = to_pairs(before)
    assert pairs == [
        {"scenario_types": ["a"], "user_ids": ["3", "1", "2"]},
        {"scenario_types": ["b"], "user_ids": ["1"], "skip": "scenario_not_applicable"},
        {"scenario_types": ["b", "a"], "user_ids": ["4"]},
    ]
    assert from_pairs(pairs) == before


def test_counts_add_up_to_the_results_without_zeros() -> None:
    grouped = GroupedResults(RESULTS)
    of_a = {"triggered": 3, "failed": 1, "not_triggered": 1}
    assert grouped.scenario_counts() == {"a": of_a, "b": {"triggered": 1}}
    assert grouped.outcomes() == {"triggered": 4, "failed": 1, "not_triggered": 1}


def test_every_result_is_recorded_but_those_not_triggered() -> None:
    names = ("scenario_type", "outcome", "attempts", "error_code", "error_message", "user_ids", "notification_ids")
    assert GroupedResults(RESULTS).stored_rows() == [
        dict(zip(names, values, strict=True))
        for values in (
            ("a", "triggered", 1, None, None, ["1", "2"], ["n-1", None]),
            ("a", "triggered", 2, None, None, ["3"], None),
            ("a", "failed", 2, "gone", "no device", ["4"], None),
            ("b", "triggered", 2, None, None, ["1"], ["n-2"]),
        )
    ]
