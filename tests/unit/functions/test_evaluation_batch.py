"""A user's failure costs only that user, an engine's failure fails no user, and no pair is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.runs.evaluation_batch import run_evaluation_batch
from functions.runs.failure_isolation import BUSY_ATTEMPTS, PROBES
from functions.runs.result_ledger import BatchResult
from shared.engine_client import EngineClient
from shared.errors import DeadlineExceededError, EngineAccessError, EngineUnavailableError
from shared.evaluations import MENTOR_NOT_ACTIVE, SCENARIO_NOT_APPLICABLE, EvaluationResult, MentorScenarios
from tests.unit.clock import ManualClock
from tests.unit.environment import make_config
from tests.unit.functions.fake_engine import ATTEMPTS, FakeEngine, Trouble, make_batch, make_users, truth

CONFIG = make_config()
TIME_OUT = 0
HUNDRED = make_users(100)
POISON = "user-037"
OTHERS = [user for user in HUNDRED if user.user_id != POISON]
BOTH_KINDS = [MentorScenarios("anna", ("a",)), MentorScenarios("anna", ("b", "c"), SCENARIO_NOT_APPLICABLE)]
SKIPPED = [user._replace(skip_reason=MENTOR_NOT_ACTIVE) for user in make_users(107)[100:]]
# Too short for any pause between two attempts.
NO_PAUSE = 1e-9


async def evaluate(
    engine: FakeEngine,
    users: Sequence[MentorScenarios] = HUNDRED,
    *,
    users_per_call: int = 100,
    types_per_call: int | None = None,
    deliveries: int = 1,
    seconds: float = 100_000,
    concurrency: int = 8,
    client: EngineClient | None = None,
    pace: float = 0,
    is_poison: bool = False,
) -> BatchResult:
    sizes = {"engine_users_per_call": users_per_call, "engine_types_per_call": types_per_call}
    deadline = engine.deadline(seconds)
    deadline.space_calls(pace)
    return await run_evaluation_batch(
        make_batch(users, deliveries=deliveries, is_poison=is_poison),
        engine=client or engine.client(concurrency=concurrency),
        config=CONFIG.model_copy(update=sizes),
        deadline=deadline,
    )


async def run(
    engine: FakeEngine, users: Sequence[MentorScenarios] = HUNDRED, **settings: Any
) -> list[EvaluationResult]:
    """The results of a batch that the time suffices for."""
    evaluated = await evaluate(engine, users, **settings)
    assert evaluated.remaining == ()
    return evaluated.results


def always(status: int, retry_after: str | None = None) -> Trouble:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return lambda _: httpx.Response(status, headers=headers)


def cause(status: int) -> str:
    return "engine_timeout" if status == TIME_OUT else f"engine_http_{status}"


def assert_only_these_fail(
    results: Sequence[EvaluationResult], users: Sequence[MentorScenarios], causes: Mapping[str, str]
) -> None:
    """Each pair has one result: the users of `causes` failed by them, all others have the engine's answer."""
    assert [(each.user_id, each.scenario_type) for each in results] == [
        (user.user_id, scenario_type) for user in users for scenario_type in user.scenario_types
    ]
    for result in results:
        pair = (result.user_id, result.scenario_type)
        if result.user_id in causes:
            assert (result.outcome, result.error_code) == ("failed", causes[result.user_id]), pair
        else:
            assert result.outcome == truth(*pair), pair
            assert result.error_code == ("no_device" if result.outcome == "failed" else None)
            assert result.notification_id == (f"n-{pair[0]}-{pair[1]}" if result.outcome == "triggered" else None)


def skips_of(users: Sequence[MentorScenarios]) -> list[EvaluationResult]:
    return [EvaluationResult(user, name, "skipped", 0, reason) for user, names, reason, _ in users for name in names]


reasons = st.sampled_from([None, None, MENTOR_NOT_ACTIVE, SCENARIO_NOT_APPLICABLE])


