"""The Data API: builds the supabase client and is the border at which its errors become ours.

One owner of retries: the client's hidden ones are switched off, and what is retried is listed in `TRANSIENT`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from postgrest import APIError
from supabase import AsyncClient, AsyncClientOptions, acreate_client
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from shared.errors import DatabaseRefusedError, DatabaseUnavailableError
from shared.http_transport import PyreqwestTransport

# The Data API itself cuts a request at 60 seconds.
TIMEOUT_SECONDS = 30.0
# PostgREST's pool holds ten connections on the smallest plans, for everybody; the rest of ours wait here.
MAX_CONNECTIONS = 4
ATTEMPTS = 4

# 40001 serialization_failure, 40P01 deadlock_detected: PostgreSQL asks for the transaction to be repeated.
# 55P03 lock_not_available and 57014 query_canceled: the role's lock and statement time-outs, both 8 s when hosted.
# What says by its HTTP status that the Data API is away is translated before its body is read, see `_check_status`.
# 500 stands where a gateway's error page has no code.
TRANSIENT = frozenset({"40001", "40P01", "55P03", "57014", "500"})
UNAVAILABLE_STATUSES = frozenset({408, 429, 502, 503, 504, 520, 521, 522, 523, 524})


class Database:
    """Calls to the Data API, retried where that is safe and useful.

    Everything called through here may be repeated after its answer was lost: reads, and SQL functions made for it.

    Args:
        client: the supabase client.
        attempts: how often a call is tried while the database is away.
        sleep: waits between attempts; replaced in tests.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._connections = asyncio.Semaphore(MAX_CONNECTIONS)
        self._attempts = attempts
        self._sleep = sleep

    async def call(self, function: str, **arguments: Any) -> Any:
        """Calls an SQL function.

        Args:
            function: its name, in the schema that the Data API exposes.
            arguments: its parameters without their `p_` prefix; must fit JSON.

        Raises:
            DatabaseUnavailableError: the database is away, after all attempts.
            DatabaseRefusedError: it answered no.
        """
        parameters = {f"p_{name}": value for name, value in arguments.items()}
        return await self._attempt(lambda: self._client.rpc(function, parameters).execute())

    async def read_page(
        self, relation: str, columns: str, *, key: str, after: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Reads one keyset page.

        Args:
            relation: a table or view.
            columns: comma-separated.
            key: the column to order and page by; rows without a value in it are left out.
            after: the last key of the page before, None for the first page.
            limit: rows; the Data API may return fewer even when there are more.

        Raises:
            DatabaseUnavailableError: the database is away, after all attempts.
            DatabaseRefusedError: it answered no.
        """
        query = self._client.table(relation).select(columns).order(key).limit(limit)
        query = query.not_.is_(key, "null") if after is None else query.gt(key, after)
        rows: list[dict[str, Any]] = await self._attempt(lambda: query.execute())
        return rows

    async def _attempt(self, send: Callable[[], Awaitable[Any]]) -> Any:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(DatabaseUnavailableError),
            wait=wait_random_exponential(multiplier=0.2, max=3),
            stop=stop_after_attempt(self._attempts),
            sleep=self._sleep,
            reraise=True,
        )
        return await retrying(self._send, send)

    async def _send(self, send: Callable[[], Awaitable[Any]]) -> Any:
        async with self._connections:
            try:
                return (await send()).data
            except httpx.RequestError as error:
                raise DatabaseUnavailableError(f"the Data API did not answer ({type(error).__name__})") from error
            except APIError as error:
                raise _translate(error) from error


def _translate(error: APIError) -> DatabaseUnavailableError | DatabaseRefusedError:
    code = str(error.code or "")
    if code in TRANSIENT:
        return DatabaseUnavailableError(f"the Data API answered {code}")
    return DatabaseRefusedError(code or "unknown", error.message or "no message")


async def _check_status(response: httpx.Response) -> None:
    """Translates what is not the database's answer: the client keeps only the body of an error, and not every gateway's
    body says what happened.
    """
    status = response.status_code
    if status in UNAVAILABLE_STATUSES:
        raise DatabaseUnavailableError(f"the Data API answered {status}")
    if status == 401:
        # Also PostgREST's answer to a role without rights, such as that of a publishable key.
        raise DatabaseRefusedError("invalid_api_key", "the Data API refuses SUPABASE_SECRET_KEY")
    media_type = response.headers.get("content-type", "")
    if response.is_success and response.status_code != 204 and "json" not in media_type:
        raise DatabaseUnavailableError(f"expected JSON of the Data API, found {media_type or 'nothing'}")


async def connect(
    url: str,
    secret_key: str,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Database:
    """Builds the client; nothing is sent yet.

    Args:
        url: the project's URL, without `/rest/v1`.
        secret_key: an `sb_secret_…` key or a legacy service_role JWT.
        transport: sends the requests; any httpx transport.
        attempts: see `Database`.
        sleep: see `Database`.
    """
    client = await acreate_client(
        url,
        secret_key,
        AsyncClientOptions(
            auto_refresh_token=False,
            persist_session=False,
            postgrest_client_retry=False,
            httpx_client=httpx.AsyncClient(
                transport=transport or PyreqwestTransport(),
                timeout=TIMEOUT_SECONDS,
                event_hooks={"response": [_check_status]},
            ),
        ),
    )
    return Database(client, attempts=attempts, sleep=sleep)
