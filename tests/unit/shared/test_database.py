"""The Data API's border: what is asked, whose fault an error is, and how often a call is made."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from pathlib import Path

import httpx
import pytest
import respx

import shared.database
from shared.config import RECORDING_MARGIN_SECONDS
from shared.database import (
    MAX_ANSWER_BYTES,
    MAX_PAUSE_SECONDS,
    PATIENCE_SECONDS,
    TIMEOUT_SECONDS,
    Database,
    connect,
)
from shared.deployment.settings import REQUEST_MARGIN_SECONDS
from shared.errors import DatabaseError, DatabaseRefusedError, DatabaseTimeoutError, DatabaseUnavailableError
from tests.unit.clock import ManualClock
from tests.unit.shared.scripted_server import Script, serving

URL = "https://project.example.org"
KEY = "sb_secret_only_the_database_knows"
PATIENCE = 2.0
CONNECTIONS = 3
JSON = {"Content-Type": "application/json"}
MIGRATIONS = Path(__file__).parents[3] / "supabase/migrations"
STATEMENT_TIMEOUT = re.compile(r"set statement_timeout = '(.*?)'")


def answer(body: bytes, headers: bytes = b"") -> Script:
    """A server that says this, as JSON and with these headers, each with its line's end."""

    async def write(_: bytes, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        writer.write(head + headers + b"\r\n" + body)

    return write


class DataApi:
    """A `Database` with respx where the Data API would be."""

    def __init__(self, database: Database, router: respx.Router, clock: ManualClock) -> None:
        self.clock = clock
        self.rpc = router.post(url__startswith=f"{URL}/rest/v1/rpc/")
        self.database = database

    async def refusal(self) -> DatabaseError:
        with pytest.raises(DatabaseError) as caught:
            await self.database.call("scheduler_claim")
        return caught.value

    async def check_away(self, kind: type[DatabaseError] = DatabaseUnavailableError) -> None:
        """A call is tried again and again, and then the database is said to be away, or to have taken too long."""
        assert type(await self.refusal()) is kind
        assert self.rpc.call_count == len(self.clock.slept) + 1 > 1


@pytest.fixture
async def api(clock: ManualClock) -> DataApi:
    router = respx.Router(assert_all_called=False)
    transport = httpx.MockTransport(router.async_handler)
    client = connect(URL, KEY, connections=CONNECTIONS, transport=transport)
    return DataApi(Database(client, patience_seconds=PATIENCE, clock=clock, sleep=clock.sleep), router, clock)


async def test_a_call_names_the_function_and_its_prefixed_arguments(api: DataApi) -> None:
    api.rpc.respond(200, json={"answer": [1, None]})
    assert await api.database.call("scheduler_claim", quantity=3, error=None) == {"answer": [1, None]}
    request = api.rpc.calls.last.request
    assert request.url == f"{URL}/rest/v1/rpc/scheduler_claim"
    assert json.loads(request.content) == {"p_quantity": 3, "p_error": None}
    assert request.headers["apikey"] == KEY


def postgrest_error(code: str, message: str = "in the database's own words") -> dict[str, object]:
    return {"code": code, "message": message, "details": None, "hint": None}


# With the status that PostgREST 12 gives each, asked of the real one.
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "40001"),
        (500, "40P01"),
        (503, "08006"),
        (503, "53100"),
        (503, "53200"),
        (503, "53300"),
        (503, "53400"),
        (503, "57P01"),
        (500, "57P02"),
        (500, "57P03"),
        (500, "58030"),
        (405, "25006"),
        (500, "25P04"),
        (400, "0A000"),
        (400, ""),
        (503, "PGRST000"),
        (503, "PGRST001"),
        (503, "PGRST002"),
        (504, "PGRST003"),
    ],
)
async def test_a_code_that_may_pass_is_tried_again_and_then_means_away(api: DataApi, status: int, code: str) -> None:
    api.rpc.respond(status, json=postgrest_error(code))
    await api.check_away()


