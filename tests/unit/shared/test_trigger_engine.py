"""The engine's border: what is sent, how each kind of answer is understood, and when a call is repeated."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engine_answers import Answer, Pair, harmless
from shared.errors import (
    EngineError,
    EngineRefusedCallError,
    EngineRejectedError,
    EngineTransientError,
    EngineUnavailableError,
    OutOfTimeError,
)
from shared.evaluations import EvaluationResult, MentorScenarios
from shared.load_control import ConcurrencyLimiter
from shared.observability import start_trace
from shared.post_client import HttpAnswer, HttpBodyError, HttpError, HttpTimeoutError
from shared.time_budget import TimeBudget
from shared.trigger_engine import EvaluationContext, TriggerEngine
from tests.unit.clock import ManualClock
from tests.unit.fake_post_client import FakePostClient, Posted, Reply, reply
from tests.unit.log_lines import LogLines

URL = "https://engine.example.org/base"
TOKEN = "token-that-only-the-engine-knows"
CONTEXT = EvaluationContext("invocation-1", "2026-11-23T02:00:00+00:00", "slot:2026-11-23T02:00Z", dry_run=False)
ANNA = MentorScenarios("anna", ("a", "b"))
BEN = MentorScenarios("ben", ("b",))
USERS = [ANNA, BEN]


def said(answer: Answer) -> dict[Pair, EvaluationResult]:
    return {pair: result for pair, result in answer.results.items() if result is not None}


class Fixture:
    """An engine client with a scripted engine at its border and time under control."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.http = FakePostClient()
        self.posted = self.http.posted
        self.limiter = ConcurrencyLimiter(8)
        self.engine = TriggerEngine(
            URL,
            TOKEN,
            limiter=self.limiter,
            timeout_seconds=10,
            max_attempts=4,
            sleep=clock.sleep,
            connect=self.http.connect,
        )

    def budget(self, seconds: float = 1000) -> TimeBudget:
        return TimeBudget(seconds, self.clock)

    async def answer(self, *, seconds: float = 1000) -> Answer:
        return await self.engine.evaluate(CONTEXT, USERS, self.budget(seconds))

    async def ask(self, *, seconds: float = 1000) -> dict[Pair, EvaluationResult]:
        return said(await self.answer(seconds=seconds))

    async def ask_with_retries(self, *, seconds: float = 1000) -> dict[Pair, EvaluationResult]:
        budget = self.budget(seconds)
        return said(await self.engine.retrying(budget)(self.engine.evaluate, CONTEXT, USERS, budget))

    def answers(self, *results: object) -> None:
        self.respond(200, json_body={"results": list(results)})

    def respond(self, status: int, **answer: Any) -> None:
        self.script(reply(status, **answer))

    def script(self, *replies: Reply) -> None:
        self.http.script(*replies)

    async def refusal(self) -> EngineError:
        with pytest.raises(EngineError) as caught:
            await self.ask()
        return caught.value


@pytest.fixture
def fixture(clock: ManualClock) -> Fixture:
    return Fixture(clock)


def result(user: str, scenario_type: str, outcome: str = "not_triggered", **more: object) -> dict[str, object]:
    return {"user_id": user, "scenario_type": scenario_type, "outcome": outcome, **more}


# What is sent


async def test_the_body_is_exactly_what_the_contract_says(fixture: Fixture) -> None:
    fixture.answers()
    await fixture.ask()
    assert json.loads(fixture.posted[-1].content) == {
        "invocation_id": "invocation-1",
        "scheduled_for": "2026-11-23T02:00:00+00:00",
        "dry_run": False,
        "evaluations": [
            {
                "user_id": "anna",
                "scenario_types": ["a", "b"],
                "idempotency_key_prefix": "slot:2026-11-23T02:00Z:anna",
            },
            {"user_id": "ben", "scenario_types": ["b"], "idempotency_key_prefix": "slot:2026-11-23T02:00Z:ben"},
        ],
    }


