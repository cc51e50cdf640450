"""The scripted engine speaks the contract, and its ledger can be trusted as an oracle."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid5

import httpx
import pytest

from tests.scripted_engine import Call, Proceed, Reply, ScriptedEngine, innocent_outcome, rules

from .caller import TYPES, Caller, some_users


async def test_answers_every_pair_of_a_call_with_its_innocent_outcome() -> None:
    users = some_users(40)
    async with ScriptedEngine() as engine, Caller(engine) as caller:
        response = await caller.call(users)
        outcomes = caller.outcomes(response)
        assert outcomes == {(user, kind): innocent_outcome(user, kind) for user in users for kind in TYPES}
        assert outcomes == {(user, kind): engine.expected_outcome(user, kind) for user in users for kind in TYPES}
        assert engine.violations == []


def test_innocent_outcomes_are_a_quarter_triggered_and_a_tenth_suppressed() -> None:
    drawn = [innocent_outcome(str(uuid5(UUID(int=0), str(n))), "type") for n in range(10_000)]
    assert 0.23 < drawn.count("triggered") / len(drawn) < 0.27
    assert 0.08 < drawn.count("suppressed") / len(drawn) < 0.12


async def test_acts_once_per_key_and_repeats_its_notification_id() -> None:
    users = some_users(20)
    async with ScriptedEngine() as engine, Caller(engine) as caller:
        answers = await asyncio.gather(*(caller.call(users) for _ in range(5)))
        assert len({response.text for response in answers}) == 1
        triggered = [pair for pair, outcome in caller.outcomes(answers[0]).items() if outcome == "triggered"]
        assert triggered
        assert sorted(act.pair for act in engine.acts.values()) == sorted(triggered)
        assert set(engine.keys_seen.values()) == {5}
        assert engine.notified_twice == []


async def test_knows_who_was_notified_twice_when_the_keys_differ() -> None:
    users = some_users(20)
    async with ScriptedEngine() as engine, Caller(engine) as caller:
        await caller.call(users, scope="slot:a")
        await caller.call(users, scope="slot:b")
        assert sorted(engine.notified_twice) == sorted({act.pair for act in engine.acts.values()})
        assert len(engine.acts) == 2 * len(engine.notified_twice) > 0


async def test_a_dry_run_triggers_without_acting() -> None:
    async with ScriptedEngine() as engine, Caller(engine) as caller:
        response = await caller.call(some_users(20), dry_run=True)
        triggered = [result for result in response.json()["results"] if result["outcome"] == "triggered"]
        assert triggered
        assert all("notification_id" not in result for result in triggered)
        assert engine.acts == {}


async def test_refuses_a_wrong_token_before_any_rule_sees_the_call() -> None:
    async def must_not_run(_: Call, __: Proceed) -> Reply:
        raise AssertionError

    async with ScriptedEngine(rules=[must_not_run]) as engine, Caller(engine, token="wrong") as caller:
        response = await caller.call(some_users(1))
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert [(record.authorized, record.status) for record in engine.calls] == [(False, 401)]
        assert not engine.acts
        assert not engine.keys_seen


async def test_the_ledger_holds_what_arrived_and_what_was_answered() -> None:
    users = some_users(3)
    async with ScriptedEngine(rules=[rules.fail_every(2)]) as engine, Caller(engine) as caller:
        await caller.call(users, scope="slot:a")
        await caller.call(users[:1], scope="slot:a", dry_run=True)
        first, second = engine.calls
        assert (first.number, first.status, first.dry_run, first.user_ids) == (1, 200, False, users)
        assert (second.number, second.status, second.dry_run, second.user_ids) == (2, 500, True, users[:1])
        assert first.keys == [f"slot:a:{user}:{kind}" for user in users for kind in TYPES]
        assert first.traceparent == caller.traceparent
        assert first.invocation_id == caller.invocation_id
        assert "authorization" not in first.headers


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"not json", "Expecting value"),
        (b"[]", "the body: expected an object"),
        (b'{"dry_run": false, "evaluations": []}', "evaluations: expected a list"),
        (b'{"evaluations": [{}]}', "dry_run: expected a boolean"),
        (b'{"dry_run": false, "evaluations": [{"user_id": "me"}]}', "user_id: expected a UUID"),
        (b"[" * 100_000, "recursion"),
    ],
)
async def test_a_body_that_breaks_the_contract_is_answered_400_and_noted(body: bytes, complaint: str) -> None:
    async with ScriptedEngine() as engine, Caller(engine) as caller:
        response = await caller.send(body)
        assert response.status_code == 400
        assert complaint in engine.violations[0]


async def test_notes_what_a_correct_scheduler_never_does() -> None:
    user, other = some_users(2)
    async with ScriptedEngine() as engine, Caller(engine) as caller:
        caller.headers.pop("traceparent")
        await caller.call([user, user])
        await caller.send_evaluations(
            [{"user_id": user, "scenario_types": ["a", "a"], "idempotency_key_prefix": f"s:{other}"}]
        )
        noted = "\n".join(engine.violations)
        assert "names a user twice" in noted
        assert "names a scenario type twice" in noted
        assert "does not end in its user" in noted
        assert "traceparent is None" in noted


async def test_notes_a_key_that_is_used_for_two_pairs() -> None:
    user, other = some_users(2)
    async with ScriptedEngine(outcome_of=lambda _, __: "triggered") as engine, Caller(engine) as caller:
        await caller.send_evaluations(
            [{"user_id": u, "scenario_types": ["a"], "idempotency_key_prefix": "shared"} for u in (user, other)]
        )
        assert any("uses the key 'shared:a'" in violation for violation in engine.violations)


async def test_is_refused_while_unreachable_and_goes_on_at_the_same_address() -> None:
    users = some_users(5)
    async with ScriptedEngine() as engine, Caller(engine) as caller:
        before = await caller.call(users)
        async with engine.unreachable():
            with pytest.raises(httpx.ConnectError):
                await caller.call(users)
        assert (await caller.call(users)).json() == before.json()
        assert len(engine.calls) == 2


async def test_stops_at_once_while_calls_hang() -> None:
    users = some_users(1)
    engine = ScriptedEngine(rules=[rules.hang(users)])
    await engine.start()
    async with Caller(engine) as caller:
        hanging = asyncio.create_task(caller.call(users))
        await engine.until_called(1)
        await engine.stop()
        with pytest.raises(httpx.TransportError):
            await hanging
    assert engine.calls[0].status is None


async def test_a_rule_that_breaks_fails_the_test_and_not_the_call() -> None:
    async def broken(_: Call, __: Proceed) -> Reply:
        raise LookupError("a bug in the script")

    async def run() -> None:
        async with ScriptedEngine(rules=[broken]) as engine, Caller(engine) as caller:
            with pytest.raises(httpx.TransportError):
                await caller.call(some_users(1))

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(LookupError, match="a bug in the script")


async def test_knows_its_peak_of_calls_in_flight() -> None:
    gate = asyncio.Event()
    async with ScriptedEngine(rules=[rules.hold_until(gate)]) as engine, Caller(engine) as caller:
        calls = [asyncio.create_task(caller.call(some_users(1))) for _ in range(7)]
        await engine.until(lambda e: e.in_flight == 7)
        gate.set()
        await asyncio.gather(*calls)
        await caller.call(some_users(1))
        assert (engine.peak_in_flight, engine.in_flight) == (7, 0)
