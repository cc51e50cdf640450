"""One user's failure costs only that user, an engine's failure costs nobody, and no pair is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.evaluation_batch import BUSY_ATTEMPTS, PROBES, BatchResult, run_evaluation_batch
from shared.errors import EngineRejectedError, EngineUnavailableError, OutOfTimeError
from shared.evaluations import EvaluationResult, MentorScenarios
from tests.unit.clock import ManualClock
from tests.unit.functions.pretend_engine import ATTEMPTS, PretendEngine, make_batch, make_users, truth

TIME_OUT = 0
CODES = {TIME_OUT: "engine_timeout"}
HUNDRED = make_users(100)
POISON = "user-037"


async def run(
    engine: PretendEngine,
    users: Sequence[MentorScenarios] = HUNDRED,
    *,
    users_per_call: int = 100,
    deliveries: int = 1,
    seconds: float = 100_000,
    concurrency: int = 8,
) -> list[EvaluationResult]:
    """The results of a batch for which the time suffices."""
    evaluated = await evaluate(
        engine,
        users,
        users_per_call=users_per_call,
        deliveries=deliveries,
        seconds=seconds,
        concurrency=concurrency,
    )
    assert evaluated.rest == ()
    return evaluated.results


async def evaluate(
    engine: PretendEngine,
    users: Sequence[MentorScenarios] = HUNDRED,
    *,
    users_per_call: int = 100,
    types_per_call: int | None = None,
    deliveries: int = 1,
    seconds: float = 100_000,
    concurrency: int = 8,
) -> BatchResult:
    return await run_evaluation_batch(
        make_batch(users, deliveries=deliveries),
        engine=engine.client(concurrency=concurrency),
        budget=engine.budget(seconds),
        users_per_call=users_per_call,
        types_per_call=types_per_call,
        max_deliveries=5,
    )


def assert_each_pair_has_exactly_one_result(
    results: Sequence[EvaluationResult], users: Sequence[MentorScenarios]
) -> None:
    assert [(result.user_id, result.scenario_type) for result in results] == [
        (user.user_id, scenario_type) for user in users for scenario_type in user.scenario_types
    ]


def assert_only_these_fail(
    results: Sequence[EvaluationResult], users: Sequence[MentorScenarios], causes: Mapping[str, str]
) -> None:
    """The users of `causes` have failed by them; everybody else has her truth."""
    assert_each_pair_has_exactly_one_result(results, users)
    for result in results:
        pair = (result.user_id, result.scenario_type)
        if result.user_id in causes:
            assert (result.outcome, result.error_code) == ("failed", causes[result.user_id]), pair
        else:
            assert result.outcome == truth(*pair), pair
            assert result.error_code == ("no_device" if result.outcome == "failed" else None)
            assert result.notification_id == (f"n-{pair[0]}-{pair[1]}" if result.outcome == "triggered" else None)


def cause(status: int) -> str:
    return CODES.get(status, f"engine_http_{status}")


# Nothing goes wrong


@pytest.mark.parametrize("users_per_call", [1, 7, 100, 1000])
async def test_everybody_has_her_truth_after_one_call_for_each_group(clock: ManualClock, users_per_call: int) -> None:
    engine = PretendEngine(clock)
    results = await run(engine, users_per_call=users_per_call)
    assert_only_these_fail(results, HUNDRED, {})
    assert sorted(len(call.users) for call in engine.calls)[-1] == min(users_per_call, 100)
    assert len(engine.calls) == math.ceil(100 / users_per_call)
    assert {result.attempts for result in results} == {1}


async def test_a_call_carries_the_batchs_context(clock: ManualClock) -> None:
    engine = PretendEngine(clock)
    await run(engine, make_users(1))
    assert engine.calls[0].body == {
        "invocation_id": "invocation-1",
        "scheduled_for": "2026-11-23T02:00:00+00:00",
        "dry_run": False,
        "evaluations": [
            {
                "user_id": "user-000",
                "scenario_types": ["a", "b"],
                "idempotency_key_prefix": "slot:2026-11-23T02:00Z:user-000",
            }
        ],
    }


async def test_a_batch_without_users_needs_no_call(clock: ManualClock) -> None:
    engine = PretendEngine(clock)
    assert await run(engine, []) == []
    assert engine.calls == []


# Poison users


@pytest.mark.parametrize("status", [400, 413, 422, 500, 503, TIME_OUT])
@pytest.mark.parametrize("users_per_call", [1, 7, 100])
async def test_exactly_the_poison_user_fails(clock: ManualClock, status: int, users_per_call: int) -> None:
    results = await run(PretendEngine(clock, poison={POISON: status}), users_per_call=users_per_call)
    assert_only_these_fail(results, HUNDRED, {POISON: cause(status)})


@pytest.mark.parametrize("status", [422, 500])
@pytest.mark.parametrize("place", [0, 1, 49, 50, 98, 99])
async def test_wherever_she_stands_the_poison_user_is_found(clock: ManualClock, status: int, place: int) -> None:
    poison = HUNDRED[place].user_id
    results = await run(PretendEngine(clock, poison={poison: status}))
    assert_only_these_fail(results, HUNDRED, {poison: cause(status)})


@pytest.mark.parametrize("users_per_call", [1, 7, 100])
async def test_several_poison_users_of_several_kinds_fail_each_by_her_own_cause(
    clock: ManualClock, users_per_call: int
) -> None:
    poison = {"user-003": 422, "user-004": 500, "user-050": TIME_OUT, "user-098": 400, "user-099": 502}
    results = await run(PretendEngine(clock, poison=poison), users_per_call=users_per_call)
    assert_only_these_fail(results, HUNDRED, {user: cause(status) for user, status in poison.items()})


async def test_a_refused_user_among_a_hundred_is_isolated_in_two_calls_for_each_halving(clock: ManualClock) -> None:
    engine = PretendEngine(clock, poison={POISON: 422})
    await run(engine)
    assert len(engine.calls) <= 1 + 2 * math.ceil(math.log2(100))


async def test_a_crashing_user_among_a_hundred_is_isolated_in_two_calls_for_each_halving(clock: ManualClock) -> None:
    engine = PretendEngine(clock, poison={POISON: 500})
    await run(engine)
    probes = PROBES  # by chance she may be among the probed
    before_she_is_blamed = 2  # the witness is asked, where nobody else was answered meanwhile, and she once more
    halvings = 2 * math.ceil(math.log2(100))
    assert len(engine.calls) <= ATTEMPTS + probes + halvings + ATTEMPTS + before_she_is_blamed


async def test_a_crashing_user_does_not_make_the_others_wait_for_pauses_of_each_halving(clock: ManualClock) -> None:
    await run(PretendEngine(clock, poison={POISON: 500}))
    # The whole group's retries, and those of the user alone.
    assert len(clock.slept) <= 2 * (ATTEMPTS - 1)


async def test_a_poison_user_is_blamed_after_a_full_round_of_retries_of_her_own(clock: ManualClock) -> None:
    engine = PretendEngine(clock, poison={POISON: 500})
    await run(engine)
    alone = [call for call in engine.calls_with(POISON) if call.users == (POISON,)]
    assert len(alone) >= ATTEMPTS


async def test_an_outage_that_begins_with_a_users_last_attempts_is_not_blamed_on_her(clock: ManualClock) -> None:
    """The canary is asked about after each of them: it does not pass."""
    refused = 0

    def away(asked: Sequence[str]) -> httpx.Response | None:
        nonlocal refused
        refused += tuple(asked) == (POISON,)
        return httpx.Response(500) if tuple(asked) == (POISON,) or refused > ATTEMPTS + 1 else None

    with pytest.raises(EngineUnavailableError):
        await run(PretendEngine(clock, trouble=away), users_per_call=1)


async def test_when_the_engine_refuses_every_single_user_each_has_failed(clock: ManualClock) -> None:
    results = await run(PretendEngine(clock, poison={user.user_id: 422 for user in HUNDRED}))
    assert_only_these_fail(results, HUNDRED, {user.user_id: "engine_http_422" for user in HUNDRED})


@pytest.mark.parametrize("count", [2, 3, 4])
async def test_one_healthy_user_is_witness_enough_against_a_crashing_one(clock: ManualClock, count: int) -> None:
    users = make_users(count)
    results = await run(PretendEngine(clock, poison={users[0].user_id: 500}), users)
    assert_only_these_fail(results, users, {users[0].user_id: "engine_http_500"})


refused = st.dictionaries(st.integers(0, 29), st.sampled_from([400, 413, 422]), max_size=8)
# Fewer than the users who are tried before the engine is held to be down.
crashing = st.dictionaries(st.integers(0, 29), st.sampled_from([500, 502, TIME_OUT]), max_size=PROBES - 1)


async def run_one_after_the_other(
    engine: PretendEngine, *batches: Sequence[MentorScenarios]
) -> list[list[EvaluationResult]]:
    """Several batches of one process: what the engine client learns from one it knows in the next."""
    client = engine.client()
    evaluated = [
        await run_evaluation_batch(
            make_batch(users), engine=client, budget=engine.budget(), users_per_call=100, max_deliveries=5
        )
        for users in batches
    ]
    return [each.results for each in evaluated]


@pytest.mark.parametrize("status", [500, 503, TIME_OUT])
@pytest.mark.parametrize("count", [1, 2, 5])
async def test_a_batch_of_nothing_but_crashing_users_fails_while_the_engine_answers_the_user_before_them(
    clock: ManualClock, status: int, count: int
) -> None:
    healthy, poisoned = HUNDRED[:10], HUNDRED[50 : 50 + count]
    engine = PretendEngine(clock, poison={user.user_id: status for user in poisoned})
    _, results = await run_one_after_the_other(engine, healthy, poisoned)
    assert_only_these_fail(results, poisoned, {user.user_id: cause(status) for user in poisoned})


async def test_who_is_asked_about_again_as_a_witness_is_asked_dry_and_under_another_key(clock: ManualClock) -> None:
    engine = PretendEngine(clock, poison={POISON: 500})
    await run_one_after_the_other(engine, HUNDRED[:1], [HUNDRED[37]])
    first, *again = engine.calls_with(HUNDRED[0].user_id)
    assert (first.body["dry_run"], len(again) > 0) == (False, True)
    for call in again:
        assert call.body["dry_run"] is True
        assert call.body["evaluations"][0]["idempotency_key_prefix"] == "dry:invocation-1:user-000"


async def test_a_lone_crashing_user_without_any_witness_has_not_failed(clock: ManualClock) -> None:
    with pytest.raises(EngineUnavailableError):
        await run(PretendEngine(clock, poison={POISON: 500}), [HUNDRED[37]])


poisons = st.builds(lambda *kinds: {**kinds[0], **kinds[1]}, refused, crashing)
groupings = st.lists(st.sampled_from([("a",), ("b",), ("a", "b"), ("c", "a", "b")]), min_size=30, max_size=30)


@given(poisons, groupings, st.integers(1, 31), st.integers(1, 4), st.integers(1, 9))
async def test_whoever_is_poison_and_however_users_share_calls_each_has_her_own_truth(
    poison_at: dict[int, int], types: list[tuple[str, ...]], users_per_call: int, deliveries: int, concurrency: int
) -> None:
    users = [MentorScenarios(f"user-{n:03}", own) for n, own in enumerate(types)]
    poison = {users[n].user_id: status for n, status in poison_at.items()}
    results = await run(
        PretendEngine(ManualClock(), poison=poison),
        users,
        users_per_call=users_per_call,
        deliveries=deliveries,
        concurrency=concurrency,
    )
    assert_only_these_fail(results, users, {user: cause(status) for user, status in poison.items()})


# Answers that are not final


async def test_a_retryable_item_is_asked_again_alone_and_without_its_users_other_pairs(clock: ManualClock) -> None:
    engine = PretendEngine(clock, retryable={(POISON, "b"): 1})
    results = await run(engine)
    assert_only_these_fail(results, HUNDRED, {})
    assert [call.pairs for call in engine.calls[1:]] == [((POISON, "b"),)]


async def test_attempts_count_the_calls_that_carried_the_pair(clock: ManualClock) -> None:
    results = await run(PretendEngine(clock, retryable={(POISON, "b"): 2}))
    attempts = {(result.user_id, result.scenario_type): result.attempts for result in results}
    assert attempts.pop((POISON, "b")) == 3
    assert set(attempts.values()) == {1}


async def test_attempts_of_a_poison_user_count_the_calls_of_her_group_as_well(clock: ManualClock) -> None:
    engine = PretendEngine(clock, poison={POISON: 422})
    results = await run(engine)
    (attempts,) = {result.attempts for result in results if result.user_id == POISON}
    assert attempts == len(engine.calls_with(POISON))


async def test_an_item_that_stays_retryable_fails_with_the_engines_own_words(clock: ManualClock) -> None:
    engine = PretendEngine(clock, retryable={(POISON, "a"): 1000})
    results = await run(engine)
    (failed,) = [result for result in results if result.error_code == "busy"]
    assert (failed.user_id, failed.scenario_type, failed.outcome) == (POISON, "a", "failed")
    assert failed.error_message == "busy"
    assert failed.attempts == len(engine.calls_with(POISON)) <= ATTEMPTS + 1
    others = [user for user in HUNDRED if user.user_id != POISON]
    assert_only_these_fail([result for result in results if result.user_id != POISON], others, {})


async def test_a_result_that_was_left_out_is_asked_for_again(clock: ManualClock) -> None:
    engine = PretendEngine(clock, left_out={(POISON, "a"): 1, ("user-099", "b"): 2})
    assert_only_these_fail(await run(engine), HUNDRED, {})


async def test_a_result_that_stays_away_fails_as_missing_and_its_users_other_pair_stands(clock: ManualClock) -> None:
    results = await run(PretendEngine(clock, left_out={(POISON, "a"): 1000}))
    assert_each_pair_has_exactly_one_result(results, HUNDRED)
    missing = {(r.user_id, r.scenario_type) for r in results if r.error_code == "engine_missing_result"}
    assert missing == {(POISON, "a")}
    assert all(
        r.outcome == truth(r.user_id, r.scenario_type) for r in results if (r.user_id, r.scenario_type) != (POISON, "a")
    )


async def test_an_engine_that_answers_with_nothing_fails_each_pair_as_missing(clock: ManualClock) -> None:
    users = make_users(10)
    nothing = {(user.user_id, scenario_type): 1000 for user in users for scenario_type in user.scenario_types}
    results = await run(PretendEngine(clock, left_out=nothing), users)
    assert_only_these_fail(results, users, {user.user_id: "engine_missing_result" for user in users})


async def test_who_turns_poison_when_asked_again_fails_by_that_and_alone(clock: ManualClock) -> None:
    def refuses_her_alone(asked: Sequence[str]) -> httpx.Response | None:
        return httpx.Response(422) if tuple(asked) == (POISON,) else None

    results = await run(PretendEngine(clock, left_out={(POISON, "a"): 1}, trouble=refuses_her_alone))
    by_pair = {(result.user_id, result.scenario_type): result for result in results}
    assert by_pair[POISON, "a"].error_code == "engine_http_422"
    assert by_pair[POISON, "b"].outcome == truth(POISON, "b")


# The engine as a whole


def answers_nobody(status: int) -> PretendEngine:
    return PretendEngine(ManualClock(), trouble=lambda _: httpx.Response(status, headers={"Retry-After": "0"}))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("users_per_call", [1, 7, 100])
async def test_an_engine_that_answers_nobody_is_down_and_nobody_failed(status: int, users_per_call: int) -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        await run(answers_nobody(status), make_users(20), users_per_call=users_per_call)
    assert caught.value.code == f"engine_http_{status}"


@pytest.mark.parametrize("deliveries", [1, 3, 5])
async def test_an_engine_that_is_down_fails_nobody_on_any_delivery(deliveries: int) -> None:
    with pytest.raises(EngineUnavailableError):
        await run(answers_nobody(500), deliveries=deliveries)


async def test_an_engine_that_times_out_for_everyone_is_down(clock: ManualClock) -> None:
    with pytest.raises(EngineUnavailableError):
        await run(PretendEngine(clock, poison={user.user_id: TIME_OUT for user in HUNDRED}))


async def test_an_engine_that_is_down_is_found_out_with_few_calls_beside_the_retries() -> None:
    engine = answers_nobody(500)
    with pytest.raises(EngineUnavailableError):
        await run(engine)
    assert len(engine.calls) <= ATTEMPTS + 3


async def test_how_long_the_engine_asked_to_wait_is_handed_on(clock: ManualClock) -> None:
    engine = PretendEngine(clock, trouble=lambda _: httpx.Response(503, headers={"Retry-After": "77"}))
    with pytest.raises(EngineUnavailableError) as caught:
        await run(engine, seconds=25)
    assert caught.value.retry_after == 77


@pytest.mark.parametrize("good_calls", [1, 3, 10])
async def test_an_engine_that_goes_down_in_the_middle_fails_nobody(clock: ManualClock, good_calls: int) -> None:
    engine = PretendEngine(clock, trouble=lambda _: httpx.Response(503) if len(engine.calls) > good_calls else None)
    with pytest.raises(EngineUnavailableError):
        await run(engine, users_per_call=7)


@pytest.mark.parametrize("users_per_call", [1, 10])
async def test_an_engine_that_takes_fewer_calls_than_we_send_fails_nobody_by_429(
    clock: ManualClock, users_per_call: int
) -> None:
    """It serves two calls in ten seconds and asks for less patience than that takes."""
    served: list[float] = []

    def limits(_: Sequence[str]) -> httpx.Response | None:
        served[:] = [at for at in served if at > clock.now - 10]
        if len(served) == 2:
            return httpx.Response(429, headers={"Retry-After": "1"})
        served.append(clock.now)
        return None

    with pytest.raises(EngineUnavailableError) as caught:
        await run(PretendEngine(clock, trouble=limits), users_per_call=users_per_call, concurrency=4)
    assert (caught.value.code, caught.value.retry_after) == ("engine_http_429", 1)


async def test_an_outage_that_passes_within_the_retries_fails_nobody(clock: ManualClock) -> None:
    engine = PretendEngine(clock, trouble=lambda _: httpx.Response(503) if len(engine.calls) < ATTEMPTS else None)
    assert_only_these_fail(await run(engine), HUNDRED, {})


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("users_per_call", [1, 100])
async def test_an_engine_that_turns_us_away_stops_the_batch_at_once(
    clock: ManualClock, status: int, users_per_call: int
) -> None:
    engine = PretendEngine(clock, trouble=lambda _: httpx.Response(status))
    with pytest.raises(EngineRejectedError) as caught:
        await run(engine, users_per_call=users_per_call, concurrency=4)
    assert caught.value.code == f"engine_http_{status}"
    # Those in flight, and at most as many again who had just been let in.
    assert len(engine.calls) <= 2 * 4
    assert clock.slept == []


# Deliveries and time


@pytest.mark.parametrize("deliveries", [6, 7, 100])
async def test_after_the_last_delivery_the_batchs_users_are_lost_without_a_call(
    clock: ManualClock, deliveries: int
) -> None:
    engine = PretendEngine(clock)
    results = await run(engine, deliveries=deliveries)
    assert_only_these_fail(results, HUNDRED, {user.user_id: "worker_lost" for user in HUNDRED})
    assert {result.attempts for result in results} == {0}
    assert engine.calls == []


@pytest.mark.parametrize("deliveries", [1, 2, 3, 4])
async def test_when_the_time_ends_before_anybody_is_through_the_batch_is_to_be_given_back(
    clock: ManualClock, deliveries: int
) -> None:
    with pytest.raises(OutOfTimeError):
        await run(PretendEngine(clock, poison={POISON: TIME_OUT}), deliveries=deliveries, seconds=25)


async def test_when_the_time_ends_those_who_are_through_have_their_results_and_the_others_are_the_rest(
    clock: ManualClock,
) -> None:
    slow = HUNDRED[30:40]
    engine = PretendEngine(clock, poison={slow[7].user_id: TIME_OUT})
    evaluated = await evaluate(engine, users_per_call=10, seconds=25, concurrency=2)
    assert evaluated.rest == tuple(user.user_id for user in slow)
    assert_only_these_fail(evaluated.results, [user for user in HUNDRED if user not in slow], {})


async def test_who_is_through_with_only_some_of_her_pairs_is_in_the_rest(clock: ManualClock) -> None:
    poison = {"somebody else": TIME_OUT}

    def slow_from_her_second_call_on(user_ids: Sequence[str]) -> httpx.Response | None:
        if len(user_ids) == 1:
            poison["user-001"] = TIME_OUT
        return None

    engine = PretendEngine(
        clock, poison=poison, retryable={("user-001", "a"): 1000}, trouble=slow_from_her_second_call_on
    )
    users = make_users(3)
    evaluated = await evaluate(engine, users, seconds=5)
    assert evaluated.rest == ("user-001",)
    assert_only_these_fail(evaluated.results, [users[0], users[2]], {})


async def test_whose_retry_comes_too_late_for_this_slice_is_in_the_rest_and_has_not_failed(clock: ManualClock) -> None:
    undecided = PretendEngine(clock, retryable={("user-001", "a"): 1})
    crashing = PretendEngine(clock, poison={"user-001": 500})
    users = make_users(3)
    for engine in (undecided, crashing):
        # Too short for any pause between two attempts.
        evaluated = await evaluate(engine, users, users_per_call=1, seconds=1e-9)
        assert evaluated.rest == ("user-001",)
        assert_only_these_fail(evaluated.results, [users[0], users[2]], {})


async def test_on_the_last_delivery_whose_retry_comes_too_late_fails_by_her_own_cause(clock: ManualClock) -> None:
    engine = PretendEngine(clock, poison={"user-001": 500})
    results = await run(engine, make_users(3), users_per_call=1, deliveries=5, seconds=1e-9)
    assert_only_these_fail(results, make_users(3), {"user-001": "engine_http_500"})


async def test_on_the_last_delivery_only_what_the_time_did_not_suffice_for_fails(clock: ManualClock) -> None:
    engine = PretendEngine(clock, poison={"user-099": TIME_OUT})
    results = await run(engine, users_per_call=1, deliveries=5, seconds=25, concurrency=1)
    assert_only_these_fail(results, HUNDRED, {"user-099": "engine_timeout"})


async def test_on_the_last_delivery_who_was_never_asked_fails_by_the_time_budget(clock: ManualClock) -> None:
    results = await run(PretendEngine(clock), deliveries=5, seconds=0)
    assert_only_these_fail(results, HUNDRED, {user.user_id: "time_budget_exceeded" for user in HUNDRED})


async def test_a_defect_of_ours_is_nobodys_failure(clock: ManualClock) -> None:
    def defect(_: Sequence[str]) -> httpx.Response | None:
        raise LookupError("ours")

    with pytest.raises(LookupError):
        await run(PretendEngine(clock, trouble=defect))


async def test_among_refused_users_one_who_crashes_the_engine_is_found(clock: ManualClock) -> None:
    poison = {user.user_id: 422 for user in HUNDRED} | {"user-037": 500}
    results = await run(PretendEngine(clock, poison=poison), users_per_call=1)
    assert_only_these_fail(results, HUNDRED, {user_id: cause(status) for user_id, status in poison.items()})


async def test_a_503_blames_nobody_who_gets_through_in_the_end(clock: ManualClock) -> None:
    """Other workers keep the engine busy: a full round of retries is not enough to fail a user by a 503."""
    refused = 0

    def busy(asked: Sequence[str]) -> httpx.Response | None:
        nonlocal refused
        # A round of her group's, and a full one of her own: by then she would have been blamed.
        if tuple(asked) == (POISON,) and refused < 2 * ATTEMPTS:
            refused += 1
            return httpx.Response(503)
        return None

    results = await run(PretendEngine(clock, trouble=busy), users_per_call=1)
    assert refused == 2 * ATTEMPTS
    assert_only_these_fail(results, HUNDRED, {})


async def test_a_503_blames_only_her_whom_it_turns_away_each_time_that_it_takes_another(clock: ManualClock) -> None:
    engine = PretendEngine(clock, poison={POISON: 503})
    results = await run(engine, users_per_call=1)
    assert_only_these_fail(results, HUNDRED, {POISON: "engine_http_503"})
    alone = [call.users for call in engine.calls[-2 * BUSY_ATTEMPTS :]]
    assert alone[::2] == [(POISON,)] * BUSY_ATTEMPTS
    assert all(call.body["dry_run"] for call in engine.calls[-2 * BUSY_ATTEMPTS + 1 :: 2])


async def test_while_a_503_meets_others_as_well_she_is_tried_until_the_time_is_up_and_not_blamed(
    clock: ManualClock,
) -> None:
    """She is turned away whenever she comes; so is her witness, each time but those in which she is given up on."""
    asked_alone = 0

    def full(asked: Sequence[str]) -> httpx.Response | None:
        nonlocal asked_alone
        if tuple(asked) == (POISON,):
            asked_alone += 1
            return httpx.Response(503)
        # Her witness has luck once in three times: never often enough in a row.
        return httpx.Response(503) if asked_alone > 2 * ATTEMPTS and asked_alone % 3 else None

    batch = await run_evaluation_batch(
        make_batch(HUNDRED),
        engine=(engine := PretendEngine(clock, trouble=full)).client(),
        budget=engine.budget(60),
        users_per_call=1,
        max_deliveries=5,
    )
    assert batch.rest == (POISON,)
    assert {result.outcome for result in batch.results if result.error_code != "no_device"} <= {
        "triggered",
        "not_triggered",
        "suppressed",
    }


async def test_a_503_that_says_when_to_come_back_blames_nobody(clock: ManualClock) -> None:
    def only_the_first(user_ids: Sequence[str]) -> httpx.Response | None:
        return None if "user-000" in user_ids else httpx.Response(503, headers={"Retry-After": "1"})

    with pytest.raises(EngineUnavailableError):
        await run(PretendEngine(clock, trouble=only_the_first), users_per_call=1, seconds=1000)


async def test_a_call_that_was_not_sent_is_no_attempt(clock: ManualClock) -> None:
    engine = PretendEngine(clock)
    results = await run(engine, deliveries=5, seconds=0)
    assert engine.calls == []
    assert {result.attempts for result in results} == {0}


async def test_a_retryable_item_gets_no_more_calls_than_any_other(clock: ManualClock) -> None:
    engine = PretendEngine(clock, retryable={("user-000", "a"): 1000})
    await run(engine, make_users(3))
    assert len(engine.calls_with("user-000")) == 3
    assert len(clock.slept) == 2


# How many scenario types of a user share a call


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 5), st.one_of(st.none(), st.integers(1, 5)))
async def test_whatever_shares_a_call_each_pair_is_asked_once_and_nobody_is_twice_in_a_call(
    types_of_each: list[int], users_per_call: int, types_per_call: int | None
) -> None:
    users = [
        MentorScenarios(f"user-{n:03}", tuple(f"type-{t}" for t in range(types)))
        for n, types in enumerate(types_of_each)
    ]
    engine = PretendEngine(ManualClock())
    evaluated = await evaluate(engine, users, users_per_call=users_per_call, types_per_call=types_per_call)
    assert evaluated.rest == ()
    assert_each_pair_has_exactly_one_result(evaluated.results, users)
    assert all(result.attempts == 1 for result in evaluated.results)
    asked = sorted(pair for call in engine.calls for pair in call.pairs)
    assert asked == sorted((user.user_id, name) for user in users for name in user.scenario_types)
    for call in engine.calls:
        assert len(set(call.users)) == len(call.users) <= users_per_call
        if types_per_call is not None:
            assert all(len(item["scenario_types"]) <= types_per_call for item in call.body["evaluations"])


async def test_with_a_type_a_call_a_pairs_attempts_are_its_own(clock: ManualClock) -> None:
    (user,) = make_users(1)
    first, second = user.scenario_types
    engine = PretendEngine(clock, retryable={(user.user_id, second): 1})
    results = (await evaluate(engine, [user], types_per_call=1)).results
    assert {result.scenario_type: result.attempts for result in results} == {first: 1, second: 2}


async def test_with_a_type_a_call_what_is_refused_costs_the_user_only_that_type(clock: ManualClock) -> None:
    users = make_users(4)
    refused = users[2].user_id

    def refuses(call_users: Sequence[str]) -> httpx.Response | None:
        asked = engine.calls[-1].pairs
        return httpx.Response(422) if (refused, "b") in asked else None

    engine = PretendEngine(clock, trouble=refuses)
    # One call at a time: the one that is judged is the last.
    results = (await evaluate(engine, users, types_per_call=1, concurrency=1)).results
    assert_each_pair_has_exactly_one_result(results, users)
    found = {(r.user_id, r.scenario_type) for r in results if r.error_code == "engine_http_422"}
    assert found == {(refused, "b")}