async def test_the_headers_are_what_the_contract_says(fixture: Fixture) -> None:
    fixture.answers()
    start_trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    await fixture.ask()
    assert fixture.http.url == "https://engine.example.org/base/v1/evaluations"
    assert fixture.http.headers["Authorization"] == f"Bearer {TOKEN}"
    assert fixture.http.headers["Content-Type"] == "application/json"
    assert fixture.http.headers["Accept"] == "application/json"
    sent = fixture.posted[-1].headers["traceparent"]
    assert re.fullmatch(r"00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01", sent)


async def test_a_repeated_call_carries_the_same_keys(fixture: Fixture) -> None:
    fixture.script(reply(500), reply(200, json_body={"results": []}))
    await fixture.ask_with_retries()
    first, second = (call.content for call in fixture.posted)
    assert first == second


async def test_a_call_may_take_its_time_out_or_what_is_left_of_the_budget(fixture: Fixture) -> None:
    fixture.answers()
    for seconds, expected in ((1000, 10), (3, 3)):
        await fixture.ask(seconds=seconds)
        assert fixture.posted[-1].timeout_seconds == expected


async def test_the_longest_answer_that_is_read_grows_with_the_pairs_that_are_asked_for(fixture: Fixture) -> None:
    fixture.answers()
    await fixture.ask()
    assert fixture.posted[-1].max_bytes == 1024 * 1024 + 3 * 4096


async def test_without_time_nothing_is_sent(fixture: Fixture) -> None:
    with pytest.raises(OutOfTimeError):
        await fixture.ask(seconds=0)
    assert fixture.posted == []


# How an answer is understood


async def test_each_outcome_is_read_with_what_belongs_to_it(fixture: Fixture) -> None:
    fixture.answers(
        result("anna", "a", "triggered", notification_id="n-1"),
        result("anna", "b", "suppressed"),
        result("ben", "b", "failed", error={"code": "no_device", "message": "no device", "retryable": True}),
    )
    answer = await fixture.answer()
    assert said(answer) == {
        ("anna", "a"): EvaluationResult("anna", "a", "triggered", notification_id="n-1"),
        ("anna", "b"): EvaluationResult("anna", "b", "suppressed"),
        ("ben", "b"): EvaluationResult("ben", "b", "failed", error_code="no_device", error_message="no device"),
    }
    assert set(answer.retryable) == {("ben", "b")}
    assert not answer.is_final


async def test_an_answer_is_final_when_every_pair_has_a_result_that_is(fixture: Fixture) -> None:
    final = [
        result("anna", "a"),
        result("anna", "b", "triggered"),
        result("ben", "b", "failed", error={"code": "gone"}),
    ]
    fixture.answers(*final)
    assert (await fixture.answer()).is_final
    fixture.answers(*final[:2])
    assert not (await fixture.answer()).is_final
    fixture.answers(*final[:2], result("ben", "b", "failed", error={"retryable": True}))
    assert not (await fixture.answer()).is_final


async def test_a_success_is_counted_and_a_failure_is_not(fixture: Fixture) -> None:
    fixture.answers()
    await fixture.ask()
    fixture.respond(500)
    await fixture.refusal()
    assert fixture.engine.answers == 1


@pytest.mark.parametrize("status", [408, 429, 500, 501, 502, 503, 504, 599])
async def test_a_status_that_may_pass_is_transient(fixture: Fixture, status: int) -> None:
    fixture.respond(status, content=b"internal: anna@example.org")
    error = await fixture.refusal()
    assert type(error) is EngineTransientError
    assert error.code == f"engine_http_{status}"
    assert "anna" not in error.message


@pytest.mark.parametrize("status", [400, 402, 405, 409, 410, 413, 415, 422, 451])
async def test_a_status_that_blames_the_call_refuses_the_call(fixture: Fixture, status: int) -> None:
    fixture.respond(status, content=b"anna@example.org is odd")
    error = await fixture.refusal()
    assert type(error) is EngineRefusedCallError
    assert error.code == f"engine_http_{status}"
    assert "anna" not in error.message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 401, 403, 404])