@pytest.mark.parametrize("code", ["55P03", "57014"])
async def test_a_timeout_of_the_databases_own_is_tried_again_and_is_no_outage(api: DataApi, code: str) -> None:
    api.rpc.respond(500, json=postgrest_error(code))
    await api.check_away(DatabaseTimeoutError)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "22P02"),
        (400, "23514"),
        (403, "42501"),
        (406, "PGRST106"),
        (500, "PGRST300"),
        (400, "P0001"),
        (413, "54000"),
        (500, "55000"),
        (500, "57000"),
        (500, "58P01"),
        (500, "XX001"),
    ],
)
async def test_a_code_that_will_not_pass_is_a_refusal_and_not_tried_again(api: DataApi, status: int, code: str) -> None:
    api.rpc.respond(status, json=postgrest_error(code))
    error = await api.refusal()
    assert isinstance(error, DatabaseRefusedError)
    assert error.code == code
    assert "own words" in str(error)
    assert api.rpc.call_count == 1
    assert api.clock.slept == []


# What each is after the patience, and the status that PostgREST gives it.
@pytest.mark.parametrize(
    ("status", "code", "stays"),
    [
        (300, "PGRST203", "PGRST203"),
        (404, "PGRST202", "PGRST202"),
        (401, "PGRST301", "invalid_api_key"),
        (401, "PGRST303", "invalid_api_key"),
        (400, "3F000", "3F000"),
        (404, "42P01", "42P01"),
        (400, "42703", "42703"),
        (400, "42704", "42704"),
        (400, "42725", "42725"),
        (404, "42883", "42883"),
        (500, "XX000", "XX000"),
        (400, "26000", "26000"),
        (400, "42P05", "42P05"),
    ],
)
async def test_a_refusal_that_may_pass_is_tried_again_and_stays_a_refusal(
    api: DataApi, status: int, code: str, stays: str
) -> None:
    refusal = httpx.Response(status, json=postgrest_error(code))
    api.rpc.side_effect = [refusal, httpx.Response(200, json="done")]
    assert await api.database.call("scheduler_complete") == "done"
    api.rpc.side_effect = None
    api.rpc.mock(return_value=refusal)
    error = await api.refusal()
    assert isinstance(error, DatabaseRefusedError)
    assert (error.code, code in str(error)) == (stays, True)
    assert api.rpc.call_count == 2 + len(api.clock.slept) > 4


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520, 522, 524, 530, 540, 544])
@pytest.mark.parametrize("body", ["", "<html>Bad gateway</html>"])
async def test_a_gateways_own_error_page_means_away(api: DataApi, status: int, body: str) -> None:
    api.rpc.respond(status, text=body)
    await api.check_away()


@pytest.mark.parametrize("status", [301, 307, 400, 404, 405, 413, 414])
async def test_another_status_without_a_code_is_a_refusal_that_carries_it(api: DataApi, status: int) -> None:
    api.rpc.respond(status, text="<html></html>", headers={"Location": "https://elsewhere.example.org/"})
    error = await api.refusal()
    assert isinstance(error, DatabaseRefusedError)
    assert error.code == str(status)
    assert api.rpc.call_count == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(401, json={"message": "Invalid API key", "hint": "Double check your API key."}),
        httpx.Response(401, json={"code": 401, "message": "Unauthorized"}),
        httpx.Response(401, json=postgrest_error("42501")),
        httpx.Response(401, json=["PGRST303"]),
        httpx.Response(401, text="<html></html>"),
        httpx.Response(401, text=""),
    ],
)
async def test_a_wrong_key_is_a_refusal_of_its_own_that_does_not_show_it(api: DataApi, answer: httpx.Response) -> None:
    api.rpc.mock(return_value=answer)
    error = await api.refusal()
    assert isinstance(error, DatabaseRefusedError)
    assert error.code == "invalid_api_key"
    assert KEY not in str(error)
    assert api.rpc.call_count == 1


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ReadError, httpx.ReadTimeout, httpx.PoolTimeout, httpx.RemoteProtocolError]
)
async def test_a_connection_that_fails_means_away_and_names_no_internals(
    api: DataApi, error: type[httpx.TransportError]
) -> None:
    api.rpc.side_effect = error("10.0.0.7:443")
    translated = await api.refusal()
    assert type(translated) is DatabaseUnavailableError
    assert "10.0.0.7" not in str(translated)
    assert api.rpc.call_count > 1


