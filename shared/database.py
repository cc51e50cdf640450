"""The Data API: builds the supabase client's half for it, and is the border at which its errors become ours.

Only that half, which is a package of its own, postgrest: to import the whole client costs a cold start a fifth of its
time, for auth, storage and realtime, which nothing here uses.

One owner of retries: the client's hidden ones are switched off, `TRANSIENT` and `MAY_PASS` list what is retried, and
the caller sets for how long: a person who waits shall hear soon that the database is away, and a slice of work shall
not lose what it has in hand to a restart of some seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from copy import copy
from http import HTTPStatus
from typing import Any, Self

import httpx
from postgrest import APIError, AsyncPostgrestClient
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from shared.errors import DatabaseRefusedError, DatabaseTimeoutError, DatabaseUnavailableError, MentorsViewError
from shared.http_connection import ResponseTooLargeError
from shared.http_transport import HttpTransport
from shared.time_budget import TimeBudget

# Above every statement_timeout of our SQL functions, so that a call that is too slow fails with the database's own
# code; below the 60 seconds at which the gateway cuts a request.
TIMEOUT_SECONDS = 55.0
# Connections of one process; what exceeds them waits here. Two pools, so that callers who read long lists never keep a
# slice waiting. Six together: PostgREST's own pool has ten on the smallest plans, and serves the rest of the project
# and the function's other processes as well. What is beyond that pool waits within PostgREST, then is 504 PGRST003.
SLICE_CONNECTIONS = 4
READER_CONNECTIONS = 2

# The code of an answer that is longer than is read; one of our own.
ANSWER_TOO_LARGE = "answer_too_large"

# How long after its first attempt a call may be tried again.
SOON_SECONDS = 2.0
# A batch in hand is hidden for ten seconds more than a time budget: whatever is begun within it has this long to be
# recorded. Longer than the role's lock time-out, so that a call which met that is tried once more.
PATIENCE_SECONDS = 9.0
MAX_PAUSE_SECONDS = 2.0

# Raised by scheduler_check_mentors_view, with the fault as its message.
MENTORS_VIEW_FAULT = "MV001"

# What may pass by itself, by SQLSTATE or by its beginning. PostgREST answers most of these with 503, and not all: 500
# for 57P02, 57P03 and 58030, 405 for 25006, 400 for 0A000.
TRANSIENT = (
    "08",  # no connection to the database
    "53",  # out of disk, memory or connections
    "25P",  # a session whose transaction is broken or timed out; another attempt gets another connection
    "57P",  # shut down, crashed, not up yet
    "57014",  # query_canceled: the role's statement time-out, 8 s when hosted
    "58030",  # io_error
    "55P03",  # lock_not_available: the role's lock time-out, 8 s when hosted
    "40001",  # serialization_failure: PostgreSQL asks for the transaction to be repeated,
    "40P01",  # deadlock_detected: and here
    # A server that takes no writes: in the middle of a failover, or for want of space.
    "25006",  # read_only_sql_transaction
    "0A000",  # feature_not_supported: in the words of a standby, "cannot set transaction read-write mode"
    # Where a gateway's error page has no code, the client puts the HTTP status in its place.
    "500",
)
# Those of them with which the database says that it gave up a call that took too long.
TIMEOUTS = ("57014", "55P03")
# Refusals that may pass by themselves, by code or by its beginning: tried again as well, and refusals after that.
MAY_PASS = (
    # PostgREST's schema cache is older than the latest migration: PGRST202 is a function that it does not know yet.
    "PGRST2",
    # A JWT that the gateway issued for the key is rejected: the clocks differ (PGRST303, "JWT issued at future";
    # PGRST301 before PostgREST 13), or PostgREST does not know the newest signing key yet.
    "PGRST301",
    "PGRST303",
    # An upgrade between two of its migrations: an object is missing, or a function exists in two versions.
    "3F000",  # invalid_schema_name
    "42P01",  # undefined_table
    "42703",  # undefined_column
    "42704",  # undefined_object
    "42725",  # ambiguous_function
    "42883",  # undefined_function
    "XX000",  # internal_error: "cache lookup failed", when an object is replaced while a statement uses it
    # A connection whose prepared statements a pooler mixed up: another attempt gets another connection.
    "26000",  # invalid_sql_statement_name
    "42P05",  # duplicate_prepared_statement
)
# And all above 500: whoever stands before the database has numbers of his own there, such as 540 for a paused project.
AWAY_STATUSES = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


class _PassingRefusalError(DatabaseRefusedError):
    """A refusal that may pass by itself (`MAY_PASS`)."""


RETRIED = (DatabaseUnavailableError, _PassingRefusalError)


class Database:
    """Calls to the Data API, retried where that is safe and useful.

    Everything called through here may be repeated after its answer was lost: reads, and SQL functions made for it.

    Args:
        client: the Data API's client.
        connections: how many calls are under way at a time; the others wait.
        patience_seconds: how long after its first attempt a call may be tried again while the database is away. An
            attempt that is slow to fail has no second one.
        clock: monotonic seconds; replaced in tests.
        sleep: waits between attempts; replaced in tests.
    """

    def __init__(
        self,
        client: AsyncPostgrestClient,
        *,
        connections: int,
        patience_seconds: float = SOON_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._connections = asyncio.Semaphore(connections)
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._sleep = sleep

    def patient(self) -> Self:
        """The same database, over the same connections, for work in hand that is worth `PATIENCE_SECONDS`."""
        patient = copy(self)
        patient._patience_seconds = PATIENCE_SECONDS
        return patient

    async def call(self, function: str, **arguments: Any) -> Any:
        """Calls an SQL function.

        Args:
            function: its name, in the schema that the Data API exposes.
            arguments: its parameters without their `p_` prefix; must fit JSON.

        Raises:
            DatabaseUnavailableError: the database is away, and was for as long as there was patience.
            DatabaseRefusedError: it answered no; where that may pass by itself, for as long as there was patience.
        """
        parameters = {f"p_{name}": value for name, value in arguments.items()}
        return await self._attempt(lambda: self._client.rpc(function, parameters).execute())

    async def _attempt(self, send: Callable[[], Awaitable[Any]]) -> Any:
        """Sends, and again where the failure may pass; only then tenacity comes in: each call would pay for it."""
        patience = TimeBudget(self._patience_seconds, self._clock)
        try:
            return await self._send(send)
        except RETRIED as error:
            failures = [error]

        async def again() -> Any:
            if failures:
                raise failures.pop()
            return await self._send(send)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(RETRIED),
            wait=wait_random_exponential(multiplier=0.2, max=MAX_PAUSE_SECONDS),
            stop=lambda attempt: attempt.upcoming_sleep >= patience.remaining(),
            sleep=self._sleep,
            reraise=True,
        )
        return await retrying(again)

    async def _send(self, send: Callable[[], Awaitable[Any]]) -> Any:
        async with self._connections:
            try:
                return (await send()).data
            except ResponseTooLargeError as error:
                raise DatabaseRefusedError(ANSWER_TOO_LARGE, f"the Data API's answer is too long: {error}") from error
            except httpx.RequestError as error:
                raise DatabaseUnavailableError(f"the Data API did not answer ({type(error).__name__})") from error
            except APIError as error:
                raise _translate(error) from error


def _translate(error: APIError) -> DatabaseUnavailableError | DatabaseRefusedError | MentorsViewError:
    code = str(error.code or "")
    if error.code == "":
        # PostgREST's, with a 400, where its connection breaks within a statement. A gateway's has no code at all.
        return DatabaseUnavailableError("the Data API lost its connection to the database")
    if code in TIMEOUTS:
        return DatabaseTimeoutError(code)
    if code.startswith(TRANSIENT):
        return DatabaseUnavailableError(f"the Data API answered {code}")
    if code == MENTORS_VIEW_FAULT:
        return MentorsViewError(error.message or "no message")
    return _refusal(code)(code or "unknown", error.message or "no message")


def _refusal(code: str) -> type[DatabaseRefusedError]:
    return _PassingRefusalError if code.startswith(MAY_PASS) else DatabaseRefusedError


def _check_status(response: httpx.Response) -> None:
    """Translates what is not the database's answer: the client keeps only the body of an error, and not every gateway's
    body says what happened.
    """
    status = response.status_code
    if status in AWAY_STATUSES or status > HTTPStatus.INTERNAL_SERVER_ERROR:
        raise DatabaseUnavailableError(f"the Data API answered {status}")
    if status == 401:
        # Also PostgREST's answer to a role without rights, such as that of a publishable key. A gateway has no codes.
        code = _code_of(response)
        raise _refusal(code)(
            "invalid_api_key", f"the Data API refuses SUPABASE_SECRET_KEY ({code or 'without a code'})"
        )
    media_type = response.headers.get("content-type", "")
    if response.is_success and response.status_code != 204 and "json" not in media_type:
        raise DatabaseUnavailableError(f"expected JSON of the Data API, found {media_type or 'nothing'}")


def _code_of(response: httpx.Response) -> str:
    """PostgREST's code in the body of an error; empty where the answer is not PostgREST's."""
    try:
        body = response.json()
    except ValueError:
        return ""
    code = body.get("code") if isinstance(body, dict) else None
    return code if isinstance(code, str) else ""


class _Session(httpx.AsyncClient):
    """Sends each request once, as it is: redirects, cookies and authentication flows cost each call.

    Args:
        transport: sends the requests.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        super().__init__(transport=transport, timeout=TIMEOUT_SECONDS)
        self._sends = transport.handle_async_request

    async def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
        response = await self._sends(request)
        response.request = request
        await response.aread()
        _check_status(response)
        return response


def connect(
    url: str,
    secret_key: str,
    *,
    connections: int,
    transport: httpx.AsyncBaseTransport | None = None,
    patience_seconds: float = SOON_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Database:
    """Builds the client; nothing is sent yet.

    Args:
        url: the project's URL, without `/rest/v1`.
        secret_key: an `sb_secret_…` key or a legacy service_role JWT.
        connections: see `Database`.
        transport: sends the requests; any httpx transport.
        patience_seconds: see `Database`.
        clock: see `Database`.
        sleep: see `Database`.
    """
    client = AsyncPostgrestClient(
        f"{url}/rest/v1",
        # Both, as the supabase client sends them: Supabase's gateway reads the first, a bare PostgREST the second.
        headers={"apikey": secret_key, "Authorization": f"Bearer {secret_key}"},
        http_client=_Session(transport or HttpTransport()),
        retry_enabled=False,
    )
    return Database(client, connections=connections, patience_seconds=patience_seconds, clock=clock, sleep=sleep)
