"""One user's failure costs only that user, however the users were grouped."""

from __future__ import annotations

import pytest

from tests.integration.nightly.night import Night, slot_minutes_ago
from tests.scripted_engine import rules


@pytest.mark.parametrize("users_per_call", [1, 7, 100])
async def test_exactly_the_poison_users_fail_whatever_the_grouping(night: Night, users_per_call: int) -> None:
    mentors = await night.add_mentors(2000)
    poison = {mentors[number] for number in (3, 500, 501, 1203, 1999)}
    unsteady = {mentors[number] for number in (8, 777, 1500)}
    night.engine.rules += [
        rules.refuse_calls_with(poison, status=422),
        rules.fail_every(10, status=500),
        rules.items_retryable(unsteady, times=2),
    ]
    function = await night.start_function({"ENGINE_USERS_PER_CALL": str(users_per_call)})

    answer = await night.fire(function)

    assert answer.status_code == 200
    invocation = answer.json()
    assert invocation["status"] == "partial"
    pairs = await night.recorded_pairs(invocation["id"])
    expected = night.expected_pairs()
    # The same for every grouping: what the engine says of each pair, and of the poison users nothing.
    assert pairs == {pair: "failed" if pair[0] in poison else outcome for pair, outcome in expected.items()}
    (cause,) = await night.failures(invocation)
    assert cause["code"] == "engine_http_422"
    assert cause["count"] == 2 * len(poison)
    assert set(cause["sample_user_ids"]) <= poison
    await night.check_truth(invocation)
    failed = [line for line in night.log_lines(function) if line["event"] == "user_failed"]
    assert sorted(line["user_id"] for line in failed) == sorted(poison)


async def test_a_user_for_whom_the_engine_always_answers_500_fails_alone(night: Night) -> None:
    mentors = await night.add_mentors(100)
    night.engine.rules.append(rules.refuse_calls_with({mentors[42]}, status=500))
    function = await night.start_function()

    invocation = (await night.fire(function)).json()

    assert invocation["status"] == "partial"
    assert {u for (u, _), outcome in (await night.recorded_pairs(invocation["id"])).items() if outcome == "failed"} == {
        mentors[42]
    }
    await night.check_truth(invocation)


async def test_what_the_engine_leaves_out_fails_as_missing_and_foreign_results_are_dropped(night: Night) -> None:
    mentors = await night.add_mentors(50)
    stranger = "00000000-0000-4000-8000-000000000000"
    night.engine.rules += [rules.missing({mentors[7]}), rules.foreign_results({stranger}), rules.repeated_results()]
    function = await night.start_function()

    invocation = (await night.fire(function)).json()

    (cause,) = await night.failures(invocation)
    assert (cause["code"], cause["count"], cause["sample_user_ids"]) == ("engine_missing_result", 2, [mentors[7]])
    assert stranger not in {user_id for user_id, _ in await night.recorded_pairs(invocation["id"])}
    await night.check_truth(invocation)


async def test_a_refusal_of_the_engine_is_recorded_with_its_cause_and_without_personal_data(night: Night) -> None:
    mentors = await night.add_mentors(5)
    night.engine.rules.append(
        rules.alter_results(
            lambda results: [
                result | {"outcome": "failed", "error": {"code": "No Device", "message": "ann@example.org\nhas none"}}
                if result["user_id"] == mentors[0]
                else result
                for result in results
            ]
        )
    )
    function = await night.start_function()

    invocation = (await night.fire(function)).json()

    (cause,) = await night.failures(invocation)
    assert cause["code"] == "no_device"
    assert cause["message"] == "[address] has none"
    assert "ann@example.org" not in function.log_path.read_text()


async def test_every_user_refused_is_failed_and_not_an_outage(night: Night) -> None:
    mentors = await night.add_mentors(40)
    night.engine.rules.append(rules.refuse_calls_with(set(mentors), status=422))
    function = await night.start_function()

    answer = await night.fire(function)

    assert answer.status_code == 200
    assert answer.json()["status"] == "failed"
    assert answer.json()["counts"]["failed"] == 80
    await night.check_truth(answer.json())


async def test_a_user_who_stands_alone_and_makes_the_engine_fail_is_no_outage(night: Night) -> None:
    """What a retry of only the failed comes to, in an instance that has just started and knows nobody else."""
    mentors = await night.add_mentors(30)
    assert (await night.fire(await night.start_function())).json()["status"] == "succeeded"
    night.mentors = mentors[:1]
    await night.execute(b"update public.peer_mentors set status = 'left' where user_id <> %s", [mentors[0]])
    night.engine.rules.append(rules.refuse_calls_with({mentors[0]}, status=500))
    await night.project.make_slot_due()
    night.schedule, _ = slot_minutes_ago(3)

    answer = await night.fire(await night.start_function())

    assert answer.status_code == 200
    assert answer.json()["status"] == "failed"
    assert [cause["code"] for cause in await night.failures(answer.json())] == ["engine_http_500"]
    # She was told from an outage by a dry run of somebody else, which acted on nobody.
    witness = next(call for call in night.engine.calls if call.dry_run)
    assert mentors[0] not in witness.user_ids
    assert night.engine.notified_twice == []


async def test_an_engine_that_takes_one_type_at_a_time_is_asked_about_one_at_a_time(night: Night) -> None:
    await night.add_mentors(30)
    function = await night.start_function({"ENGINE_TYPES_PER_CALL": "1", "ENGINE_USERS_PER_CALL": "7"})

    invocation = (await night.fire(function)).json()

    assert invocation["status"] == "succeeded"
    assert await night.recorded_pairs(invocation["id"]) == night.expected_pairs()
    for call in night.engine.calls:
        users = [user_id for user_id, _ in call.pairs]
        assert len(set(users)) == len(users) <= 7
    await night.check_truth(invocation)