async def test_a_status_that_blames_us_rejects_us(fixture: Fixture, status: int) -> None:
    fixture.respond(status)
    error = await fixture.refusal()
    assert type(error) is EngineRejectedError
    assert error.code == f"engine_http_{status}"


@pytest.mark.parametrize("status", [201, 202, 204, 206])
async def test_another_success_than_200_is_a_bad_answer(fixture: Fixture, status: int) -> None:
    fixture.respond(status, json_body={"results": []})
    error = await fixture.refusal()
    assert (type(error), error.code) == (EngineTransientError, "engine_bad_answer")


@pytest.mark.parametrize(("status", "expected"), [(429, True), (503, True), (500, False), (502, False), (422, False)])
async def test_only_a_status_that_means_too_much_slows_us_down(fixture: Fixture, status: int, expected: bool) -> None:
    fixture.respond(status)
    assert (await fixture.refusal()).overloaded is expected
    assert fixture.limiter.limit == (4 if expected else 8)


@pytest.mark.parametrize(
    ("connect_seconds", "message"), [(5, "no connection within 5 s"), (None, "no answer within 10 s")]
)
async def test_a_time_out_is_transient_says_what_was_slow_and_slows_us_down(
    fixture: Fixture, connect_seconds: float | None, message: str
) -> None:
    fixture.script(HttpTimeoutError(connect_seconds))
    error = await fixture.refusal()
    assert (type(error), error.code, error.message) == (EngineTransientError, "engine_timeout", message)
    assert fixture.limiter.limit == 4


async def test_a_time_out_because_the_budget_ended_is_not_the_engines_fault(fixture: Fixture) -> None:
    fixture.script(HttpTimeoutError())
    with pytest.raises(OutOfTimeError):
        await fixture.ask(seconds=3)
    assert fixture.limiter.limit == 8


async def test_a_connection_that_takes_too_long_is_the_engines_fault_however_little_budget_is_left(
    fixture: Fixture,
) -> None:
    fixture.script(HttpTimeoutError(5))
    with pytest.raises(EngineTransientError):
        await fixture.ask(seconds=6)


@pytest.mark.parametrize(("error", "code"), [(HttpError, "engine_unreachable"), (HttpBodyError, "engine_bad_answer")])
@pytest.mark.parametrize("is_body", [True, False])
async def test_what_breaks_an_answer_is_transient_and_its_words_are_kept(
    fixture: Fixture, error: type[HttpError], code: str, is_body: bool
) -> None:
    broken = error("invalid peer certificate: expired")
    fixture.script(HttpAnswer(200, {}, unreadable=broken) if is_body else broken)
    found = await fixture.refusal()
    assert (type(found), found.code, found.message) == (EngineTransientError, code, str(broken))


@pytest.mark.parametrize("unreadable", [HttpError("broke"), HttpBodyError("?"), HttpTimeoutError()])
async def test_a_status_and_when_to_come_back_count_whatever_the_body_is(
    fixture: Fixture, unreadable: HttpError
) -> None:
    fixture.script(HttpAnswer(429, {"retry-after": "7"}, unreadable=unreadable))
    error = await fixture.refusal()
    assert (error.code, error.retry_after, error.overloaded) == ("engine_http_429", 7, True)
    fixture.script(HttpAnswer(401, {}, unreadable=unreadable))
    assert type(await fixture.refusal()) is EngineRejectedError


async def test_an_answer_that_arrives_packed_is_named_by_its_coding(fixture: Fixture) -> None:
    fixture.respond(200, content=b"\x1f\x8b", headers={"Content-Encoding": "x-gzip"})
    assert (await fixture.refusal()).message == "expected JSON, found Content-Encoding: x-gzip"


