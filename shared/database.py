"""The Data API: builds the supabase client, translates its errors, and is the base of the repositories.

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
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from postgrest import APIError
from supabase import AsyncClient, AsyncClientOptions
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from shared.deadline import Deadline
from shared.errors import DatabaseRefusedError, DatabaseTimeoutError, DatabaseUnavailableError, MentorsViewError
from shared.http_client import TRANSPORT_ERROR, cause_of, httpx_transport
from shared.sanitize import sanitize

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from shared.config import ScenarioEvaluationConfig

_Value = TypeVar("_Value", bound="DataclassInstance")

# Above every statement_timeout of the SQL functions, so that a call that is too slow fails with the database's own
# code; below the 60 seconds at which the gateway cuts a request.
TIMEOUT_SECONDS = 55.0
# This module's own code, and from how many bytes on.
ANSWER_TOO_LARGE = "answer_too_large"
MAX_ANSWER_BYTES = 16 * 1024 * 1024
# Connections of one process; what exceeds them waits here. Two pools, so that callers who read long lists never keep a
# slice waiting. Six together: PostgREST's own pool has ten on the smallest plans, and serves all else of the project
# and the function's other processes as well. What is beyond that pool waits within PostgREST, then is 504 PGRST003.
SLICE_CONNECTIONS = 4
READER_CONNECTIONS = 2

# A batch in hand is hidden for ten seconds more than a time budget: whatever is begun within it has this long to be
# recorded. Longer than the role's lock time-out, so that a call which met that is tried once more.
LONGER_RETRY_SECONDS = 9.0
MAX_PAUSE_SECONDS = 2.0

# Raised by scheduler_check_mentors_view, with the fault as its message.
MENTORS_VIEW_FAULT = "MV001"

# What may pass by itself, by SQLSTATE or its beginning: PostgREST answers some with 400, 405 or 500 instead of 503.
TRANSIENT = (
    *("08", "53"),  # no connection to the database; out of disk, memory or connections
    "25P",  # a session whose transaction is broken or timed out; another attempt gets another connection
    *("57P", "58030"),  # shut down, crashed, not up yet; io_error
    *("40001", "40P01"),  # serialization_failure, deadlock_detected: PostgreSQL requests a repeat
    *("25006", "0A000"),  # no writes, in a failover or for want of space; a standby "cannot set … read-write mode"
    "500",  # the HTTP status, which the client puts in the place of a code that is missing
)
# The role's statement time-out (query_canceled) and lock time-out (lock_not_available), 8 s each when hosted.
TIMEOUTS = ("57014", "55P03")
# Refusals that may pass by themselves, by code or its beginning: tried again as well, and refusals after that.
MAY_PASS = (
    "PGRST2",  # PostgREST's schema cache is older than the latest migration; PGRST202: it does not know a function yet
    # An upgrade between two of its migrations: schema, table, column, object or function is undefined; a function
    # exists in two versions; an object is replaced while a statement uses it ("cache lookup failed").
    *("3F000", "42P01", "42703", "42704", "42883", "42725", "XX000"),
    # The gateway's JWT for the key is rejected: the clocks differ (PGRST303, "JWT issued at future"; PGRST301 before
    # PostgREST 13), or PostgREST does not know the newest signing key yet.
    *("PGRST301", "PGRST303"),
    # A pooler mixed up a connection's prepared statements: another attempt gets another connection.
    *("26000", "42P05"),
)


class _PassingRefusalError(DatabaseRefusedError):
    """A refusal that may pass by itself (`MAY_PASS`)."""


@dataclass
class Database:
    """Calls SQL functions through the Data API, and retries where that is safe and useful.

    Everything called through here may be repeated after its answer was lost: reads, and SQL functions made for it.
    `retry_seconds`: how long after its first attempt a call may be tried again; one that is slow to fail is not.
    """

    client: AsyncClient
    retry_seconds: float = 2.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def with_longer_retries(self) -> Database:
        """Returns the same database, over the same connections, whose calls are retried for `LONGER_RETRY_SECONDS`."""
        return replace(self, retry_seconds=LONGER_RETRY_SECONDS)

    async def call(self, function: str, **arguments: Any) -> Any:
        """Calls an SQL function; its arguments are without their `p_` prefix and must fit JSON.

        Raises:
            DatabaseUnavailableError: the database is away, and was for `retry_seconds`.
            DatabaseRefusedError: it refused the call; where that may pass by itself, for `retry_seconds`.
            MentorsViewError: the view of active mentors cannot be read as it is.
        """
        retry_budget = Deadline(self.retry_seconds, self.clock)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((DatabaseUnavailableError, _PassingRefusalError)),
            wait=wait_random_exponential(multiplier=0.2, max=MAX_PAUSE_SECONDS),
            stop=lambda attempt: attempt.upcoming_sleep >= retry_budget.remaining(),
            sleep=self.sleep,
            reraise=True,
        )
        return await retrying(self._attempt, function, {f"p_{name}": value for name, value in arguments.items()})

    async def _attempt(self, function: str, parameters: dict[str, Any]) -> Any:
        try:
            return (await self.client.rpc(function, parameters).execute()).data
        except (httpx.RequestError, TRANSPORT_ERROR, TimeoutError) as error:
            raise DatabaseUnavailableError(f"the Data API did not answer ({cause_of(error)})") from error
        except APIError as error:
            raise _translate(error) from error
        except (ValueError, RecursionError) as error:
            raise DatabaseUnavailableError("the Data API's answer cannot be read as JSON") from error


class Repository:
    """Calls SQL functions, which hold the rules, one for each method; each raises as `Database.call` does."""

    def __init__(self, database: Database, config: ScenarioEvaluationConfig) -> None:
        self._database = database
        self._config = config


def from_row(kind: type[_Value], row: dict[str, Any], **converted: Any) -> _Value:
    """Makes a dataclass of the members of an answer; `converted`: fields of another form or name.

    Other members are ignored: an upgrade changes the database before the function.
    """
    members = {field.name: row[field.name] for field in fields(kind) if field.name not in converted}
    return kind(**members, **converted)


def _translate(error: APIError) -> DatabaseUnavailableError | DatabaseRefusedError | MentorsViewError:
    # Both end in a log line, and a gateway may say anything.
    code = sanitize(str(error.code or ""), limit=40)
    if error.code == "":
        # PostgREST's, with a 400, where its connection breaks within a statement. A gateway's has no code at all.
        return DatabaseUnavailableError("the Data API lost its connection to the database")
    if code in TIMEOUTS:
        return DatabaseTimeoutError(code)
    if code.startswith(TRANSIENT):
        return DatabaseUnavailableError(f"the Data API answered {code}")
    if code == MENTORS_VIEW_FAULT:
        return MentorsViewError(error.message or "no message")
    return _refusal(code)(code or "unknown", sanitize(error.message or "no message", limit=300))


def _refusal(code: str) -> type[DatabaseRefusedError]:
    return _PassingRefusalError if code.startswith(MAY_PASS) else DatabaseRefusedError


async def _check_status(response: httpx.Response) -> None:
    """Translates answers of gateways: the client keeps only an error's body, which may not say what happened."""
    status = response.status_code
    # Gateways before the database have numbers of their own above 500, such as 540 for a paused project.
    if status in (408, 429) or status > 500:
        raise DatabaseUnavailableError(f"the Data API answered {status}")
    if status == 401:
        # Also PostgREST's answer to a role without rights, such as that of a publishable key. A gateway has no codes.
        code = _code_of(response)
        message = f"the Data API refuses SUPABASE_SECRET_KEY ({code or 'without a code'})"
        raise _refusal(code)("invalid_api_key", message)
    media_type = response.headers["content-type"]
    if response.is_success and status != 204 and "json" not in media_type:
        raise DatabaseUnavailableError(f"expected JSON of the Data API, found {media_type or 'nothing'}")


