"""Pairs that the engine is not to be asked about: skipped with their reason, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.evaluation_batch import BatchResult, run_evaluation_batch
from shared.errors import EngineRejectedError, EngineUnavailableError
from shared.evaluations import MENTOR_NOT_ACTIVE, SCENARIO_NOT_APPLICABLE, EvaluationResult, MentorScenarios
from tests.unit.clock import ManualClock
from tests.unit.functions.pretend_engine import PretendEngine, make_batch, make_users, truth

REASONS = (None, MENTOR_NOT_ACTIVE, SCENARIO_NOT_APPLICABLE)


async def run(
    engine: PretendEngine, users: Sequence[MentorScenarios], *, deliveries: int = 1, seconds: float = 100_000
) -> list[EvaluationResult]:
    evaluated = await evaluate(engine, users, deliveries=deliveries, seconds=seconds)
    assert evaluated.rest == ()
    return evaluated.results


async def evaluate(
    engine: PretendEngine, users: Sequence[MentorScenarios], *, deliveries: int = 1, seconds: float = 100_000
) -> BatchResult:
    return await run_evaluation_batch(
        make_batch(users, deliveries=deliveries),
        engine=engine.client(),
        budget=engine.budget(seconds),
        users_per_call=3,
        max_deliveries=5,
    )


def skipped(users: Sequence[MentorScenarios], reason: str = MENTOR_NOT_ACTIVE) -> list[MentorScenarios]:
    return [user._replace(skip_reason=reason) for user in users]


def assert_skipped(results: Sequence[EvaluationResult], users: Sequence[MentorScenarios]) -> None:
    """These are all, in their order, and nobody was asked about them."""
    assert list(results) == [
        EvaluationResult(user.user_id, scenario_type, "skipped", 0, user.skip_reason)
        for user in users
        for scenario_type in user.scenario_types
    ]


@given(st.lists(st.sampled_from(REASONS), max_size=12))
async def test_exactly_the_pairs_without_a_reason_reach_the_engine(reasons: list[str | None]) -> None:
    engine = PretendEngine(ManualClock())
    users = [user._replace(skip_reason=reason) for user, reason in zip(make_users(12), reasons, strict=False)]

    results = await run(engine, users)

    asked = {pair for call in engine.calls for pair in call.pairs}
    assert asked == {(user.user_id, t) for user in users if user.skip_reason is None for t in user.scenario_types}
    assert [(result.user_id, result.scenario_type) for result in results] == [
        (user.user_id, scenario_type) for user in users for scenario_type in user.scenario_types
    ]
    reason_of = {user.user_id: user.skip_reason for user in users}
    for result in results:
        reason = reason_of[result.user_id]
        if reason is None:
            assert result.outcome == truth(result.user_id, result.scenario_type)
        else:
            assert (result.outcome, result.error_code, result.attempts) == ("skipped", reason, 0)


async def test_one_mentor_may_have_pairs_of_both_kinds(clock: ManualClock) -> None:
    users = [MentorScenarios("anna", ("a",)), MentorScenarios("anna", ("b", "c"), SCENARIO_NOT_APPLICABLE)]
    results = await run(PretendEngine(clock), users)
    assert [(result.scenario_type, result.outcome) for result in results] == [
        ("a", truth("anna", "a")),
        ("b", "skipped"),
        ("c", "skipped"),
    ]


@pytest.mark.parametrize("status", [401, 429, 500, 503])
@pytest.mark.parametrize("deliveries", [1, 3, 5])
async def test_where_all_are_skipped_the_engine_may_be_down(clock: ManualClock, status: int, deliveries: int) -> None:
    engine = PretendEngine(clock, trouble=lambda _: httpx.Response(status))
    users = skipped(make_users(7))
    assert_skipped(await run(engine, users, deliveries=deliveries), users)
    assert engine.calls == []


async def test_where_all_are_skipped_no_time_is_needed(clock: ManualClock) -> None:
    users = skipped(make_users(7))
    assert_skipped(await run(PretendEngine(clock), users, seconds=0), users)


@pytest.mark.parametrize("deliveries", [6, 100])
async def test_a_batch_that_was_delivered_too_often_loses_only_those_who_were_to_be_asked(
    clock: ManualClock, deliveries: int
) -> None:
    skips, asks = skipped(make_users(4)[:2]), make_users(4)[2:]
    results = await run(PretendEngine(clock), [*skips, *asks], deliveries=deliveries)
    assert_skipped(results[:4], skips)
    assert {(result.outcome, result.error_code) for result in results[4:]} == {("failed", "worker_lost")}


@pytest.mark.parametrize(
    ("status", "expected"), [(401, EngineRejectedError), (503, EngineUnavailableError), (500, EngineUnavailableError)]
)
async def test_beside_somebody_who_is_to_be_asked_the_batch_waits_for_the_engine(
    clock: ManualClock, status: int, expected: type[Exception]
) -> None:
    """What is cut off is what the time did not suffice for; an engine that is away takes none."""
    users = [*skipped(make_users(4)[:3]), make_users(4)[3]]
    with pytest.raises(expected):
        await run(PretendEngine(clock, trouble=lambda _: httpx.Response(status)), users)


async def test_without_time_those_who_are_skipped_are_through_and_the_others_are_the_rest(clock: ManualClock) -> None:
    skips, (asked,) = skipped(make_users(2)[:1]), make_users(2)[1:]
    evaluated = await evaluate(PretendEngine(clock), [*skips, asked], seconds=0)
    assert_skipped(evaluated.results, skips)
    assert evaluated.rest == (asked.user_id,)


async def test_who_has_pairs_of_both_kinds_is_in_the_rest_with_both(clock: ManualClock) -> None:
    anna = [MentorScenarios("anna", ("a",)), MentorScenarios("anna", ("b",), SCENARIO_NOT_APPLICABLE)]
    bert = MentorScenarios("bert", ("a",), MENTOR_NOT_ACTIVE)
    evaluated = await evaluate(PretendEngine(clock), [*anna, bert], seconds=0)
    assert_skipped(evaluated.results, [bert])
    assert evaluated.rest == ("anna",)


@pytest.mark.parametrize("status", [422, 500])
async def test_a_poison_user_beside_skipped_ones_is_found(clock: ManualClock, status: int) -> None:
    users = [user._replace(skip_reason=MENTOR_NOT_ACTIVE if n % 2 else None) for n, user in enumerate(make_users(20))]
    results = await run(PretendEngine(clock, poison={"user-004": status}), users)
    by_cause = {result.user_id for result in results if result.error_code == f"engine_http_{status}"}
    assert by_cause == {"user-004"}
    assert sum(result.outcome == "skipped" for result in results) == 20