async def test_a_user_id_in_another_case_is_the_one_that_was_asked_for(fixture: Fixture) -> None:
    fixture.answers(result("ANNA", "a", "triggered"), result("Anna", "A"), result("bEN", "b"))
    answer = await fixture.answer()
    assert set(said(answer)) == {("anna", "a"), ("ben", "b")}
    assert answer.dropped == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>hello</html>",
        b"\xff\xfe\xfd",
        b'{"results": [',
        b"[" * 100_000,
        b'{"results": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"9" * 5000,
        b"null",
        b"[]",
        b'"results"',
        b"{}",
        b'{"results": null}',
        b'{"results": {}}',
        b'{"results": "none"}',
        b'{"Results": []}',
    ],
    ids=lambda content: f"{content[:14].decode('latin-1')}... {len(content)}",
)
async def test_an_answer_of_another_shape_is_a_bad_answer(fixture: Fixture, content: bytes) -> None:
    fixture.respond(200, content=content)
    error = await fixture.refusal()
    assert (type(error), error.code) == (EngineTransientError, "engine_bad_answer")
    assert fixture.engine.answers == 0


@pytest.mark.parametrize(
    "odd",
    [
        None,
        7,
        "anna",
        [],
        {},
        result("carla", "a"),
        result("anna", "c"),
        result("ben", "a"),
        {"user_id": 7, "scenario_type": "a", "outcome": "triggered"},
        {"user_id": ["anna"], "scenario_type": {"a": 1}, "outcome": "triggered"},
        {"user_id": "anna", "scenario_type": "a"},
        result("anna", "a", "skipped"),
        result("anna", "a", "Triggered"),
        {"user_id": "anna", "scenario_type": "a", "outcome": ["triggered"]},
        {"user_id": "anna", "scenario_type": "a", "outcome": None},
        result("anna\ud800", "a"),
    ],
)
async def test_a_result_that_was_not_asked_for_or_cannot_be_read_costs_only_itself(
    fixture: Fixture, odd: object
) -> None:
    fixture.respond(200, json_body={"results": [odd, result("ben", "b", "triggered")]})
    answer = await fixture.answer()
    assert said(answer) == {("ben", "b"): EvaluationResult("ben", "b", "triggered")}
    assert answer.dropped == 1


async def test_of_two_results_for_a_pair_the_first_one_counts(fixture: Fixture) -> None:
    fixture.answers(result("ben", "b", "triggered"), result("ben", "b", "suppressed"))
    answer = await fixture.answer()
    assert said(answer) == {("ben", "b"): EvaluationResult("ben", "b", "triggered")}
    assert answer.dropped == 1


async def test_an_unreadable_result_does_not_shadow_a_readable_one_of_the_same_pair(fixture: Fixture) -> None:
    fixture.answers(result("ben", "b", "nonsense"), result("ben", "b", "suppressed"))
    assert await fixture.ask() == {("ben", "b"): EvaluationResult("ben", "b", "suppressed")}


async def test_what_is_left_out_is_missing_from_the_answer_and_not_logged_as_odd(
    fixture: Fixture, log: LogLines
) -> None:
    fixture.answers(result("anna", "b"))
    assert set(await fixture.ask()) == {("anna", "b")}
    assert log.all() == []