def _code_of(response: httpx.Response) -> str:
    """Returns PostgREST's code in the body of an error; empty where the answer is not PostgREST's."""
    try:
        return str(response.json()["code"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


class _BoundedTransport(httpx.AsyncBaseTransport):
    """Bounds the requests at a time, the time of each, and the size of its answer.

    httpx bounds none of them: its time-outs begin anew with each piece of an answer, and its pool loses a place for
    good when a request is cancelled that has just been given a new connection (httpcore 1.0.9).
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None, connections: int) -> None:
        self._transport = transport
        self._connections = asyncio.Semaphore(connections)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = bytearray()
        async with self._connections, asyncio.timeout(TIMEOUT_SECONDS):
            self._transport = self._transport or httpx_transport()  # now, so that what it raises is a call's failure
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


def connect(
    url: str, secret_key: str, *, connections: int, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncClient:
    """Builds a client of the Data API; nothing is sent yet. Its thread starts with the first call, after any fork.

    Args:
        url: the project's, without `/rest/v1`.
        secret_key: an `sb_secret_…` key or a legacy service_role JWT.
        connections: calls under way at a time; the others wait, for as long as it takes.
        transport: sends the requests; replaced in tests.
    """
    http_client = httpx.AsyncClient(
        transport=_BoundedTransport(transport, connections),
        # To unpack would cost more than the bytes it saves.
        headers={"Accept-Encoding": "identity"},
        timeout=TIMEOUT_SECONDS,
        event_hooks={"response": [_check_status]},
    )
    options = AsyncClientOptions(
        httpx_client=http_client, postgrest_client_retry=False, auto_refresh_token=False, persist_session=False
    )
    return AsyncClient(url, secret_key, options)