@given(st.lists(st.tuples(st.integers(0, 4), reasons), max_size=12), st.integers(1, 5), st.none() | st.integers(1, 5))
async def test_each_pair_without_a_reason_to_skip_is_asked_once(
    types_of_each: list[tuple[int, str | None]], users_per_call: int, types_per_call: int | None
) -> None:
    users = [
        MentorScenarios(f"user-{n:03}", tuple(f"type-{t}" for t in range(types)), reason)
        for n, (types, reason) in enumerate(types_of_each)
    ]
    users += BOTH_KINDS
    engine = FakeEngine(ManualClock())
    results = await run(engine, users, users_per_call=users_per_call, types_per_call=types_per_call)
    evaluated = [result for result in results if result.outcome != "skipped"]
    to_be_asked = [user for user in users if user.skip_reason is None]
    assert_only_these_fail(evaluated, to_be_asked, {})
    assert all(result.attempts == 1 for result in evaluated)
    skipped = [result for result in results if result.outcome == "skipped"]
    assert skipped == skips_of([user for user in users if user.skip_reason is not None])
    asked = sorted(pair for call in engine.calls for pair in call.pairs)
    assert asked == sorted((user.user_id, name) for user in to_be_asked for name in user.scenario_types)
    for call in engine.calls:
        assert len(set(call.users)) == len(call.users) <= users_per_call
        for item in call.body["evaluations"]:
            assert types_per_call is None or len(item["scenario_types"]) <= types_per_call


async def test_with_one_type_a_call_refusals_cost_one_pair(clock: ManualClock) -> None:
    users = make_users(4)
    again, refused = (users[1].user_id, "a"), (users[2].user_id, "b")

    def refuses(_: Sequence[str]) -> httpx.Response | None:
        return httpx.Response(422) if refused in engine.calls[-1].pairs else None

    engine = FakeEngine(clock, retryable={again: 1}, trouble=refuses)
    # One call at a time: the one that is judged is the last.
    results = await run(engine, users, types_per_call=1, concurrency=1)
    by_pair = {(result.user_id, result.scenario_type): result for result in results}
    assert len(by_pair) == len(results) == 8
    assert {pair for pair, result in by_pair.items() if result.error_code == "engine_http_422"} == {refused}
    assert (by_pair[again].attempts, by_pair[users[0].user_id, "a"].attempts) == (2, 1)


# Poison users

refused = st.dictionaries(st.integers(0, 29), st.sampled_from([400, 413, 422]), max_size=8)
# Fewer than the users that are tried before the engine is held to be down.
crashing = st.dictionaries(st.integers(0, 29), st.sampled_from([500, 502, TIME_OUT]), max_size=PROBES - 1)
poisons = st.builds(lambda *kinds: {**kinds[0], **kinds[1]}, refused, crashing)
groupings = st.lists(st.sampled_from([("a",), ("b",), ("a", "b"), ("c", "a", "b")]), min_size=30, max_size=30)


@given(poisons, groupings, st.integers(1, 31), st.integers(1, 4), st.integers(1, 9), st.integers(0, 1))
async def test_each_of_several_poison_users_fails_by_its_own_cause(
    poison_at: dict[int, int],
    types: list[tuple[str, ...]],
    users_per_call: int,
    deliveries: int,
    concurrency: int,
    pace: float,
) -> None:
    users = [MentorScenarios(f"user-{n:03}", own) for n, own in enumerate(types)]
    poison = {users[n].user_id: status for n, status in poison_at.items()}
    engine = FakeEngine(ManualClock(), poison=poison)
    calls = {"users_per_call": users_per_call, "deliveries": deliveries, "concurrency": concurrency, "pace": pace}
    results = await run(engine, users, **calls)
    assert_only_these_fail(results, users, {user: cause(status) for user, status in poison.items()})