@pytest.mark.parametrize(
    ("notification_id", "expected"),
    [
        ("n-1", "n-1"),
        (17, "17"),
        (None, None),
        ({"id": 1}, None),
        ([], None),
        (1.5, None),
        (True, None),
        ("n" * 1000, "n" * 300),
    ],
)
async def test_a_notification_id_is_text_of_bounded_length(
    fixture: Fixture, notification_id: object, expected: str | None
) -> None:
    fixture.answers(result("ben", "b", "triggered", notification_id=notification_id))
    assert (await fixture.ask())["ben", "b"].notification_id == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, ("engine_failed", None, False)),
        ("text", ("engine_failed", None, False)),
        ([], ("engine_failed", None, False)),
        ({}, ("engine_failed", None, False)),
        ({"code": "", "message": 7, "retryable": "yes"}, ("engine_failed", None, False)),
        ({"code": 17, "message": "", "retryable": 1}, ("engine_failed", "", False)),
        ({"code": "No Device!\n", "retryable": True}, ("no_device_", None, True)),
        # Ids, which would make each failure a cause of its own; not a status or the number of an error.
        ({"code": "user_0171e38f30f15e6c9a4d4b6f0a3c2d10"}, ("user_…", None, False)),
        ({"code": "user-4711081/0171E38F-30f1-5e6c-9a4d-4b6f0a3c2d10"}, ("user-…_…", None, False)),
        ({"code": "E1001.engine_http_503.12345"}, ("e1001.engine_http_503.12345", None, False)),
        ({"code": "c" * 1000}, ("c" * 64, None, False)),
        # looking for an address in all of it would take a day
        ({"code": "c" * 1_000_000}, ("c" * 64, None, False)),
        ({"message": "m" * 1_000_000}, ("engine_failed", "m" * 300, False)),
        ({"code": "\ud800x", "message": "lone \ud800 surrogate"}, ("_x", "lone ? surrogate", False)),
        ({"message": "two\r\nlines\x00\x1b[31m"}, ("engine_failed", "two lines [31m", False)),
        (
            {"message": "no push to anna.b+c@mail.example.org, sorry"},
            ("engine_failed", "no push to [address], sorry", False),
        ),
        ({"message": "<anna@example.org>;ben@example.org"}, ("engine_failed", "<[address]>;[address]", False)),
        ({"message": "m" * 5000}, ("engine_failed", "m" * 300, False)),
    ],
)
async def test_an_items_error_is_made_harmless_whatever_it_is(
    fixture: Fixture, error: object, expected: tuple[str, str | None, bool]
) -> None:
    fixture.respond(200, json_body={"results": [result("ben", "b", "failed", error=error)]})
    answer = await fixture.answer()
    failed = said(answer)["ben", "b"]
    assert failed.outcome == "failed"
    assert (failed.error_code, failed.error_message, ("ben", "b") in answer.retryable) == expected


@given(st.text(max_size=2000))
def test_foreign_text_becomes_one_bounded_line_that_can_be_stored(text: str) -> None:
    safe = harmless(text)
    assert len(safe) <= 300
    assert len(safe.splitlines()) <= 1
    assert "\x00" not in safe
    assert safe.encode().decode() == safe


@given(st.text(max_size=50), st.emails(), st.text(max_size=50))
def test_no_address_survives(before: str, address: str, after: str) -> None:
    assert address not in harmless(f"{before} {address} {after}")


# When a call is repeated


async def test_a_transient_failure_is_believed_after_so_many_attempts(fixture: Fixture) -> None:
    fixture.respond(500)
    with pytest.raises(EngineTransientError):
        await fixture.ask_with_retries()
    assert len(fixture.posted) == 4
    assert len(fixture.clock.slept) == 3


async def test_a_failure_that_passes_is_none(fixture: Fixture) -> None:
    fixture.script(
        HttpError("refused"),
        reply(503),
        reply(200, json_body={"results": [result("ben", "b")]}),
    )
    assert await fixture.ask_with_retries() == {("ben", "b"): EvaluationResult("ben", "b", "not_triggered")}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_refusal_is_not_repeated(fixture: Fixture, status: int) -> None:
    fixture.respond(status)
    with pytest.raises(EngineError):
        await fixture.ask_with_retries()
    assert len(fixture.posted) == 1
    assert fixture.clock.slept == []


async def test_without_retry_after_the_pauses_stay_below_a_growing_bound(fixture: Fixture) -> None:
    fixture.respond(500)
    for _ in range(20):
        fixture.clock.slept.clear()
        with pytest.raises(EngineTransientError):
            await fixture.ask_with_retries()
        assert all(0 <= pause <= 0.2 * 2**n for n, pause in enumerate(fixture.clock.slept, 1))


