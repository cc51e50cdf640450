"""Each ready-made misbehaviour does what its name says, and nothing to anybody else."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.scripted_engine import Pair, Rule, ScriptedEngine, rules

from .caller import TYPES, Caller, some_users

USERS = some_users(12)
POOR, *OTHERS = USERS


async def statuses(script: list[Rule], calls: int) -> list[int]:
    async with ScriptedEngine(rules=script) as engine, Caller(engine) as caller:
        return [(await caller.call(USERS)).status_code for _ in range(calls)]


async def test_refuses_exactly_the_calls_that_name_a_poison_user() -> None:
    async with ScriptedEngine(rules=[rules.refuse_calls_with({POOR})]) as engine, Caller(engine) as caller:
        assert (await caller.call(USERS)).status_code == 422
        assert not engine.acts
        assert (await caller.call(OTHERS)).status_code == 200
        assert (await caller.call([POOR])).status_code == 422
        assert POOR not in {act.user_id for act in engine.acts.values()}


async def test_refuses_calls_above_a_size() -> None:
    async with ScriptedEngine(rules=[rules.refuse_calls_larger_than(3)]) as engine, Caller(engine) as caller:
        assert [(await caller.call(USERS[:size])).status_code for size in (3, 4)] == [200, 413]


async def test_fails_every_nth_call() -> None:
    assert await statuses([rules.fail_every(3, status=502)], 6) == [200, 200, 502, 200, 200, 502]


async def test_fails_the_same_share_of_calls_in_each_run() -> None:
    one, again, other = [await statuses([rules.fail_share(0.5, seed)], 40) for seed in (1, 1, 2)]
    assert one == again != other
    assert 10 < one.count(500) < 30


async def test_is_down_for_a_number_of_calls() -> None:
    assert await statuses([rules.down_until(2)], 4) == [503, 503, 200, 200]


async def test_is_down_until_an_event() -> None:
    back = asyncio.Event()
    async with ScriptedEngine(rules=[rules.down_until(back)]) as engine, Caller(engine) as caller:
        assert (await caller.call(USERS)).status_code == 503
        back.set()
        assert (await caller.call(USERS)).status_code == 200


async def test_asks_for_patience_a_number_of_times() -> None:
    async with ScriptedEngine(rules=[rules.retry_after(1.5, times=1)]) as engine, Caller(engine) as caller:
        refused, answered = await caller.call(USERS), await caller.call(USERS)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1.5")
        assert answered.status_code == 200


async def test_answers_429_beyond_its_capacity_and_recovers() -> None:
    gate = asyncio.Event()
    script = [rules.capacity(2, retry_after=1), rules.hold_until(gate)]
    async with ScriptedEngine(rules=script) as engine, Caller(engine) as caller:
        held = [asyncio.create_task(caller.call(USERS)) for _ in range(2)]
        await engine.until(lambda e: e.in_flight == 2)
        refused = await caller.call(USERS)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        gate.set()
        assert [response.status_code for response in await asyncio.gather(*held)] == [200, 200]
        assert (await caller.call(USERS)).status_code == 200


async def test_serves_as_many_as_it_can_of_those_that_arrive_together() -> None:
    gate = asyncio.Event()
    async with (
        ScriptedEngine(rules=[rules.capacity(2), rules.hold_until(gate)]) as engine,
        Caller(engine) as caller,
    ):
        together = [asyncio.create_task(caller.call(USERS)) for _ in range(10)]
        await engine.until(lambda e: len(e.calls) == 10 and e.in_flight == 2)
        gate.set()
        answered = sorted(response.status_code for response in await asyncio.gather(*together))
        assert answered == [200] * 2 + [429] * 8


async def test_acts_and_then_fails_so_that_only_the_retry_learns_the_notification_id() -> None:
    async with ScriptedEngine(rules=[rules.act_then_fail(1)]) as engine, Caller(engine) as caller:
        assert (await caller.call(USERS)).status_code == 500
        acts = dict(engine.acts)
        assert acts
        told = {item.get("notification_id") for item in (await caller.call(USERS)).json()["results"]} - {None}
        assert told == {act.notification_id for act in acts.values()}
        assert engine.acts == acts


async def test_a_slow_call_acts_although_its_caller_has_gone() -> None:
    gate = asyncio.Event()
    async with ScriptedEngine(rules=[rules.hold_until(gate)]) as engine, Caller(engine) as caller:
        call = asyncio.create_task(caller.call(USERS))
        await engine.until_called(1)
        call.cancel()
        await asyncio.wait([call])
        gate.set()
        await engine.until(lambda e: bool(e.acts))


async def test_slows_only_the_calls_that_name_these_users() -> None:
    # Not the clock but the order of the answers tells: the slow call's hour does not pass in this test.
    async with ScriptedEngine(rules=[rules.slow({POOR}, seconds=3600)]) as engine, Caller(engine) as caller:
        waiting = asyncio.create_task(caller.call([POOR]))
        await engine.until_called(1)
        assert (await caller.call(OTHERS)).status_code == 200
        assert not waiting.done()
        waiting.cancel()


async def test_hangs_for_these_users_a_number_of_times() -> None:
    async with ScriptedEngine(rules=[rules.hang({POOR}, times=1)]) as engine, Caller(engine) as caller:
        assert (await caller.call(OTHERS)).status_code == 200
        hanging = asyncio.create_task(caller.call([POOR]))
        await engine.until_called(2)
        assert (await caller.call([POOR])).status_code == 200
        assert not hanging.done()
        assert [record.status for record in engine.calls] == [200, None, 200]
        hanging.cancel()


async def test_resets_the_connection_without_an_answer() -> None:
    async with ScriptedEngine(rules=[rules.only(rules.first(1), rules.reset())]) as engine, Caller(engine) as caller:
        with pytest.raises(httpx.ReadError):
            await caller.call(USERS)
        assert engine.calls[0].status is None
        assert not engine.acts
        assert (await caller.call(USERS)).status_code == 200


async def test_cuts_an_answer_short_after_acting() -> None:
    async with ScriptedEngine(rules=[rules.cut_short()]) as engine, Caller(engine) as caller:
        with pytest.raises(httpx.RemoteProtocolError):
            await caller.call(USERS)
        assert engine.acts


@pytest.mark.parametrize("retryable", [True, False])
async def test_fails_single_items_a_number_of_times_without_acting_on_them(retryable: bool) -> None:
    script = [rules.items_failed({POOR}, times=2, retryable=retryable)]
    async with ScriptedEngine(rules=script, outcome_of=lambda _, __: "triggered") as engine, Caller(engine) as caller:
        for _ in range(2):
            results = (await caller.call(USERS)).json()["results"]
            poor = [result for result in results if result["user_id"] == POOR]
            assert [result["scenario_type"] for result in poor] == list(TYPES)
            assert {result["outcome"] for result in poor} == {"failed"}
            assert {result["error"]["retryable"] for result in poor} == {retryable}
            assert len(results) == len(USERS) * len(TYPES)
            assert {act.user_id for act in engine.acts.values()} == set(OTHERS)
        assert set(caller.outcomes(await caller.call(USERS)).values()) == {"triggered"}


async def test_a_call_of_none_but_failing_items_evaluates_nobody() -> None:
    async with ScriptedEngine(rules=[rules.items_refused(USERS, code="no")]) as engine, Caller(engine) as caller:
        results = (await caller.call(USERS)).json()["results"]
        assert {(item["error"]["code"], item["error"]["retryable"]) for item in results} == {("no", False)}
        assert not engine.acts


@pytest.mark.parametrize("acted", [True, False])
async def test_leaves_users_out_of_the_answer_a_number_of_times(acted: bool) -> None:
    script = [rules.missing({POOR}, times=1, acted=acted)]
    async with ScriptedEngine(rules=script, outcome_of=lambda _, __: "triggered") as engine, Caller(engine) as caller:
        assert {user for user, _ in caller.outcomes(await caller.call(USERS))} == set(OTHERS)
        assert (POOR in {act.user_id for act in engine.acts.values()}) == acted
        assert {user for user, _ in caller.outcomes(await caller.call(USERS))} == set(USERS)


async def test_repeats_shuffles_adds_and_misnames_results() -> None:
    stranger = some_users(20)[-1]
    script = [
        rules.foreign_results({stranger}),
        rules.repeated_results(),
        rules.unknown_outcomes({POOR}),
        rules.shuffled_results(),
    ]
    async with ScriptedEngine(rules=script) as engine, Caller(engine) as caller:
        foreign, *results = (await caller.call(USERS)).json()["results"]
        assert foreign["user_id"] == stranger
        assert len(results) == 2 * len(USERS) * len(TYPES)
        assert {item["outcome"] for item in results if item["user_id"] == POOR} == {"perhaps"}
        asked = [(user, kind) for user in USERS for kind in TYPES]
        answered = [(item["user_id"], item["scenario_type"]) for item in results[: len(asked)]]
        assert answered != asked
        assert sorted(answered) == sorted(asked)


async def test_answers_with_every_type_wrong() -> None:
    async with ScriptedEngine(rules=[rules.wrong_types()]) as engine, Caller(engine) as caller:
        results = (await caller.call(USERS)).json()["results"]
        assert not any(isinstance(item, dict) and isinstance(item["user_id"], str) for item in results)


@pytest.mark.parametrize(
    ("rule", "start", "size"),
    [
        (rules.not_json(), b"<html>", 52),
        (rules.empty_body(), b"", 0),
        (rules.other_json(b"null"), b"null", 4),
        (rules.huge_body(1_000_000), b'{"results": [ ', 1_000_000),
        (rules.deep_json(5_000), b'{"results": [[[[', 10_013),
    ],
    ids=["not_json", "empty", "other_json", "huge", "deep"],
)
async def test_answers_200_with_a_body_that_is_no_answer(rule: Rule, start: bytes, size: int) -> None:
    async with ScriptedEngine(rules=[rule]) as engine, Caller(engine) as caller:
        response = await caller.call(USERS)
        assert response.status_code == 200
        assert response.content.startswith(start)
        assert len(response.content) == size
        assert engine.acts


async def test_an_endless_body_ends_when_the_caller_hangs_up() -> None:
    async with ScriptedEngine(rules=[rules.endless_body()]) as engine, Caller(engine) as caller:
        read = 0
        async with caller.stream(USERS) as response:
            async for chunk in response.aiter_bytes():
                read += len(chunk)
                if read > 10_000_000:
                    break
        engine.rules.clear()
        assert (await caller.call(USERS)).status_code == 200


async def test_redirects() -> None:
    async with (
        ScriptedEngine(rules=[rules.redirect_to("http://elsewhere.invalid/")]) as engine,
        Caller(engine) as caller,
    ):
        response = await caller.call(USERS)
        assert (response.status_code, response.headers["location"]) == (307, "http://elsewhere.invalid/")


async def test_rules_compose_with_the_first_as_the_outermost() -> None:
    only_late_small_calls = rules.both(rules.naming({POOR}), rules.calls(2))
    script = [rules.only(only_late_small_calls, rules.respond(418)), rules.down_until(1)]
    assert await statuses(script, 3) == [503, 418, 200]


async def test_innocent_users_come_to_the_same_in_whatever_company() -> None:
    script = [rules.items_retryable({POOR}, times=1), rules.fail_every(5)]
    async with ScriptedEngine() as calm, Caller(calm) as caller:
        expected = caller.outcomes(await caller.call(OTHERS))
    async with ScriptedEngine(rules=script) as engine, Caller(engine) as caller:
        alone: dict[Pair, str] = {}
        for user in OTHERS:
            response = await caller.call([user])
            if response.status_code == 500:
                response = await caller.call([user])
            alone |= caller.outcomes(response)
    assert alone == expected