async def test_bisection_isolates_a_poison_user_without_many_pauses(clock: ManualClock) -> None:
    halvings = 2 * math.ceil(math.log2(100))
    engine = FakeEngine(clock, poison={POISON: 422})
    results = await run(engine)
    assert len(engine.calls) <= 1 + halvings
    assert {each.attempts for each in results if each.user_id == POISON} == {len(engine.calls_with(POISON))}
    engine = FakeEngine(clock, poison={POISON: 500})
    assert_only_these_fail(await run(engine), HUNDRED, {POISON: cause(500)})
    # Where no other user was answered meanwhile the canary is asked, and this user once more.
    with_the_canary = 2
    assert len(engine.calls) <= ATTEMPTS + PROBES + halvings + ATTEMPTS + with_the_canary
    assert sum(call.users == (POISON,) for call in engine.calls) >= ATTEMPTS
    # The whole group's retries, and those of the user alone.
    assert len(clock.slept) <= 2 * (ATTEMPTS - 1)


@pytest.mark.parametrize(("status", "count"), [(500, 1), (503, 2), (TIME_OUT, 5)])
async def test_crashing_users_fail_while_the_canary_passes_dry(clock: ManualClock, status: int, count: int) -> None:
    """The canary is a user of an earlier batch; asked again, it must neither act nor spend a key."""
    poisoned = HUNDRED[50 : 50 + count]
    engine = FakeEngine(clock, poison={user.user_id: status for user in poisoned})
    client = engine.client()
    await run(engine, HUNDRED[:1], client=client)
    results = await run(engine, poisoned, client=client)
    assert_only_these_fail(results, poisoned, {user.user_id: cause(status) for user in poisoned})
    first, *again = engine.calls_with("user-000")
    assert (first.body["dry_run"], len(again) > 0) == (False, True)
    for call in again:
        assert call.body["dry_run"] is True
        assert call.body["evaluations"][0]["idempotency_key_prefix"] == "dry:invocation-1:user-000"


async def test_an_outage_during_a_users_last_attempts_fails_no_user(clock: ManualClock) -> None:
    refused = 0

    def away(asked: Sequence[str]) -> httpx.Response | None:
        nonlocal refused
        refused += tuple(asked) == (POISON,)
        return httpx.Response(500) if tuple(asked) == (POISON,) or refused > ATTEMPTS + 1 else None

    with pytest.raises(EngineUnavailableError):
        await run(FakeEngine(clock, trouble=away), users_per_call=1)
    with pytest.raises(EngineUnavailableError):  # or a user alone, without any canary
        await run(FakeEngine(clock, poison={POISON: 500}), [HUNDRED[37]])


@pytest.mark.parametrize(("status", "limits"), [(500, {"pace": 4}), (TIME_OUT, {"is_poison": True, "deliveries": 5})])
async def test_where_time_is_short_two_calls_show_an_outage(
    clock: ManualClock, status: int, limits: dict[str, Any]
) -> None:
    """Not even the last delivery fails a user then."""
    poison = {POISON: status}
    engine = FakeEngine(clock, poison=poison)
    client = engine.client()
    await run(engine, HUNDRED[:1], client=client)
    poison |= {user.user_id: status for user in HUNDRED}
    with pytest.raises(EngineUnavailableError):
        await run(engine, client=client, users_per_call=10, seconds=25, **limits)
    assert len(engine.calls) == 3


async def test_a_refusal_beside_a_crash_costs_only_its_user(clock: ManualClock) -> None:
    poison = {user.user_id: 422 for user in HUNDRED} | {POISON: 500}
    results = await run(FakeEngine(clock, poison=poison), users_per_call=1)
    assert_only_these_fail(results, HUNDRED, {user_id: cause(status) for user_id, status in poison.items()})
    failures = [httpx.Response(500)]
    engine = FakeEngine(clock, poison={POISON: 422}, trouble=lambda _: failures.pop() if failures else None)
    assert_only_these_fail(await run(engine), HUNDRED, {POISON: cause(422)})


# Answers that are not final


