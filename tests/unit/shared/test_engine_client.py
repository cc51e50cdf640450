"""The engine's border: what is sent, how each kind of answer is read, and when a call is repeated."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.concurrency import AdaptiveLimiter
from shared.deadline import Deadline
from shared.engine_client import EngineClient
from shared.engine_protocol import EvaluationContext
from shared.engine_response import EngineResponse, Pair
from shared.errors import (
    DeadlineExceededError,
    EngineAccessError,
    EngineError,
    EngineTransientError,
    EngineUnavailableError,
    InvalidEngineRequestError,
)
from shared.evaluations import EvaluationResult, MentorScenarios
from shared.logs import start_trace
from shared.post_client import HttpBodyError, HttpError, HttpResponse, HttpTimeoutError
from tests.unit.clock import ManualClock
from tests.unit.fake_post_client import FakePostClient, reply

TOKEN = "token-that-only-the-engine-knows"
CONTEXT = EvaluationContext("invocation-1", "2026-11-23T02:00:00+00:00", "slot:2026-11-23T02:00Z", dry_run=False)
USERS = [MentorScenarios("anna", ("a", "b")), MentorScenarios("ben", ("b",))]
BEN = ("ben", "b")
NO_ERRORS: list[object] = [None, "text", [], {}]
OK = reply(200, json_body={"results": []})


def said(answer: EngineResponse) -> dict[Pair, EvaluationResult]:
    return {pair: result for pair, result in answer.results.items() if result is not None}


def result(user: str, scenario_type: str, outcome: str = "not_triggered", **more: object) -> dict[str, object]:
    return {"user_id": user, "scenario_type": scenario_type, "outcome": outcome, **more}


class Fixture:
    """An engine client with a scripted engine at its border and time under control."""

    def __init__(self, clock: ManualClock, *, token: str = TOKEN) -> None:
        self.clock = clock
        self.http = FakePostClient()
        self.posted, self.script = self.http.posted, self.http.script
        self.limiter = AdaptiveLimiter(8)
        self.engine = EngineClient(
            "https://engine.example.org/base",
            token,
            limiter=self.limiter,
            timeout_seconds=10,
            max_attempts=4,
            sleep=clock.sleep,
            connect=self.http.connect,
        )

    async def ask(self, *, seconds: float = 1000) -> EngineResponse:
        return await self.engine.evaluate(CONTEXT, USERS, Deadline(seconds, self.clock))

    async def ask_with_retries(self, *, seconds: float = 1000) -> EngineResponse:
        deadline = Deadline(seconds, self.clock)
        answer: EngineResponse = await self.engine.retrying(deadline)(self.engine.evaluate, CONTEXT, USERS, deadline)
        return answer

    def answers(self, *results: object) -> None:
        self.script(reply(200, json_body={"results": list(results)}))

    async def refusal(self, *, seconds: float = 1000) -> EngineError:
        with pytest.raises(EngineError) as caught:
            await self.ask(seconds=seconds)
        return caught.value


@pytest.fixture
def fixture(clock: ManualClock) -> Fixture:
    return Fixture(clock)


async def test_a_request_is_what_the_contract_says(fixture: Fixture) -> None:
    fixture.script(OK)
    start_trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    await fixture.ask()
    (sent,) = fixture.posted
    prefix = "slot:2026-11-23T02:00Z"
    assert json.loads(sent.content) == {
        "invocation_id": "invocation-1",
        "scheduled_for": "2026-11-23T02:00:00+00:00",
        "dry_run": False,
        "evaluations": [
            {"user_id": "anna", "scenario_types": ["a", "b"], "idempotency_key_prefix": f"{prefix}:anna"},
            {"user_id": "ben", "scenario_types": ["b"], "idempotency_key_prefix": f"{prefix}:ben"},
        ],
    }
    assert fixture.http.url == "https://engine.example.org/base/v1/evaluations"
    expected = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Accept": "application/json"}
    assert expected.items() <= fixture.http.headers.items()
    assert re.fullmatch(r"00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01", sent.headers["traceparent"])
    assert (sent.timeout_seconds, sent.max_bytes) == (10, 1024 * 1024 + 3 * 4096)
    await fixture.ask(seconds=3)
    assert fixture.posted[-1].timeout_seconds == 3


# How an answer is understood


async def test_each_outcome_is_read_with_what_belongs_to_it(fixture: Fixture) -> None:
    fixture.answers(
        result("anna", "a", "triggered", notification_id="n-1"),
        result("anna", "b", "suppressed"),
        result("ben", "b", "failed", error={"code": "no_device", "message": "no device", "retryable": True}),
    )
    answer = await fixture.ask()
    assert said(answer) == {
        ("anna", "a"): EvaluationResult("anna", "a", "triggered", notification_id="n-1"),
        ("anna", "b"): EvaluationResult("anna", "b", "suppressed"),
        BEN: EvaluationResult("ben", "b", "failed", error_code="no_device", error_message="no device"),
    }
    assert set(answer.retryable) == {BEN}
    assert not answer.is_final


async def test_an_answer_is_final_when_every_result_is_final(fixture: Fixture) -> None:
    begin = [result("anna", "a"), result("anna", "b", "triggered")]
    for end, is_final in (([result("ben", "b", "failed", error={"code": "gone"})], True), ([], False)):
        fixture.answers(*begin, *end)
        assert (await fixture.ask()).is_final is is_final


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        *((status, EngineTransientError, None) for status in (408, 429, 500, 501, 503, 599)),
        *((status, InvalidEngineRequestError, None) for status in (400, 409, 413, 422, 451)),
        *((status, EngineAccessError, None) for status in (301, 308, 401, 403, 404)),
        *((status, EngineTransientError, "engine_bad_answer") for status in (201, 204)),
    ],
)
async def test_each_status_is_an_error_of_its_kind(
    fixture: Fixture, status: int, kind: type[EngineError], code: str | None
) -> None:
    fixture.script(reply(status, content=b'{"results": [], "to": "anna@example.org"}'))
    error = await fixture.refusal()
    assert (type(error), error.code) == (kind, code or f"engine_http_{status}")
    assert "anna" not in error.message
    assert error.overloaded is (status in (429, 503))
    assert fixture.limiter.limit == (4 if error.overloaded else 8)
    # What the engine refuses on a call's own account shows that it is not down.
    assert fixture.engine.health.answers == (kind is InvalidEngineRequestError)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"title": "No such user", "detail": "user 4711081 left", "message": "m"}, "No such user: user … left"),
        ({"title": "", "detail": "gone"}, "gone"),
        ({"message": "two\r\nlines of <anna@example.org>"}, "two lines of <[address]>"),
        ({"error": {"code": "c", "message": "no 0171E38F-30f1-5e6c-9a4d-4b6f0a3c2d10"}}, "no …"),
        ({"detail": "d" * 1_000_000}, "d" * 199 + "…"),
        *((nothing, "") for nothing in [*NO_ERRORS, 7, {"title": 7, "message": {}}, {"error": "text"}]),
    ],
)
async def test_a_failure_keeps_what_the_engine_said(fixture: Fixture, body: object, said: str) -> None:
    for status, hint in ((422, ""), (500, ""), (401, "; check its URL and token")):
        fixture.script(reply(status, json_body=body))
        expected = f"the engine answered {status}{said and ': '}{said}{hint}"
        assert (await fixture.refusal()).message == expected


async def test_a_failure_never_quotes_the_token(clock: ManualClock) -> None:
    """Some gateways answer with the Authorization header that they refuse."""
    token = 'q/"w'
    answers = [reply(403, json_body={"message": f"bad header: 'Bearer {token}'"})]
    answers.append(answers[0]._replace(content=answers[0].content.replace(b"/", rb"\/")))
    for answer in answers:
        fixture = Fixture(clock, token=token)
        fixture.script(answer)
        expected = "the engine answered 403: bad header: 'Bearer [token]'; check its URL and token"
        assert (await fixture.refusal()).message == expected


async def test_a_time_out_is_transient_and_slows_calls_down(fixture: Fixture) -> None:
    for connect_seconds, seconds, message, limit in (
        (None, 1000, "no answer within 10 s", 4),
        (5, 1000, "no connection within 5 s", 2),
        (5, 6, "no connection within 5 s", 1),
    ):
        fixture.script(HttpTimeoutError(connect_seconds))
        error = await fixture.refusal(seconds=seconds)
        assert (type(error), error.code, error.message) == (EngineTransientError, "engine_timeout", message)
        assert fixture.limiter.limit == limit


async def test_an_ended_time_budget_is_no_error_of_the_engine(fixture: Fixture) -> None:
    fixture.script(HttpTimeoutError())
    for seconds, posted in ((3, 1), (0, 1)):
        with pytest.raises(DeadlineExceededError):
            await fixture.ask(seconds=seconds)
        assert len(fixture.posted) == posted
    assert fixture.limiter.limit == 8


@pytest.mark.parametrize(("error", "code"), [(HttpError, "engine_unreachable"), (HttpBodyError, "engine_bad_answer")])
async def test_what_breaks_an_answer_is_transient(fixture: Fixture, error: type[HttpError], code: str) -> None:
    broken = error("invalid peer certificate: expired")
    for answer in (broken, HttpResponse(200, {}, unreadable=broken)):
        fixture.script(answer)
        found = await fixture.refusal()
        assert (type(found), found.code, found.message) == (EngineTransientError, code, str(broken))
    # Where the status is not 200, it counts whatever the body is.
    fixture.script(HttpResponse(429, {"retry-after": "7"}, unreadable=broken))
    found = await fixture.refusal()
    assert (found.code, found.retry_after, found.overloaded) == ("engine_http_429", 7, True)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"<html>hello</html>", b"\xff\xfe", b'{"results": [', b"9" * 5000, b"null", b"[]", b'"results"', b"{}"),
        *(b"[" * 100_000, b'{"results": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        *(b'{"results": null}', b'{"results": {}}', b'{"results": "none"}', b'{"Results": []}'),
    ],
    ids=lambda content: f"{content[:14].decode('latin-1')}... {len(content)}",
)
async def test_an_answer_of_another_shape_is_a_bad_answer(fixture: Fixture, content: bytes) -> None:
    fixture.script(reply(200, content=content))
    error = await fixture.refusal()
    assert (type(error), error.code) == (EngineTransientError, "engine_bad_answer")
    assert fixture.engine.health.answers == 0


async def test_a_coding_that_the_client_cannot_unpack_is_named(fixture: Fixture) -> None:
    fixture.script(reply(200, content=b"\x1f\x8b", headers={"Content-Encoding": f"x-gzip\n{'y' * 100}"}))
    error = await fixture.refusal()
    assert error.code == "engine_bad_answer"
    assert re.fullmatch("expected JSON, found Content-Encoding: x-gzip\N{REPLACEMENT CHARACTER}y{32}…", error.message)


@pytest.mark.parametrize(
    "odd",
    [
        *(None, 7, "anna", [], {}, result("carla", "a"), result("anna", "c"), result("ben", "a"), result("anna", "A")),
        {"user_id": 7, "scenario_type": "a", "outcome": "triggered"},
        {"user_id": ["anna"], "scenario_type": {"a": 1}, "outcome": "triggered"},
        {"user_id": "anna", "scenario_type": "a"},
        {"user_id": "anna", "scenario_type": "a", "outcome": ["triggered"]},
        *(result("anna", "a", "skipped"), result("anna", "a", "Triggered"), result("anna\ud800", "a")),
        # Of two results for a pair the first that can be read counts; a UUID in another case is the same UUID.
        *(result("ben", "b", "nonsense"), result("BEN", "b", "nonsense")),
    ],
)
async def test_an_unreadable_result_costs_only_itself(fixture: Fixture, odd: object) -> None:
    fixture.answers(odd, result("Ben", "b", "triggered"), result("ben", "b", "suppressed"))
    answer = await fixture.ask()
    assert said(answer) == {BEN: EvaluationResult("ben", "b", "triggered")}
    assert answer.dropped == 2


@pytest.mark.parametrize(
    ("notification_id", "expected"),
    [("n-1", "n-1"), (17, "17"), ({"id": 1}, None), (1.5, None), (True, None), ("n" * 1000, "n" * 300)],
)
async def test_a_notification_id_is_bounded_text(fixture: Fixture, notification_id: object, expected: object) -> None:
    fixture.answers(result("ben", "b", "triggered", notification_id=notification_id))
    assert said(await fixture.ask())[BEN].notification_id == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((nothing, ("engine_failed", None, False)) for nothing in NO_ERRORS),
        ({"code": "", "message": 7, "retryable": "yes"}, ("engine_failed", None, False)),
        ({"code": 17, "message": "", "retryable": 1}, ("engine_failed", "", False)),
        ({"code": "No Device!\n", "retryable": True}, ("no_device_", None, True)),
        ({"code": "anna@example.org"}, ("address", None, False)),
        # Ids, which would make each failure a cause of its own; not a status or the number of an error.
        ({"code": "user_0171e38f30f15e6c9a4d4b6f0a3c2d10"}, ("user_…", None, False)),
        ({"code": "user-4711081/0171E38F-30f1-5e6c-9a4d-4b6f0a3c2d10"}, ("user-…_…", None, False)),
        ({"code": "E1001.engine_http_503.12345"}, ("e1001.engine_http_503.12345", None, False)),
        # Looking for an address in all of it would take a day.
        ({"code": "c" * 1_000_000, "message": "m" * 1_000_000}, ("c" * 64, "m" * 300, False)),
        ({"code": "\ud800x", "message": "lone \ud800 surrogate"}, ("_x", "lone ? surrogate", False)),
        ({"message": "two\r\nlines\x00\x1b[31m"}, ("engine_failed", "two lines [31m", False)),
        ({"message": "<anna.b+c@mail.example.org>;ben@x.org"}, ("engine_failed", "<[address]>;[address]", False)),
    ],
)
async def test_an_items_error_is_made_harmless(fixture: Fixture, error: object, expected: tuple[object, ...]) -> None:
    fixture.answers(result("ben", "b", "failed", error=error))
    answer = await fixture.ask()
    failed = said(answer)[BEN]
    assert failed.outcome == "failed"
    assert (failed.error_code, failed.error_message, BEN in answer.retryable) == expected


# When a call is repeated


async def test_a_passing_failure_is_repeated_under_the_same_keys(fixture: Fixture) -> None:
    pauses = [reply(429, headers={"Retry-After": "7"}), reply(503, headers={"Retry-After": " 0 "})]
    fixture.script(HttpError("refused"), *pauses, reply(200, json_body={"results": [result("ben", "b")]}))
    assert said(await fixture.ask_with_retries()) == {BEN: EvaluationResult("ben", "b", "not_triggered")}
    assert (len(fixture.posted), len({call.content for call in fixture.posted})) == (4, 1)
    assert fixture.clock.slept[1:] == [7, 0], "Retry-After wins over the back-off"


async def test_a_transient_failure_is_raised_after_the_maximum_of_attempts(fixture: Fixture) -> None:
    fixture.script(reply(500))
    for _ in range(20):
        fixture.clock.slept.clear()
        fixture.posted.clear()
        with pytest.raises(EngineTransientError):
            await fixture.ask_with_retries()
        assert (len(fixture.posted), len(fixture.clock.slept)) == (4, 3)
        assert all(0 <= pause <= 0.2 * 2**n for n, pause in enumerate(fixture.clock.slept, 1))


@pytest.mark.parametrize("answer", [reply(400), reply(401), reply(404), reply(422), LookupError("a defect of ours")])
async def test_a_refusal_is_not_repeated(fixture: Fixture, answer: HttpResponse | Exception) -> None:
    fixture.script(answer)
    with pytest.raises(type(answer) if isinstance(answer, Exception) else EngineError):
        await fixture.ask_with_retries()
    assert len(fixture.posted) == 1
    assert fixture.clock.slept == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        *((odd, None) for odd in (None, "", "soon", "-3", "1.5", "1e3", "0x10", "7, 8", "\xb2")),
        *((f"{day}:00 GMT", None) for day in ("Mon, 99 Foo 2026 25:61", "Wed, 21 Oct 99999999999999 07:28")),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 0),
        *(("0", 0), ("120", 120)),
        # A mistake in a header costs an hour at most.
        *((long, 3600) for long in ("86400", "9" * 18, "Fri, 31 Dec 9999 23:59:59 GMT")),
    ],
)
async def test_retry_after_is_read_with_care(fixture: Fixture, header: str | None, expected: float | None) -> None:
    fixture.script(reply(503, headers={} if header is None else {"Retry-After": header}))
    assert (await fixture.refusal()).retry_after == expected


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_retry_date_is_read_by_either_sides_clock(fixture: Fixture, hours: int) -> None:
    theirs = datetime.now(UTC) + timedelta(hours=hours)
    date, retry_after = (format_datetime(at, usegmt=True) for at in (theirs, theirs + timedelta(seconds=100)))
    fixture.script(reply(503, headers={"Date": date, "Retry-After": retry_after}))
    assert (await fixture.refusal()).retry_after == 100
    fixture.script(reply(503, headers={"Date": "no date", "Retry-After": retry_after}))
    assert (await fixture.refusal()).retry_after == (0 if hours < 0 else 3600)


async def test_no_call_waits_past_the_time_budget(fixture: Fixture) -> None:
    fixture.script(reply(500, headers={"Retry-After": "60"}))
    with pytest.raises(EngineTransientError) as caught:
        await fixture.ask_with_retries(seconds=59)
    assert (caught.value.retry_after, caught.value.deadline_exceeded) == (60, True)
    assert len(fixture.posted) == 1
    assert fixture.clock.slept == []


@pytest.mark.parametrize(("status", "slept"), [(429, [7, 3]), (503, [7, 3]), (500, [])])
async def test_every_call_waits_where_the_engine_asks_for_it(fixture: Fixture, status: int, slept: list[float]) -> None:
    asking = [reply(status, headers={"Retry-After": seconds}) for seconds in ("7", "3")]
    fixture.script(*asking, OK)
    for _ in asking:
        await fixture.refusal()
    for _ in range(2):
        await fixture.ask()
    assert fixture.clock.slept == slept


@pytest.mark.parametrize(
    ("asked", "kind"), [(15, EngineTransientError), (16, EngineUnavailableError), (3600, EngineUnavailableError)]
)
async def test_a_wait_over_half_the_remaining_time_opens_the_breaker(
    fixture: Fixture, asked: int, kind: type[EngineError]
) -> None:
    fixture.script(reply(503, headers={"Retry-After": str(asked)}))
    error = await fixture.refusal(seconds=30)
    assert (type(error), error.code, error.retry_after) == (kind, "engine_http_503", asked)


async def test_an_engine_asking_for_longer_gets_no_more_calls(fixture: Fixture) -> None:
    fixture.script(reply(503, headers={"Retry-After": "3600"}), OK)
    deadline = Deadline(30, fixture.clock)
    for error in (EngineUnavailableError, DeadlineExceededError):
        with pytest.raises(error):
            await fixture.engine.evaluate(CONTEXT, USERS, deadline)
    assert len(fixture.posted) == 1
    # The next slice may begin as soon as the breaker allows it.
    await fixture.ask(seconds=31)
    assert fixture.clock.slept == [30]


# How far apart calls begin


ANSWERS = [*[OK] * 20, reply(500), reply(429, headers={"Retry-After": "3"})]
# Of each holder of a permit, in seconds: how long after the one before it, how long idle before its calls, and when it
# is killed, if its time does not end before.
HOLDERS = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 20), st.floats(5, 30)), min_size=2, max_size=8)


@given(HOLDERS, st.integers(5, 90), st.integers(1, 8), st.randoms(use_true_random=False))
async def test_no_minute_sees_more_calls_than_a_permit_allows(
    holders: list[tuple[float, float, float]], share: int, at_a_time: int, chance: Random
) -> None:
    clock = ManualClock()
    arrived: list[float] = []
    for pause, idle, lives in holders:
        clock.slept.clear()
        clock.advance(pause)
        fixture, deadline = Fixture(clock), Deadline(25, clock)
        deadline.space_calls(62 / share)
        clock.advance(idle)

        def send(deadline: Deadline = deadline) -> None:
            assert deadline.remaining() > 0
            arrived.append(clock() + chance.uniform(0, 2))

        while deadline.elapsed() < lives and deadline.may_call():
            fixture.script(chance.choice(ANSWERS))
            calls = [fixture.engine.evaluate(CONTEXT, USERS, deadline, before_sending=send) for _ in range(at_a_time)]
            ended = await asyncio.gather(*calls, return_exceptions=True)
            if any(isinstance(error, DeadlineExceededError | EngineUnavailableError) for error in ended):
                break
    arrived.sort()
    assert all(later - first >= 60 for first, later in zip(arrived, arrived[share:], strict=False))


async def test_calls_that_wait_heed_a_later_retry_after() -> None:
    class YieldingClock(ManualClock):
        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(0)
            await super().sleep(seconds)

    clock = YieldingClock()
    fixture, deadline, sent = Fixture(clock), Deadline(1000, clock), list[float]()
    fixture.script(reply(429, headers={"Retry-After": "30"}), OK)
    deadline.space_calls(4)

    def note() -> None:
        sent.append(deadline.elapsed())

    calls = [fixture.engine.evaluate(CONTEXT, USERS, deadline, before_sending=note) for _ in range(3)]
    await asyncio.gather(*calls, return_exceptions=True)
    assert sent == [4, 34, 38]


async def test_a_call_whose_turn_is_too_late_is_not_made(fixture: Fixture) -> None:
    fixture.script(OK)
    deadline = Deadline(10, fixture.clock)
    deadline.space_calls(4)
    calls = [fixture.engine.evaluate(CONTEXT, USERS, deadline) for _ in range(3)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(answer, DeadlineExceededError) for answer in answers] == [False, False, True]
    assert (len(fixture.posted), fixture.clock.slept, deadline.pace.waited) == (2, [4, 4], 8)
    assert fixture.limiter.limit == 8, "a call that waits for its turn is no overload"
