"""The Data API's border: what is sent, how an error is translated, and how often a call is made."""

from __future__ import annotations

import asyncio
import gzip
import json
import re

import httpx
import pytest
import respx

import shared.database
from shared.config import RECORDING_MARGIN_SECONDS
from shared.database import (
    LONGER_RETRY_SECONDS,
    MAX_ANSWER_BYTES,
    MAX_PAUSE_SECONDS,
    TIMEOUT_SECONDS,
    Database,
    connect,
)
from shared.deployment.settings import REQUEST_MARGIN_SECONDS
from shared.errors import DatabaseError, DatabaseRefusedError, DatabaseTimeoutError, DatabaseUnavailableError
from tests.emulator.staging import ROOT
from tests.unit.clock import ManualClock
from tests.unit.shared.scripted_server import answer, serving

URL = "https://project.example.org"
KEY = "sb_secret_only_the_database_knows"
RETRY_SECONDS = 2.0
CONNECTIONS = 3
JSON = b"Content-Type: application/json"
ELSEWHERE = {"Location": "https://elsewhere.example.org/"}


def error(status: int, code: str) -> httpx.Response:
    """As PostgREST answers."""
    return httpx.Response(status, json={"code": code, "message": "in its own words", "details": None, "hint": None})


class DataApi:
    """A `Database` with respx where the Data API would be."""

    def __init__(self, database: Database, router: respx.Router, clock: ManualClock) -> None:
        self.clock = clock
        self.rpc = router.post(url__startswith=f"{URL}/rest/v1/rpc/")
        self.database = database

    async def refusal(self, *, with_longer_retries: bool = False) -> DatabaseError:
        database = self.database.with_longer_retries() if with_longer_retries else self.database
        with pytest.raises(DatabaseError) as caught:
            await database.call("scheduler_claim")
        return caught.value


@pytest.fixture
async def api(clock: ManualClock) -> DataApi:
    router = respx.Router(assert_all_called=False)
    client = connect(URL, KEY, connections=CONNECTIONS, transport=httpx.MockTransport(router.async_handler))
    return DataApi(Database(client, retry_seconds=RETRY_SECONDS, clock=clock, sleep=clock.sleep), router, clock)


async def test_a_call_names_the_function_and_its_prefixed_arguments(api: DataApi) -> None:
    api.rpc.respond(200, json={"answer": [1, None]})
    assert await api.database.call("scheduler_claim", quantity=3, error=None) == {"answer": [1, None]}
    request = api.rpc.calls.last.request
    assert request.url == f"{URL}/rest/v1/rpc/scheduler_claim"
    assert json.loads(request.content) == {"p_quantity": 3, "p_error": None}


# With the status that PostgREST 12 gives each, as the real one returns it; gateways have pages of their own.
AWAY = [
    *(error(500, code) for code in ("40001", "40P01", "57P02", "57P03", "58030", "25P04")),
    *(error(503, code) for code in ("08006", "53100", "53300", "57P01", "PGRST000", "PGRST001", "PGRST002")),
    *(error(504, "PGRST003"), error(405, "25006"), error(400, "0A000"), error(400, "")),
    *(httpx.Response(status) for status in (408, 429, 500, 502, 503, 504, 522, 540)),
    *(httpx.Response(status, json={"message": "name resolution failed"}) for status in (429, 503)),
    *(httpx.Response(status, text="<html>maintenance</html>") for status in (200, 502)),
    *(
        httpx.Response(200, content=text, headers={"Content-Type": "application/json"})
        for text in (b'"\xff"', b"[" * 100_000)
    ),
    *(kind("10.0.0.7:443") for kind in (httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError)),
]
# Of an upgrade, of clocks that differ, of a pooler: what each is after the retries.
PASSING = [
    *((error(401, code), "invalid_api_key") for code in ("PGRST301", "PGRST303")),
    *((error(400, code), code) for code in ("3F000", "42703", "42704", "42725", "26000", "42P05")),
    *((error(404, code), code) for code in ("42P01", "42883", "PGRST202")),
    *((error(status, code), code) for status, code in ((300, "PGRST203"), (500, "XX000"))),
]


@pytest.mark.parametrize(
    ("outcome", "kind", "code"),
    [
        *((one, DatabaseUnavailableError, None) for one in AWAY),
        *((error(500, code), DatabaseTimeoutError, code) for code in ("55P03", "57014")),
        *((one, DatabaseRefusedError, code) for one, code in PASSING),
    ],
    ids=lambda one: f"{one!r} {getattr(one, 'text', '')[:24]}",
)
async def test_what_may_pass_is_tried_again_before_it_counts(
    api: DataApi, outcome: httpx.Response | Exception, kind: type[DatabaseError], code: str | None
) -> None:
    api.rpc.side_effect = [outcome, httpx.Response(200, json="done")]
    assert await api.database.call("scheduler_complete") == "done"
    api.rpc.mock(side_effect=outcome if isinstance(outcome, Exception) else lambda _: outcome)
    found = await api.refusal()
    assert isinstance(found, kind)
    assert isinstance(found, DatabaseTimeoutError) is (kind is DatabaseTimeoutError)
    assert getattr(found, "code", None) == code
    assert "10.0.0.7" not in str(found)
    # One try and one pause before the success, a pause between each two later ones.
    assert api.rpc.call_count == len(api.clock.slept) + 2 > 3


REFUSED = [
    *(error(400, code) for code in ("22P02", "23514", "P0001")),
    *(error(500, code) for code in ("55000", "57000", "58P01", "PGRST300", "XX001")),
    *(error(403, "42501"), error(406, "PGRST106"), error(413, "54000")),
]


