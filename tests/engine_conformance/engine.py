"""The engine that is examined, as the scheduler calls it."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace

import httpx
from pydantic import ValidationError

from .protocols import Batch, Evaluations, Item, Pair, Single, oddities

# As much as the scheduler reads.
BODY_BYTES = 1024 * 1024
BYTES_PER_PAIR = 4096
Transport = httpx.AsyncBaseTransport | None
NOTHING = Evaluations((), (), "", dry_run=True)


@dataclass(frozen=True)
class Reply:
    """What came of a call, or of the calls that a question was cut into: the first that is no answer ends them.

    Args:
        failure: why there was no answer at all; None: there was one.
        is_too_long: it is longer than the scheduler reads; what it says was not read either.
        oddities: what is wrong with the answer's form; its items were not read then.
        is_answer: the status says so, whatever the body does.
    """

    asked: Evaluations
    status: int = 0
    failure: str | None = None
    media_type: str = ""
    is_too_long: bool = False
    items: tuple[Item, ...] = ()
    oddities: tuple[str, ...] = ()
    is_answer: bool = False
    parts: tuple[Reply, ...] = ()

    @property
    def calls(self) -> tuple[Reply, ...]:
        return self.parts or (self,)

    def described(self) -> str:
        return self.failure or f"status {self.status}"

    def of(self, pair: Pair) -> Item | None:
        """The first result for a pair."""
        return next((item for item in self.items if (item.user_id, item.scenario_type) == pair), None)

    def outcome_of(self, pair: Pair) -> str | None:
        item = self.of(pair)
        return None if item is None else item.outcome

    def notification_of(self, pair: Pair) -> str | None:
        item = self.of(pair)
        return None if item is None or item.notification_id is None else str(item.notification_id)


class Engine:
    """Calls an engine, each time for so many seconds, the whole answer included.

    A question is cut into calls as large as the protocol allows.
    """

    def __init__(
        self, url: str, token: str, protocol: Batch | Single, *, timeout_seconds: float, transport: Transport = None
    ) -> None:
        self._url = url.rstrip("/") + protocol.path
        self.token = token
        self.protocol = protocol
        self._timeout_seconds = timeout_seconds
        # As the scheduler: no proxies from the environment, and no redirects.
        context = ssl.create_default_context()
        self.client = httpx.AsyncClient(timeout=timeout_seconds, trust_env=False, verify=context, transport=transport)

    async def ask(self, asked: Evaluations) -> Reply:
        """Asks as the scheduler does."""
        [reply] = await self.ask_at_once(asked, 1)
        return reply

    async def ask_at_once(self, asked: Evaluations, times: int) -> list[Reply]:
        """Makes each call so many times at the same instant."""
        rounds = []
        for part in asked.cut(self.protocol.users_per_call, self.protocol.types_per_call):
            rounds.append(await asyncio.gather(*(self.ask_as(part, self.token) for _ in range(times))))
            if not all(reply.is_answer for reply in rounds[-1]):
                break
        return [_joined(asked, parts) for parts in zip(*rounds, strict=True)]

    async def ask_as(self, asked: Evaluations, token: str | None) -> Reply:
        """Makes one call with another token, or with none."""
        body, headers = self.protocol.request(asked)
        return await self._send(json.dumps(body).encode(), token, asked, headers)

    async def send(self, body: bytes) -> Reply:
        """Sends what is no call."""
        return await self._send(body, self.token, NOTHING, {})

    async def _send(self, body: bytes, token: str | None, asked: Evaluations, more: dict[bytes, bytes]) -> Reply:
        headers = {
            b"Content-Type": b"application/json",
            b"Accept": b"application/json",
            b"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01".encode(),
            **({} if token is None else {b"Authorization": f"Bearer {token}".encode()}),
            **more,
        }
        limit = BODY_BYTES + BYTES_PER_PAIR * len(asked.pairs)
        content = bytearray()
        try:
            # httpx bounds each read, which an engine that sends a byte now and then never exceeds.
            async with (
                asyncio.timeout(self._timeout_seconds),
                self.client.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > limit:
                        break
        except (TimeoutError, httpx.TimeoutException):
            return Reply(asked, failure=f"no whole answer within {self._timeout_seconds:g} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Reply(asked, failure=f"no answer ({type(error).__name__})")
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_too_long, is_answer = len(content) > limit, response.status_code in self.protocol.accepted
        reply = Reply(asked, response.status_code, None, media_type, is_too_long, is_answer=is_answer)
        try:
            read = self.protocol.read(bytes(content)) if is_answer and not is_too_long else []
        except ValidationError as error:
            return replace(reply, oddities=oddities(error))
        return replace(reply, items=tuple(read))


def _joined(asked: Evaluations, parts: Sequence[Reply]) -> Reply:
    """One reply, an answer if each part is."""
    if len(parts) == 1:
        return replace(parts[0], asked=asked)
    items = tuple(item for part in parts for item in part.items)
    return replace(parts[-1], asked=asked, items=items, parts=tuple(parts))