async def test_retry_after_in_seconds_wins(fixture: Fixture) -> None:
    fixture.script(
        reply(429, headers={"Retry-After": "7"}),
        reply(503, headers={"Retry-After": " 0 "}),
        reply(200, json_body={"results": []}),
    )
    await fixture.ask_with_retries()
    assert fixture.clock.slept == [7, 0]


async def test_retry_after_as_a_date_wins(fixture: Fixture) -> None:
    at = datetime.now(UTC) + timedelta(seconds=100)
    fixture.script(
        reply(503, headers={"Retry-After": format_datetime(at, usegmt=True)}),
        reply(200, json_body={"results": []}),
    )
    await fixture.ask_with_retries()
    (pause,) = fixture.clock.slept
    assert 0 < pause <= 100


@pytest.mark.parametrize("hours", [-1, 0, 1])
@pytest.mark.parametrize(("until", "pause"), [(100, 100), (0, 0), (-5, 0)])
async def test_a_date_to_retry_after_is_read_by_the_clock_of_whoever_sent_it(
    fixture: Fixture, hours: int, until: int, pause: int
) -> None:
    theirs = datetime.now(UTC) + timedelta(hours=hours)
    headers = {
        "Date": format_datetime(theirs, usegmt=True),
        "Retry-After": format_datetime(theirs + timedelta(seconds=until), usegmt=True),
    }
    fixture.script(reply(503, headers=headers), reply(200, json_body={"results": []}))
    await fixture.ask_with_retries()
    assert fixture.clock.slept == [pause]


@pytest.mark.parametrize(
    "date", ["", "now", "Mon, 99 Foo 2026 25:61:00 GMT", "Wed, 21 Oct 99999999999999 07:28:00 GMT"]
)
async def test_where_the_sender_does_not_say_its_time_ours_is_taken(fixture: Fixture, date: str) -> None:
    at = datetime.now(UTC) + timedelta(seconds=100)
    fixture.respond(503, headers={"Date": date, "Retry-After": format_datetime(at, usegmt=True)})
    seconds = (await fixture.refusal()).retry_after
    assert seconds is not None
    assert 0 < seconds <= 100


async def test_seconds_to_retry_after_need_no_clock(fixture: Fixture) -> None:
    fixture.respond(503, headers={"Date": "Thu, 01 Jan 1970 00:00:00 GMT", "Retry-After": "7"})
    assert (await fixture.refusal()).retry_after == 7


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("1.5", None),
        ("1e3", None),
        ("0x10", None),
        ("7, 8", None),
        ("Mon, 99 Foo 2026 25:61:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 0),
        ("0", 0),
        ("120", 120),
    ],
)
async def test_retry_after_that_makes_no_sense_is_none(
    fixture: Fixture, header: str | None, expected: float | None
) -> None:
    fixture.respond(503, headers={} if header is None else {"Retry-After": header})
    assert (await fixture.refusal()).retry_after == expected


async def test_nobody_waits_past_the_time_budget(fixture: Fixture) -> None:
    fixture.respond(500, headers={"Retry-After": "60"})
    with pytest.raises(EngineTransientError) as caught:
        await fixture.ask_with_retries(seconds=59)
    assert caught.value.retry_after == 60
    assert len(fixture.posted) == 1
    assert fixture.clock.slept == []


@pytest.mark.parametrize("status", [429, 503])
async def test_what_the_engine_asks_everybody_to_wait_is_waited_by_every_call(fixture: Fixture, status: int) -> None:
    fixture.script(
        reply(status, headers={"Retry-After": "7"}),
        reply(status, headers={"Retry-After": "3"}),
        reply(200, json_body={"results": []}),
        reply(200, json_body={"results": []}),
    )
    await fixture.refusal()
    # Nobody repeats a call here: these are others.
    await fixture.refusal()
    await fixture.ask()
    await fixture.ask()
    assert fixture.clock.slept == [7, 3]


