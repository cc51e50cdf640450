"""Who passes the outermost layer, what the others are told, and how often one may fail."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from functions.border import OPEN_PATHS, Border
from shared.auth import TokenCheck
from shared.failed_checks import FailedCheckLimit
from tests.emulator.staging import ROOT
from tests.unit.clock import ManualClock
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN
from tests.unit.log_lines import LogLines


@dataclass
class Answer:
    """What the border sent."""

    status: int
    headers: dict[str, str]
    content: dict[str, Any]


ADMIN = {"authorization": f"Bearer {ADMIN_TOKEN}"}
INVOKE = {"authorization": f"Bearer {INVOKE_TOKEN}"}
WRONG = {"authorization": "Bearer wrong"}


class Callers:
    """Callers of a border with nothing but a 200 behind it."""

    def __init__(self, clock: ManualClock, *, trusted_proxy_count: int = 0) -> None:
        self.border = Border(
            self._application,
            TokenCheck([SecretStr(INVOKE_TOKEN)], [SecretStr(ADMIN_TOKEN)]),
            failed_checks=FailedCheckLimit(now=clock),
            trusted_proxy_count=trusted_proxy_count,
        )
        self.passed = 0

    async def _application(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.passed += 1
        await JSONResponse({"status": 200})(scope, receive, send)

    async def call(
        self,
        headers: dict[str, str],
        *,
        method: str = "POST",
        path: str = "/",
        peer: str = "192.0.2.1",
        query: bytes = b"",
    ) -> Answer:
        outgoing: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            outgoing.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "client": (peer, 50000),
            "query_string": query,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        }
        await self.border(scope, receive, send)
        start, body = outgoing
        fields = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], fields, json.loads(body["body"]))

    async def statuses(self, times: int, headers: dict[str, str] = WRONG, **settings: Any) -> list[int]:
        return [(await self.call(headers, **settings)).status for _ in range(times)]


@pytest.fixture
def callers(clock: ManualClock, log: LogLines) -> Callers:  # the log: what is logged shall not spill
    return Callers(clock)


# Who may pass


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
async def test_what_is_open_is_open_to_strangers_however_often_they_come(callers: Callers, path: str) -> None:
    assert set(await callers.statuses(20, {}, method="GET", path=path)) == {200}


def test_health_its_last_run_the_description_and_the_page_without_data_are_all_that_is_open() -> None:
    page = {path for path in OPEN_PATHS if path == "/dashboard" or path.startswith("/dashboard/")}
    assert OPEN_PATHS - page == {"/health", "/health/last-run", "/openapi.json", "/docs"}
    files = {file.name for file in (ROOT / "functions" / "dashboard").iterdir()} - {"index.html"}
    assert page == {"/dashboard", "/dashboard/", *(f"/dashboard/{name}" for name in files)}


@pytest.mark.parametrize(
    "path", ["/health/", "/health/last-run/", "/docs/", "/Health", "//health", "/health?", "/health#", "/health\n", ""]
)
async def test_what_looks_like_an_open_path_is_not_open(callers: Callers, path: str) -> None:
    assert (await callers.call({}, method="GET", path=path)).status == 401


@pytest.mark.parametrize("host", ["evil/health?", "evil/health#", "a b", "[", ":99999", "\xff"])
async def test_a_host_header_opens_no_path(callers: Callers, host: str) -> None:
    assert (await callers.call({"host": host}, method="GET", path="/api")).status == 401


async def test_a_query_that_is_no_text_is_no_defect_of_ours(callers: Callers) -> None:
    assert (await callers.call(WRONG, query=b"\xff")).status == 401
    assert (await callers.call(INVOKE, query=b"\xff")).status == 200


@pytest.mark.parametrize("headers", [{}, WRONG, {"authorization": f"Basic {ADMIN_TOKEN}"}])
async def test_a_stranger_is_told_the_same_wherever_he_knocks(callers: Callers, headers: dict[str, str]) -> None:
    places = [("POST", "/"), ("GET", "/"), ("GET", "/api/v1/scheduler-invocations"), ("GET", "/nowhere")]
    told = [await callers.call(headers, method=method, path=path) for method, path in places]
    assert {answer.status for answer in told} == {401}
    assert told[0].headers["www-authenticate"].startswith("Bearer")
    assert all(answer == told[0] for answer in told)
    assert callers.passed == 0


async def test_an_invoke_token_is_told_the_same_wherever_it_may_not_go(callers: Callers) -> None:
    places = [
        ("GET", "/"),
        ("POST", "/api/v1/scheduler-invocations"),
        ("POST", "/nowhere"),
        ("post", "/"),
        ("POST", "//"),
    ]
    told = [await callers.call(INVOKE, method=method, path=path) for method, path in places]
    assert (told[0].status, told[0].content["code"]) == (403, "forbidden")
    assert all(answer == told[0] for answer in told)
    assert callers.passed == 0


# How often a caller may fail


async def test_ten_failed_checks_are_answered_with_401_and_the_next_with_429(callers: Callers) -> None:
    assert await callers.statuses(10) == [401] * 10
    limited = await callers.call(WRONG)
    assert (limited.status, limited.content["code"]) == (429, "too_many_failed_checks")
    assert limited.headers["content-type"] == "application/problem+json"
    assert limited.headers["retry-after"] == "6"


async def test_after_the_time_in_retry_after_the_answer_is_401_again(callers: Callers, clock: ManualClock) -> None:
    await callers.statuses(10)
    clock.advance(float((await callers.call(WRONG)).headers["retry-after"]))
    assert await callers.statuses(2) == [401, 429]


async def test_a_limited_address_is_limited_everywhere_and_without_a_token_too(callers: Callers) -> None:
    await callers.statuses(10)
    assert await callers.statuses(1, {}, method="GET", path="/nowhere") == [429]


@pytest.mark.parametrize("known", [INVOKE, ADMIN])
async def test_a_known_token_passes_from_a_limited_address(callers: Callers, known: dict[str, str]) -> None:
    assert (await callers.statuses(100))[-1] == 429
    assert await callers.statuses(100, known) == [200] * 100


async def test_what_a_known_token_may_not_do_is_no_failed_check(callers: Callers) -> None:
    assert set(await callers.statuses(20, INVOKE, method="GET")) == {403}
    assert await callers.statuses(1) == [401]


async def test_another_address_is_not_limited(callers: Callers) -> None:
    await callers.statuses(11)
    assert await callers.statuses(10, peer="192.0.2.2") == [401] * 10


async def test_a_caller_gets_no_new_allowance_by_a_header(callers: Callers) -> None:
    for number in range(10):
        await callers.call(WRONG | {"x-forwarded-for": f"203.0.113.{number}"})
    assert await callers.statuses(1, WRONG | {"x-forwarded-for": "203.0.113.99"}) == [429]


async def test_behind_a_trusted_proxy_each_caller_has_an_allowance_of_his_own(
    clock: ManualClock, log: LogLines
) -> None:
    callers = Callers(clock, trusted_proxy_count=1)
    for number in range(10):
        await callers.call(WRONG | {"x-forwarded-for": f"{number}.0.0.0, 203.0.113.1"})
    assert await callers.statuses(1, WRONG | {"x-forwarded-for": "9.9.9.9, 203.0.113.1"}) == [429]
    assert await callers.statuses(1, WRONG | {"x-forwarded-for": "9.9.9.9, 203.0.113.2"}) == [401]


async def test_a_flood_of_failed_checks_leaves_a_few_lines_and_no_address(
    callers: Callers, clock: ManualClock, log: LogLines
) -> None:
    for _ in range(60):
        await callers.statuses(50)
        clock.advance(1)
    assert len(log.of("caller_limited")) == 1
    assert len(log.of("caller_refused")) == 10 + 59 // 6
    assert len(log.all()) == 1 + 10 + 59 // 6
    assert "192.0.2.1" not in log.text


async def test_each_address_and_each_flood_has_a_line_of_its_own(
    callers: Callers, clock: ManualClock, log: LogLines
) -> None:
    await callers.statuses(20)
    await callers.statuses(20, peer="192.0.2.2")
    assert len(log.of("caller_limited")) == 2
    clock.advance(60)
    await callers.statuses(20)
    assert len(log.of("caller_limited")) == 3


@pytest.mark.parametrize(
    "odd", ["\n", "\ud800", "\u2028", '"}\n{"event": "forged"}', "x" * 100_000], ids=lambda s: ascii(s[:8])
)
async def test_an_odd_path_is_one_short_line_in_the_log(callers: Callers, log: LogLines, odd: str) -> None:
    await callers.statuses(11, path=f"/{odd}")
    for line in (*log.of("caller_refused"), *log.of("caller_limited")):
        assert line["path"].isprintable()
        assert len(line["path"]) <= 200
    assert len(log.text.splitlines()) == 11
    assert log.text.isascii()