@pytest.mark.parametrize(
    ("kind", "times", "code"),
    [
        *(("retryable", 2, None), ("left_out", 1, None)),
        *(("retryable", 1000, "busy"), ("left_out", 1000, "engine_missing_result")),
    ],
)
async def test_an_open_pair_is_asked_again_alone_and_may_fail(
    clock: ManualClock, kind: str, times: int, code: str | None
) -> None:
    """By the engine's last answer about it, after as many attempts as any call has."""
    open_pair = (POISON, "a")
    settings: dict[str, Any] = {kind: {open_pair: times}}
    engine = FakeEngine(clock, **settings)
    results = await run(engine)
    (of_pair,) = (result for result in results if (result.user_id, result.scenario_type) == open_pair)
    assert of_pair.attempts == len(engine.calls) == min(times + 1, ATTEMPTS)
    assert {call.pairs for call in engine.calls[1:]} == {(open_pair,)}
    assert len(clock.slept) == of_pair.attempts - 1
    assert of_pair.error_code == code or (of_pair.outcome == truth(*open_pair) and code is None)
    assert all(each.attempts == 1 for each in results if each is not of_pair)
    assert_only_these_fail([each for each in results if each.user_id != POISON], OTHERS, {})


async def test_a_user_refused_only_when_asked_again_fails_alone(clock: ManualClock) -> None:
    def refuses_alone(asked: Sequence[str]) -> httpx.Response | None:
        return httpx.Response(422) if tuple(asked) == (POISON,) else None

    results = await run(FakeEngine(clock, left_out={(POISON, "a"): 1}, trouble=refuses_alone))
    refused = {(each.user_id, each.scenario_type) for each in results if each.error_code == "engine_http_422"}
    assert refused == {(POISON, "a")}


# The engine as a whole


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503, 504, TIME_OUT])
@pytest.mark.parametrize(("users_per_call", "deliveries"), [(1, 1), (100, 1), (100, 5)])
async def test_an_engine_down_or_rejecting_us_fails_no_user(
    clock: ManualClock, status: int, users_per_call: int, deliveries: int
) -> None:
    engine = FakeEngine(clock, poison={user.user_id: status for user in HUNDRED})
    is_rejected = status in (401, 403, 404)
    with pytest.raises(EngineAccessError if is_rejected else EngineUnavailableError) as caught:
        await run(engine, users_per_call=users_per_call, deliveries=deliveries, concurrency=4)
    assert caught.value.code == cause(status)
    if is_rejected:
        # Those in flight, and at most as many again that had just been let in.
        assert (len(engine.calls) <= 2 * 4, clock.slept) == (True, [])
    elif users_per_call == 100:
        assert len(engine.calls) <= ATTEMPTS + PROBES


async def test_an_outage_midway_fails_no_user_unless_it_passes(clock: ManualClock) -> None:
    engine = FakeEngine(clock, trouble=lambda _: httpx.Response(503) if len(engine.calls) > 10 else None)
    with pytest.raises(EngineUnavailableError):
        await run(engine, [*SKIPPED, *HUNDRED], users_per_call=7)
    passing = FakeEngine(clock, trouble=lambda _: httpx.Response(503) if len(passing.calls) < ATTEMPTS else None)
    assert_only_these_fail(await run(passing), HUNDRED, {})


@pytest.mark.parametrize(("status", "retry_after"), [(429, None), (503, "77")])
async def test_a_status_about_all_calls_fails_no_user(clock: ManualClock, status: int, retry_after: str | None) -> None:
    answer = always(status, retry_after)
    engine = FakeEngine(clock, trouble=lambda users: None if "user-000" in users else answer(users))
    with pytest.raises(EngineUnavailableError) as caught:
        await run(engine, users_per_call=1, seconds=1000)
    assert caught.value.retry_after == (retry_after and float(retry_after))


# 503: an overload until the contrary is shown


@pytest.mark.parametrize("users_per_call", [1, 100])
async def test_a_503_fails_a_user_after_eight_refusals(clock: ManualClock, users_per_call: int) -> None:
    engine = FakeEngine(clock, poison={POISON: 503})
    results = await run(engine, users_per_call=users_per_call)
    assert_only_these_fail(results, HUNDRED, {POISON: cause(503)})
    last = engine.calls[-2 * BUSY_ATTEMPTS :]
    assert [call.users for call in last[::2]] == [(POISON,)] * BUSY_ATTEMPTS
    assert all(call.body["dry_run"] for call in last[1::2])