@pytest.mark.parametrize(
    ("response", "code"),
    [
        *((one, one.json()["code"]) for one in REFUSED),
        *((httpx.Response(status, text="", headers=ELSEWHERE), str(status)) for status in (301, 307, 400, 404, 413)),
        (httpx.Response(400, json={"message": "no Route matched with those values"}), "unknown"),
        (httpx.Response(401, json={"message": "Invalid API key"}), "invalid_api_key"),
        (error(401, "42501"), "invalid_api_key"),
        *((httpx.Response(401, text=text), "invalid_api_key") for text in ("", "<html></html>", '["PGRST303"]')),
    ],
)
async def test_what_will_not_pass_is_refused_at_once(api: DataApi, response: httpx.Response, code: str) -> None:
    api.rpc.mock(return_value=response)
    found = await api.refusal()
    assert isinstance(found, DatabaseRefusedError)
    assert found.code == code
    assert KEY not in str(found)
    assert api.rpc.call_count == 1
    assert api.clock.slept == []


async def test_the_words_of_an_error_are_one_bounded_line(api: DataApi) -> None:
    api.rpc.respond(400, json={"code": "c" * 1_000_000, "message": f"two\nlines {'m' * 1_000_000}"})
    said = str(await api.refusal())
    assert (len(said) < 400, said.isprintable()) == (True, True)


async def test_longer_retries_bound_how_long_a_call_is_tried(api: DataApi) -> None:
    api.rpc.respond(503)
    for _ in range(20):
        before = api.clock.now
        await api.refusal()
        assert api.clock.now - before < RETRY_SECONDS
        before = api.clock.now
        await api.refusal(with_longer_retries=True)
        assert RETRY_SECONDS < api.clock.now - before < LONGER_RETRY_SECONDS < RECORDING_MARGIN_SECONDS
    assert all(0 <= pause <= MAX_PAUSE_SECONDS for pause in api.clock.slept)


async def test_a_defect_of_ours_is_not_taken_for_the_databases(api: DataApi) -> None:
    with pytest.raises(TypeError):
        await api.database.call("scheduler_claim", quantity=object())
    assert not api.rpc.called


async def test_calls_share_the_connections_also_after_cancellations(api: DataApi) -> None:
    in_flight = 0
    release = asyncio.Event()

    async def counted(_: httpx.Request) -> httpx.Response:
        nonlocal in_flight
        in_flight += 1
        try:
            await release.wait()
        finally:
            in_flight -= 1
        return httpx.Response(200, json="done")

    async def start() -> list[asyncio.Task[object]]:
        databases = [api.database, api.database.with_longer_retries()] * (2 * CONNECTIONS)
        calls = [asyncio.create_task(database.call("scheduler_claim")) for database in databases]
        for _ in range(100):
            await asyncio.sleep(0)
        assert in_flight == CONNECTIONS
        return calls

    api.rpc.side_effect = counted
    cancelled = await start()
    for call in cancelled:
        call.cancel()
    await asyncio.wait(cancelled)
    calls = await start()
    release.set()
    assert await asyncio.gather(*calls) == ["done"] * len(calls)


async def test_an_answer_that_is_too_long_is_refused(api: DataApi) -> None:
    longest = "x" * (MAX_ANSWER_BYTES - 2)
    api.rpc.respond(200, json=longest)
    assert await api.database.call("scheduler_list") == longest
    api.rpc.respond(200, json=longest + "x")
    found = await api.refusal()
    assert isinstance(found, DatabaseRefusedError)
    assert (found.code, api.rpc.call_count) == ("answer_too_large", 2)


def test_statements_time_out_before_the_client_before_the_gateway() -> None:
    sql = "".join(file.read_text() for file in (ROOT / "supabase/migrations").glob("*.sql"))
    limits = [int(seconds) for seconds in re.findall(r"set statement_timeout = '(\d+)s'", sql)]
    assert max(limits) < TIMEOUT_SECONDS < min(60, REQUEST_MARGIN_SECONDS)


async def test_requests_carry_the_key_and_keep_no_cookie() -> None:
    async with serving(answer(b'"done"', JSON, b"Set-Cookie: gateway=seen; Path=/")) as server:
        database = Database(connect(server.url, KEY, connections=1))
        assert [await database.call("scheduler_claim") for _ in range(2)] == ["done"] * 2
    for request in server.requests:
        head = request.lower().split(b"\r\n")
        assert {b"apikey: " + KEY.encode(), b"authorization: bearer " + KEY.encode()} <= {*head}
        assert b"accept-encoding: identity" in head
        assert b"cookie" not in request.lower()
    assert server.connections == 1


async def test_a_packed_answer_is_bounded_unpacked() -> None:
    for body, error_, match in (
        (gzip.compress(b" " * (MAX_ANSWER_BYTES + 1)), DatabaseRefusedError, "answer_too_large"),
        (b'"done"', DatabaseUnavailableError, "did not answer"),
    ):
        async with serving(answer(body, JSON, b"Content-Encoding: gzip")) as server:
            with pytest.raises(error_, match=match):
                await Database(connect(server.url, KEY, connections=1), retry_seconds=0).call("scheduler_claim")


@pytest.mark.parametrize("ends", [True, False])
async def test_an_answer_without_an_end_means_away(ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ends:
        monkeypatch.setattr(shared.database, "TIMEOUT_SECONDS", 0.2)

    async def begin(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999999\r\n\r\n[")
        while not ends:  # piece by piece, each in time
            writer.write(b" ")
            await asyncio.sleep(0.05)
        writer.close()

    async with serving(begin) as server, asyncio.timeout(20):
        with pytest.raises(DatabaseUnavailableError):
            await Database(connect(server.url, KEY, connections=1), retry_seconds=0).call("scheduler_claim")