async def test_an_outage_that_passes_is_none(api: DataApi) -> None:
    api.rpc.side_effect = [
        httpx.ConnectError("refused"),
        httpx.Response(503, json=postgrest_error("PGRST002")),
        httpx.Response(200, json="done"),
    ]
    assert await api.database.call("scheduler_complete") == "done"


async def test_a_person_who_waits_hears_soon_that_the_database_is_away(api: DataApi) -> None:
    api.rpc.respond(503)
    for _ in range(20):
        before = api.clock.now
        await api.refusal()
        assert api.clock.now - before < PATIENCE


async def test_an_outage_of_some_seconds_costs_a_patient_caller_nothing(api: DataApi) -> None:
    back_at = api.clock.now + PATIENCE_SECONDS - 3

    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(503) if api.clock.now < back_at else httpx.Response(200, json="done")

    api.rpc.side_effect = answer
    assert await api.database.patient().call("scheduler_complete") == "done"
    assert api.clock.now >= back_at


async def test_a_patient_caller_waits_no_longer_than_a_batch_in_hand_can(api: DataApi) -> None:
    api.rpc.respond(503)
    for _ in range(20):
        before = api.clock.now
        with pytest.raises(DatabaseUnavailableError):
            await api.database.patient().call("scheduler_complete")
        assert PATIENCE < api.clock.now - before < PATIENCE_SECONDS < RECORDING_MARGIN_SECONDS
    assert all(0 <= pause <= MAX_PAUSE_SECONDS for pause in api.clock.slept)


async def test_what_met_the_lock_time_out_is_tried_once_more_where_there_is_patience(api: DataApi) -> None:
    async def time_out(_: httpx.Request) -> httpx.Response:
        api.clock.advance(8)
        return httpx.Response(500, json=postgrest_error("55P03"))

    api.rpc.side_effect = time_out
    await api.refusal()
    assert api.rpc.call_count == 1
    with pytest.raises(DatabaseUnavailableError):
        await api.database.patient().call("scheduler_complete")
    assert api.rpc.call_count == 3


async def test_a_defect_of_ours_is_not_taken_for_the_databases(api: DataApi) -> None:
    with pytest.raises(TypeError):
        await api.database.call("scheduler_claim", quantity=object())
    assert not api.rpc.called


async def test_patient_and_other_calls_share_the_connections_and_no_more(api: DataApi) -> None:
    in_flight = most = 0
    release = asyncio.Event()

    async def counted(_: httpx.Request) -> httpx.Response:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await release.wait()
        in_flight -= 1
        return httpx.Response(200, json="done")

    api.rpc.side_effect = counted
    databases = [api.database, api.database.patient()] * (2 * CONNECTIONS)
    calls = [asyncio.create_task(database.call("scheduler_claim")) for database in databases]
    for _ in range(100):
        await asyncio.sleep(0)
    assert in_flight == CONNECTIONS
    release.set()
    assert await asyncio.gather(*calls) == ["done"] * len(calls)
    assert most == CONNECTIONS


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_gateways_own_json_means_away(api: DataApi, status: int) -> None:
    api.rpc.respond(status, json={"message": "name resolution failed"})
    assert type(await api.refusal()) is DatabaseUnavailableError


async def test_json_that_has_no_code_is_not_the_databases_and_a_refusal(api: DataApi) -> None:
    api.rpc.respond(400, json={"message": "no Route matched with those values"})
    error = await api.refusal()
    assert isinstance(error, DatabaseRefusedError)
    assert error.code == "unknown"


async def test_an_answer_that_is_too_long_is_a_refusal_and_not_tried_again(api: DataApi) -> None:
    longest = '"' + "x" * (MAX_ANSWER_BYTES - 2) + '"'
    api.rpc.mock(return_value=httpx.Response(200, headers=JSON, text=longest))
    assert len(await api.database.call("scheduler_list")) == MAX_ANSWER_BYTES - 2
    api.rpc.mock(return_value=httpx.Response(200, headers=JSON, text=longest + " "))
    error = await api.refusal()
    assert isinstance(error, DatabaseRefusedError)
    assert (error.code, api.rpc.call_count) == ("answer_too_large", 2)


