"""The Data API: builds the supabase client, and is the border at which its errors become ours.

One owner of retries: the client's hidden ones are switched off, `TRANSIENT` and `MAY_PASS` list what is retried, and
the caller sets for how long: a request that is answered fails soon while the database is away, and work in hand
outlasts a restart of some seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from postgrest import APIError
from supabase import AsyncClient, AsyncClientOptions
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from shared.deadline import Deadline
from shared.errors import DatabaseRefusedError, DatabaseTimeoutError, DatabaseUnavailableError, MentorsViewError
from shared.http_client import TRANSPORT_ERROR, httpx_transport

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Value = TypeVar("_Value", bound="DataclassInstance")

# Above every statement_timeout of our SQL functions, so that a call that is too slow fails with the database's own
# code; below the 60 seconds at which the gateway cuts a request.
TIMEOUT_SECONDS = 55.0
CONNECT_SECONDS = 5.0
# A code of our own, and of how many bytes on.
ANSWER_TOO_LARGE = "answer_too_large"
MAX_ANSWER_BYTES = 16 * 1024 * 1024
# Connections of one process; what exceeds them waits here. Two pools, so that callers who read long lists never keep a
# slice waiting. Six together: PostgREST's own pool has ten on the smallest plans, and serves the rest of the project
# and the function's other processes as well. What is beyond that pool waits within PostgREST, then is 504 PGRST003.
SLICE_CONNECTIONS = 4
READER_CONNECTIONS = 2

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
# And all above 500: gateways before the database have numbers of their own there, such as 540 for a paused project.
AWAY_STATUSES = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
# httpx's and the transport's own, which breaks off an answer with its own.
UNANSWERED = (httpx.RequestError, TRANSPORT_ERROR, TimeoutError)


class _PassingRefusalError(DatabaseRefusedError):
    """A refusal that may pass by itself (`MAY_PASS`)."""


RETRIED = retry_if_exception_type((DatabaseUnavailableError, _PassingRefusalError))
PAUSES = wait_random_exponential(multiplier=0.2, max=MAX_PAUSE_SECONDS)


@dataclass
class Database:
    """Calls SQL functions through the Data API, and retries where that is safe and useful.

    Everything called through here may be repeated after its answer was lost: reads, and SQL functions made for it.

    Args:
        client: of `connect`; several may share one, and its connections.
        patience_seconds: how long after its first attempt a call may be tried again while the database is away. An
            attempt that is slow to fail has no second one.
        clock: monotonic seconds; replaced in tests.
        sleep: waits between attempts; replaced in tests.
    """

    client: AsyncClient
    patience_seconds: float = SOON_SECONDS
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def with_longer_retries(self) -> Database:
        """Returns the same database, over the same connections, for work in hand that is worth `PATIENCE_SECONDS`."""
        return replace(self, patience_seconds=PATIENCE_SECONDS)

    async def call(self, function: str, **arguments: Any) -> Any:
        """Calls an SQL function.

        Args:
            function: its name, in the schema that the Data API exposes.
            arguments: its parameters without their `p_` prefix; must fit JSON.

        Raises:
            DatabaseUnavailableError: the database is away, and was for as long as there was patience.
            DatabaseRefusedError: it answered no; where that may pass by itself, for as long as there was patience.
        """
        patience = Deadline(self.patience_seconds, self.clock)
        retrying = AsyncRetrying(
            retry=RETRIED,
            wait=PAUSES,
            stop=lambda attempt: attempt.upcoming_sleep >= patience.remaining(),
            sleep=self.sleep,
            reraise=True,
        )
        return await retrying(self._attempt, function, {f"p_{name}": value for name, value in arguments.items()})

    async def _attempt(self, function: str, parameters: dict[str, Any]) -> Any:
        try:
            return (await self.client.rpc(function, parameters).execute()).data
        except UNANSWERED as error:
            raise DatabaseUnavailableError(f"the Data API did not answer ({type(error).__name__})") from error
        except APIError as error:
            raise _translate(error) from error


def from_row(kind: type[_Value], row: dict[str, Any], **converted: Any) -> _Value:
    """Makes a value of an answer of the database's whose members have the names of its fields.

    What else the answer holds is passed over: an upgrade changes the database first.

    Args:
        kind: the value's dataclass.
        row: the answer, or a part of it.
        converted: fields that the answer holds in another form or under another name.

    Raises:
        KeyError: the answer lacks a member.
    """
    members = {field.name: row[field.name] for field in fields(kind) if field.name not in converted}
    return kind(**members, **converted)


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


async def _check_status(response: httpx.Response) -> None:
    """Translates what is not the database's answer: the client keeps only the body of an error, and not every gateway's
    body says what happened.
    """
    status = response.status_code
    if status in AWAY_STATUSES or status > HTTPStatus.INTERNAL_SERVER_ERROR:
        raise DatabaseUnavailableError(f"the Data API answered {status}")
    if status == HTTPStatus.UNAUTHORIZED:
        # Also PostgREST's answer to a role without rights, such as that of a publishable key. A gateway has no codes.
        code = _code_of(response)
        message = f"the Data API refuses SUPABASE_SECRET_KEY ({code or 'without a code'})"
        raise _refusal(code)("invalid_api_key", message)
    media_type = response.headers["content-type"]
    if response.is_success and status != HTTPStatus.NO_CONTENT and "json" not in media_type:
        raise DatabaseUnavailableError(f"expected JSON of the Data API, found {media_type or 'nothing'}")


def _code_of(response: httpx.Response) -> str:
    """Returns PostgREST's code in the body of an error; empty where the answer is not PostgREST's."""
    try:
        return str(response.json()["code"])
    except (ValueError, TypeError, KeyError):
        return ""


class _BoundedTransport(httpx.AsyncBaseTransport):
    """Sends a few requests at a time; each takes a bounded time, and its answer a bounded size.

    httpx bounds neither: its time-outs begin anew with each piece of an answer, and its own pool is no gate, because it
    loses a place for good when a request is cancelled that has just been given a new connection (httpcore 1.0.9).

    Args:
        transport: sends the requests.
        connections: requests at a time; the others wait, for as long as it takes.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, connections: int) -> None:
        self._transport = transport
        self._connections = asyncio.Semaphore(connections)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = bytearray()
        async with self._connections, asyncio.timeout(TIMEOUT_SECONDS):
            response = await self._transport.handle_async_request(request)
            async with aclosing(response):
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > MAX_ANSWER_BYTES:
                        message = f"the Data API's answer is longer than {MAX_ANSWER_BYTES} bytes"
                        raise DatabaseRefusedError(ANSWER_TOO_LARGE, message)
        # Without the other headers: no cookie of a gateway's is kept, and what came packed is unpacked by now.
        headers = {"content-type": response.headers.get("content-type", "")}
        return httpx.Response(response.status_code, headers=headers, content=bytes(content))

    async def aclose(self) -> None:
        await self._transport.aclose()


def connect(
    url: str, secret_key: str, *, connections: int, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncClient:
    """Builds a client of the Data API; nothing is sent yet. It has a thread, which would not survive a fork.

    Args:
        url: the project's URL, without `/rest/v1`.
        secret_key: an `sb_secret_…` key or a legacy service_role JWT.
        connections: how many calls are under way at a time; the others wait.
        transport: sends the requests; any httpx transport.
    """
    http_client = httpx.AsyncClient(
        transport=_BoundedTransport(transport or httpx_transport(connect_seconds=CONNECT_SECONDS), connections),
        # To unpack would cost more than the bytes it saves.
        headers={"Accept-Encoding": "identity"},
        timeout=TIMEOUT_SECONDS,
        event_hooks={"response": [_check_status]},
    )
    options = AsyncClientOptions(
        httpx_client=http_client, postgrest_client_retry=False, auto_refresh_token=False, persist_session=False
    )
    return AsyncClient(url, secret_key, options)