async def test_a_503_that_meets_the_canary_fails_no_user(clock: ManualClock) -> None:
    asked_alone = 0

    def full(asked: Sequence[str]) -> httpx.Response | None:
        nonlocal asked_alone
        if tuple(asked) == (POISON,):
            asked_alone += 1
            return httpx.Response(503)
        # The canary passes once in three times: never often enough in a row.
        return httpx.Response(503) if asked_alone > 2 * ATTEMPTS and asked_alone % 3 else None

    evaluated = await evaluate(FakeEngine(clock, trouble=full), users_per_call=1, seconds=60)
    assert evaluated.remaining == (POISON,)
    assert_only_these_fail(evaluated.results, OTHERS, {})


# Deliveries and time


@pytest.mark.parametrize(("deliveries", "seconds", "code"), [(6, 100, "worker_lost"), (5, 0, "time_budget_exceeded")])
async def test_after_the_last_delivery_users_fail_without_a_call(
    clock: ManualClock, deliveries: int, seconds: float, code: str
) -> None:
    engine = FakeEngine(clock)
    results = await run(engine, [*SKIPPED, *HUNDRED], deliveries=deliveries, seconds=seconds)
    skips = skips_of(SKIPPED)
    assert results[: len(skips)] == skips
    assert_only_these_fail(results[len(skips) :], HUNDRED, dict.fromkeys((user.user_id for user in HUNDRED), code))
    assert {result.attempts for result in results} == {0}
    assert engine.calls == []


async def test_when_the_time_ends_finished_users_keep_their_results(clock: ManualClock) -> None:
    with pytest.raises(DeadlineExceededError):
        await run(FakeEngine(clock, poison={POISON: TIME_OUT}), deliveries=4, seconds=25)
    slow = HUNDRED[30:40]
    engine = FakeEngine(clock, poison={slow[7].user_id: TIME_OUT})
    evaluated = await evaluate(engine, users_per_call=10, seconds=25, concurrency=2)
    assert evaluated.remaining == tuple(user.user_id for user in slow)
    assert_only_these_fail(evaluated.results, [user for user in HUNDRED if user not in slow], {})


async def test_users_are_finished_one_call_after_the_other(clock: ManualClock) -> None:
    """A type in each call, and time for five calls: not for one type of all users."""
    evaluated = await evaluate(FakeEngine(clock), users_per_call=10, types_per_call=1, pace=4, seconds=21)
    assert_only_these_fail(evaluated.results, HUNDRED[:20], {})
    assert len(evaluated.remaining) == 80


async def test_a_user_whose_retry_comes_too_late_has_not_failed(clock: ManualClock) -> None:
    users = make_users(3)
    undecided = FakeEngine(clock, retryable={("user-001", "a"): 1})
    crashing = FakeEngine(clock, poison={"user-001": 500})
    for engine in (undecided, crashing):
        evaluated = await evaluate(engine, users, users_per_call=1, seconds=NO_PAUSE)
        assert evaluated.remaining == ("user-001",)
        assert_only_these_fail(evaluated.results, [users[0], users[2]], {})
    evaluated = await evaluate(FakeEngine(clock), [*BOTH_KINDS, *SKIPPED], seconds=0)
    assert (evaluated.results, evaluated.remaining) == (skips_of(SKIPPED), ("anna",))
    assert await run(FakeEngine(clock, trouble=always(401)), SKIPPED, seconds=0) == skips_of(SKIPPED)


@pytest.mark.parametrize(("status", "seconds"), [(500, NO_PAUSE), (TIME_OUT, 25)])
async def test_on_the_last_delivery_an_open_user_fails(clock: ManualClock, status: int, seconds: float) -> None:
    engine = FakeEngine(clock, poison={"user-099": status})
    results = await run(engine, users_per_call=1, deliveries=5, seconds=seconds, concurrency=1)
    assert_only_these_fail(results, HUNDRED, {"user-099": cause(status)})