async def test_a_later_answer_that_asks_for_less_shortens_no_wait(fixture: Fixture) -> None:
    async def both_in_flight(_: Posted) -> HttpAnswer:
        await asyncio.sleep(0)
        return reply(503, headers={"Retry-After": str(next(seconds))})

    seconds = iter((7, 3))
    fixture.script(both_in_flight)
    await asyncio.gather(fixture.refusal(), fixture.refusal())
    fixture.answers()
    await fixture.ask()
    assert fixture.clock.slept == [7]


async def test_a_failure_that_may_be_one_users_makes_nobody_else_wait(fixture: Fixture) -> None:
    fixture.script(
        reply(500, headers={"Retry-After": "7"}),
        reply(200, json_body={"results": []}),
    )
    await fixture.refusal()
    await fixture.ask()
    assert fixture.clock.slept == []


@pytest.mark.parametrize(("asked", "is_waited_for"), [(15, True), (16, False), (3600, False)])
async def test_a_wait_of_more_than_half_of_the_time_that_is_left_is_for_the_breaker(
    fixture: Fixture, asked: int, is_waited_for: bool
) -> None:
    fixture.respond(503, headers={"Retry-After": str(asked)})
    with pytest.raises(EngineTransientError if is_waited_for else EngineUnavailableError) as caught:
        await fixture.ask(seconds=30)
    assert (caught.value.code, caught.value.retry_after) == ("engine_http_503", asked)


async def test_nobody_comes_back_before_the_slice_is_over_that_was_asked_to_wait_for_longer(fixture: Fixture) -> None:
    fixture.respond(503, headers={"Retry-After": "3600"})
    budget = fixture.budget(30)
    with pytest.raises(EngineUnavailableError):
        await fixture.engine.evaluate(CONTEXT, USERS, budget)
    with pytest.raises(OutOfTimeError):
        await fixture.engine.evaluate(CONTEXT, USERS, budget)
    assert len(fixture.posted) == 1
    fixture.answers()
    # The next one may be begun as soon as the breaker allows it, whatever this process has been told.
    await fixture.ask(seconds=31)
    assert fixture.clock.slept == [30]


async def test_a_call_that_would_begin_after_the_time_budget_is_not_sent(fixture: Fixture) -> None:
    def slow_and_in_vain(_: Posted) -> HttpAnswer:
        fixture.clock.advance(5)
        return reply(500)

    fixture.script(slow_and_in_vain)
    with pytest.raises(OutOfTimeError):
        await fixture.ask_with_retries(seconds=9)
    assert len(fixture.posted) == 2


async def test_a_defect_of_ours_is_not_taken_for_the_engines_failure(fixture: Fixture) -> None:
    def defect(_: Posted) -> Any:
        raise LookupError("ours")

    fixture.script(defect)
    with pytest.raises(LookupError):
        await fixture.ask_with_retries()
    assert len(fixture.posted) == 1


@pytest.mark.parametrize("header", ["\xb2", "Wed, 21 Oct 99999999999999 07:28:00 GMT"])
async def test_an_odd_retry_after_is_none(clock: ManualClock, header: str) -> None:
    fixture = Fixture(clock)
    fixture.respond(503, headers={"Retry-After": header})
    assert (await fixture.refusal()).retry_after is None


@pytest.mark.parametrize("header", ["86400", "9" * 18, "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_an_engine_cannot_put_us_to_sleep_for_longer_than_an_hour(clock: ManualClock, header: str) -> None:
    fixture = Fixture(clock)
    fixture.respond(503, headers={"Retry-After": header})
    assert (await fixture.refusal()).retry_after == 3600


async def test_an_error_code_holds_no_address(clock: ManualClock) -> None:
    fixture = Fixture(clock)
    fixture.answers(
        {"user_id": "ben", "scenario_type": "b", "outcome": "failed", "error": {"code": "anna@example.org"}}
    )
    assert (await fixture.ask())["ben", "b"].error_code == "address"