def test_statements_end_before_the_client_gives_up_and_the_client_before_gateway_and_platform() -> None:
    found = [limit for file in MIGRATIONS.glob("*.sql") for limit in STATEMENT_TIMEOUT.findall(file.read_text())]
    assert len(found) > 5
    assert max(int(limit.removesuffix("s")) for limit in found) < TIMEOUT_SECONDS < min(60, REQUEST_MARGIN_SECONDS)


async def test_a_page_where_json_should_be_means_away(api: DataApi) -> None:
    api.rpc.respond(200, text="<html>maintenance</html>")
    assert type(await api.refusal()) is DatabaseUnavailableError


@pytest.mark.parametrize("code", ["40001", "40P01", "55P03", "57014"])
async def test_a_transaction_that_had_to_give_way_is_tried_again(api: DataApi, code: str) -> None:
    api.rpc.mock(side_effect=[httpx.Response(500, json=postgrest_error(code)), httpx.Response(200, json="done")])
    assert await api.database.call("scheduler_complete") == "done"


async def test_requests_carry_the_key_twice_ask_for_no_packing_and_keep_no_cookie() -> None:
    async with serving(answer(b'"done"', b"Set-Cookie: gateway=seen; Path=/\r\n")) as server:
        database = Database(connect(server.url, KEY, connections=1))
        assert [await database.call("scheduler_claim") for _ in range(2)] == ["done"] * 2
    for request in server.requests:
        head = request.lower().split(b"\r\n")
        assert {b"apikey: " + KEY.encode(), b"authorization: bearer " + KEY.encode()} <= {*head}
        assert b"accept-encoding: identity" in head
        assert b"cookie" not in request.lower()
    assert server.connections == 1


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    elsewhere = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with serving(elsewhere) as server:
        with pytest.raises(DatabaseRefusedError, match="307"):
            await Database(connect(server.url, KEY, connections=1)).call("scheduler_claim")
        assert len(server.requests) == 1


@pytest.mark.parametrize("coding", [b"gzip", b"br"])
async def test_an_answer_that_cannot_be_unpacked_means_away(coding: bytes) -> None:
    async with serving(answer(b'"done"', b"Content-Encoding: " + coding + b"\r\n")) as server:
        with pytest.raises(DatabaseUnavailableError):
            await Database(connect(server.url, KEY, connections=1), patience_seconds=0).call("scheduler_claim")


async def test_a_packed_answer_is_read_and_bounded_unpacked() -> None:
    packed = gzip.compress(b'"done"')
    async with serving(answer(packed, b"Content-Encoding: gzip\r\n")) as server:
        assert await Database(connect(server.url, KEY, connections=1)).call("scheduler_claim") == "done"
    packed = gzip.compress(b" " * (MAX_ANSWER_BYTES + 1))
    async with serving(answer(packed, b"Content-Encoding: gzip\r\n")) as server:
        with pytest.raises(DatabaseRefusedError, match="answer_too_large"):
            await Database(connect(server.url, KEY, connections=1)).call("scheduler_claim")


@pytest.mark.parametrize("ends", [True, False])
async def test_an_answer_without_an_end_means_away(ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ends:
        monkeypatch.setattr(shared.database, "TIMEOUT_SECONDS", 0.2)

    async def begin(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999999\r\n\r\n[")
        writer.write(b" " * 500_000)
        if ends:
            writer.close()

    async with serving(begin) as server:
        with pytest.raises(DatabaseUnavailableError):
            await Database(connect(server.url, KEY, connections=1), patience_seconds=0).call("scheduler_claim")


async def test_calls_that_are_cancelled_leave_all_connections_to_others() -> None:
    is_silent, arrived = True, asyncio.Semaphore(0)

    async def script(request: bytes, writer: asyncio.StreamWriter) -> None:
        arrived.release()
        if not is_silent:
            await answer(b'"done"')(request, writer)

    async with serving(script) as server:
        database = Database(connect(server.url, KEY, connections=CONNECTIONS))
        for _ in range(2):
            calls = [asyncio.create_task(database.call("scheduler_claim")) for _ in range(3 * CONNECTIONS)]
            for _ in range(CONNECTIONS):
                await arrived.acquire()
            for call in calls:
                call.cancel()
            assert all(
                isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*calls, return_exceptions=True)
            )
        is_silent = False
        async with asyncio.timeout(30):
            assert await asyncio.gather(*[database.call("scheduler_claim") for _ in range(9)]) == ["done"] * 9
