"""Where an engine promises no idempotency, no call that may have acted is repeated, in no slice; statuses are true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.runs.evaluation_batch import run_evaluation_batch
from functions.runs.result_ledger import BatchResult
from shared.engine_client import EngineClient
from shared.engine_health import MAX_FAILING_USERS
from shared.errors import DeadlineExceededError, EngineAccessError, EngineError, EngineUnavailableError
from shared.evaluations import MENTOR_NOT_ACTIVE, EvaluationResult, MentorScenarios
from tests.unit.clock import ManualClock
from tests.unit.environment import make_config
from tests.unit.fake_post_client import reply
from tests.unit.functions.fake_engine import ATTEMPTS, make_batch, make_users
from tests.unit.functions.single_engine import (
    BROKEN,
    PUBLISHED,
    REFUSED,
    RESET,
    SLOW_CONNECT,
    TIME_OUT,
    Answer,
    Pair,
    SingleEngine,
    decided,
    decision,
)
from tests.unit.log_lines import LogLines

CONFIG = make_config(ENGINE_PROTOCOL="single")
USERS = make_users(20)
POISON = (USERS[5].user_id, "a")
OTHER = decided(("user-999", "a"))
UNKNOWN = "outcome_unknown"


async def evaluate(
    engine: SingleEngine,
    users: Sequence[MentorScenarios] = USERS,
    *,
    client: EngineClient | None = None,
    seconds: float = 100_000,
    deliveries: int = 1,
    dry_run: bool = False,
    pace: float = 0,
    fatal_error: Callable[[], EngineError | None] = lambda: None,
) -> BatchResult:
    deadline = engine.deadline(seconds)
    deadline.space_calls(pace)
    return await run_evaluation_batch(
        replace(make_batch(users, deliveries=deliveries), dry_run=dry_run),
        engine=client or engine.client(),
        config=CONFIG,
        deadline=deadline,
        fatal_error=fatal_error,
    )


def by_pair(results: Sequence[EvaluationResult]) -> dict[Pair, EvaluationResult]:
    found = {(result.user_id, result.scenario_type): result for result in results}
    assert len(found) == len(results)
    return found


def pairs_of(users: Sequence[MentorScenarios]) -> list[Pair]:
    return [(user.user_id, name) for user in users for name in user.scenario_types]


def assert_true(result: EvaluationResult) -> None:
    """The engine's answer, with the notification's id where there is one."""
    pair = (result.user_id, result.scenario_type)
    assert result.outcome == ("triggered" if decision(pair) else "not_triggered"), pair
    assert result.notification_id == (f"n-{pair[0]}-{pair[1]}" if decision(pair) else None)


async def test_an_outage_from_the_start_costs_one_user(clock: ManualClock) -> None:
    engine = SingleEngine(clock, trouble=lambda _: reply(500))
    evaluated = await evaluate(engine, client=engine.client(concurrency=8))
    assert engine.sent == [(USERS[0].user_id, "a")]
    assert {result.user_id for result in evaluated.results} == {USERS[0].user_id}
    assert (len(evaluated.remaining), type(evaluated.fatal_error)) == (len(USERS) - 1, EngineUnavailableError)


@pytest.mark.parametrize(
    ("answers", "code", "calls"),
    [
        *(([answer], UNKNOWN, 1) for answer in (TIME_OUT, RESET, BROKEN, OTHER, reply(204))),
        *(([reply(status)], UNKNOWN, 1) for status in (500, 502, 504)),
        *(([reply(200, content=text)], UNKNOWN, 1) for text in (b"", b"[]", b'{"should_notify": true}')),
        *(([reply(status)], f"engine_http_{status}", 1) for status in (400, 404, 409, 422)),
        *(([reply(status)], None, 2) for status in (408, 429, 503)),
        *(([answer], None, 2) for answer in (REFUSED, SLOW_CONNECT)),
        ([reply(503)] * ATTEMPTS, "engine_http_503", ATTEMPTS),
        ([reply(503), RESET], UNKNOWN, 2),
    ],
)
async def test_only_what_surely_did_not_act_is_repeated(
    clock: ManualClock, log: LogLines, answers: list[Answer], code: str | None, calls: int
) -> None:
    engine = SingleEngine(clock, {POISON: answers})
    evaluated = await evaluate(engine)
    results = by_pair(evaluated.results)
    failed = results.pop(POISON)
    assert (engine.sent.count(POISON), failed.attempts) == (calls, calls)
    assert failed.error_code == code
    assert len(engine.sent) == len(results) + calls
    assert (evaluated.remaining, evaluated.fatal_error) == ((), None)
    for result in results.values():
        assert_true(result)
    dropped = [line["dropped"] for line in log.of("engine_results_dropped")]
    assert dropped == ([1] if answers == [OTHER] else [])


async def test_an_unknown_outcome_says_what_happened(clock: ManualClock) -> None:
    problem = reply(500, json_body={"title": "Out of order", "detail": "no user 0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10"})
    failed = by_pair((await evaluate(SingleEngine(clock, {POISON: [problem]}))).results)[POISON]
    assert failed.error_message is not None
    assert failed.error_message.endswith("the engine answered 500: Out of order: no user …")


@pytest.mark.parametrize("answer", [RESET, TIME_OUT, reply(500), reply(503), reply(404), REFUSED])
async def test_an_outage_costs_few_users_and_leaves_the_others(clock: ManualClock, answer: Answer) -> None:
    users = make_users(50)
    engine = SingleEngine(clock, trouble=lambda _: answer if len(engine.sent) > 5 else None)
    evaluated = await evaluate(engine, users, client=engine.client(concurrency=2))
    assert isinstance(evaluated.fatal_error, EngineError)
    assert len(evaluated.remaining) >= len(users) - 3 - MAX_FAILING_USERS - 2
    sent = {user_id for user_id, _ in engine.may_have_acted.elements()}
    assert sent.isdisjoint(evaluated.remaining)
    for result in evaluated.results:
        pair = (result.user_id, result.scenario_type)
        assert (result.error_code == UNKNOWN) is (result.outcome == "failed" and engine.may_have_acted[pair] == 1)
    # A user that was begun is not left to a later slice: what was not sent fails by what stopped it.
    assert evaluated.fatal_error.code != UNKNOWN
    assert len(by_pair(evaluated.results)) == 2 * (len(users) - len(evaluated.remaining))


async def test_without_a_recent_answer_the_first_unknown_outcome_stops(clock: ManualClock) -> None:
    for suggested, sent in ((False, 1), (True, len(USERS) * 2)):
        engine = SingleEngine(clock, {("user-000", "a"): [RESET]})
        client = engine.client()
        if suggested:
            client.health.suggest_answer(engine.deadline())
        evaluated = await evaluate(engine, client=client)
        results = by_pair(evaluated.results)
        assert results["user-000", "a"].error_code == UNKNOWN
        assert results["user-000", "b"].error_code == (None if suggested else "engine_unreachable")
        assert (len(engine.sent), isinstance(evaluated.fatal_error, EngineUnavailableError)) == (sent, not suggested)
    clock.advance(26)
    engine = SingleEngine(clock, trouble=lambda _: reply(500))
    client = engine.client()
    client.health.suggest_answer(engine.deadline())
    clock.advance(26)
    assert len((await evaluate(engine, client=client, seconds=25)).remaining) == len(USERS) - 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        *((reply(status), EngineAccessError) for status in (401, 403, 404, 302)),
        *((answer, EngineUnavailableError) for answer in (REFUSED, SLOW_CONNECT, reply(429), reply(503))),
    ],
)
async def test_where_nothing_was_sent_the_batch_is_released(
    clock: ManualClock, answer: Answer, error: type[EngineError]
) -> None:
    engine = SingleEngine(clock, trouble=lambda _: answer)
    with pytest.raises(error):
        await evaluate(engine, client=engine.client(concurrency=4))
    assert set(engine.may_have_acted.values()) == {0}


async def test_at_the_deadline_only_untouched_users_are_left(clock: ManualClock) -> None:
    """Four seconds a call, a time-out of ten: the last user begins with more than ten seconds left."""
    skipped = MentorScenarios("user-100", ("a",), MENTOR_NOT_ACTIVE)
    users = [*make_users(10, ("a", "b", "c", "d")), skipped]
    engine = SingleEngine(clock, takes=4)
    evaluated = await evaluate(engine, users, seconds=30)
    assert evaluated.remaining == tuple(user.user_id for user in users[2:-1])
    results = by_pair(evaluated.results)
    outcomes = {pair: result.error_code or result.outcome for pair, result in results.items()}
    assert len(engine.sent) == 8
    # 28 seconds for seven calls; the eighth is cut off.
    assert outcomes["user-001", "d"] == UNKNOWN
    assert engine.may_have_acted.total() == len(engine.sent)
    assert outcomes["user-100", "a"] == MENTOR_NOT_ACTIVE
    clock.advance(100)
    late = await evaluate(SingleEngine(clock, takes=4), users[:2], seconds=13)
    assert [result.error_code for result in late.results] == [None, None, None, UNKNOWN]
    with pytest.raises(DeadlineExceededError):
        await evaluate(engine, users[:2], seconds=10)
    assert len(engine.sent) == 8


@pytest.mark.parametrize(("concurrency", "seconds", "finished"), [(1, 31, 3), (8, 31, 3), (8, 1000, 20)])
async def test_a_paced_user_who_was_begun_is_finished(
    clock: ManualClock, concurrency: int, seconds: float, finished: int
) -> None:
    """Two calls each, three seconds apart, and a time-out of ten. A user begins where all who began can be finished."""
    engine = SingleEngine(clock)
    client = engine.client(concurrency=concurrency)
    client.health.suggest_answer(engine.deadline())
    evaluated = await evaluate(engine, client=client, seconds=seconds, pace=3)
    assert (len(evaluated.results), len(engine.sent)) == (2 * finished, 2 * finished)
    assert len(evaluated.remaining) == len(USERS) - finished
    for result in evaluated.results:
        assert_true(result)


async def test_a_pair_that_was_not_sent_fails_by_the_deadline(clock: ManualClock) -> None:
    users = make_users(3)
    engine = SingleEngine(clock, {("user-000", "b"): [reply(408, headers={"Retry-After": "9"})]}, takes=2)
    evaluated = await evaluate(engine, users, seconds=12)
    assert evaluated.remaining == ("user-001", "user-002")
    assert [result.error_code for result in evaluated.results] == [None, "time_budget_exceeded"]
    last = await evaluate(SingleEngine(clock), users, seconds=10, deliveries=5)
    assert {result.error_code for result in last.results} == {"time_budget_exceeded"}


async def test_what_ends_the_slice_ends_no_call_under_way(clock: ManualClock) -> None:
    ended = EngineAccessError("engine_http_401", "the engine answered 401")
    engine = SingleEngine(clock)
    evaluated = await evaluate(engine, fatal_error=lambda: ended if len(engine.sent) >= 3 else None)
    assert (evaluated.fatal_error, len(engine.sent)) == (ended, 3)
    codes = {pair: result.error_code for pair, result in by_pair(evaluated.results).items()}
    assert codes == dict.fromkeys(pairs_of(USERS[:2])[:3]) | {("user-001", "b"): "engine_http_401"}


ANSWERS = st.sampled_from(
    [None, None, None, TIME_OUT, RESET, BROKEN, REFUSED, *map(reply, (408, 422, 429, 500, 502, 503, 504, 404, 401))]
)
SCRIPTS = st.dictionaries(st.sampled_from(pairs_of(USERS)), st.lists(ANSWERS, min_size=1, max_size=4), max_size=25)


@given(SCRIPTS, st.integers(1, 6), st.floats(10.5, 60), st.floats(0, 9))
async def test_no_pair_that_may_have_acted_is_sent_in_any_later_slice(
    script: dict[Pair, list[Answer]], concurrency: int, seconds: float, takes: float
) -> None:
    engine = SingleEngine(ManualClock(), script, takes=takes)
    client = engine.client(concurrency=concurrency)
    left, results = {user.user_id: user for user in USERS}, dict[Pair, EvaluationResult]()
    for _ in range(200):
        engine.clock.slept.clear()
        try:
            evaluated = await evaluate(engine, [*left.values()], client=client, seconds=seconds)
        except (EngineError, DeadlineExceededError):
            continue
        found = by_pair(evaluated.results)
        assert found.keys().isdisjoint(results)
        results |= found
        left = {user_id: left[user_id] for user_id in evaluated.remaining}
        if not left:
            break
    assert results.keys() | {*pairs_of([*left.values()])} == {*pairs_of(USERS)}
    assert max(engine.may_have_acted.values(), default=0) <= 1
    for pair, result in results.items():
        if result.outcome == "failed":
            assert (result.error_code == UNKNOWN) is (engine.may_have_acted[pair] == 1), pair
        else:
            assert_true(result)


# What an engine supports beyond the published API


@pytest.mark.parametrize("idempotency", [False, True])
async def test_a_canary_is_sent_only_where_dry_runs_are_supported(clock: ManualClock, idempotency: bool) -> None:
    for dry_run in (False, True):
        engine = SingleEngine(clock, {POISON: [reply(500)] * 100})
        client = engine.client(protocol=replace(PUBLISHED, dry_run=dry_run, idempotency=idempotency))
        results = by_pair((await evaluate(engine, client=client)).results)
        assert results[POISON].error_code == ("engine_http_500" if idempotency else UNKNOWN)
        assert [pair for pair, result in results.items() if result.outcome == "failed"] == [POISON]
        assert any(body["dry_run"] for body in engine.bodies) is dry_run


async def test_with_idempotency_an_outage_fails_no_user(clock: ManualClock) -> None:
    engine = SingleEngine(clock, trouble=lambda _: RESET if len(engine.sent) > 10 else None)
    client = engine.client(protocol=replace(PUBLISHED, idempotency=True), concurrency=4)
    with pytest.raises(EngineUnavailableError):
        await evaluate(engine, client=client)


async def test_a_dry_run_is_repeated_where_it_is_supported(clock: ManualClock) -> None:
    engine = SingleEngine(clock, {POISON: [RESET]})
    client = engine.client(protocol=replace(PUBLISHED, dry_run=True))
    results = by_pair((await evaluate(engine, client=client, dry_run=True)).results)
    assert engine.sent.count(POISON) == 2
    assert {result.outcome for result in results.values()} == {"triggered", "not_triggered"}
    assert {result.notification_id for result in results.values()} == {None}


async def test_an_open_dry_run_is_not_sent_to_an_engine_without_them(clock: ManualClock) -> None:
    engine = SingleEngine(clock)
    evaluated = await evaluate(engine, dry_run=True)
    assert {result.error_code for result in evaluated.results} == {"dry_run_not_supported"}
    assert engine.sent == []
