"""The engine that is examined, as the scheduler calls it."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

# As much as the scheduler reads.
BODY_BYTES = 1024 * 1024
BYTES_PER_PAIR = 4096

Pair = tuple[str, str]
Item = dict[str, Any]


@dataclass(frozen=True)
class Evaluations:
    """What a call asks, under the keys of each user, or under those of `keys_of`."""

    users: Sequence[str]
    scenario_types: Sequence[str]
    scope: str
    dry_run: bool
    keys_of: str | None = None

    @property
    def pairs(self) -> list[Pair]:
        return [(user_id, scenario_type) for user_id in self.users for scenario_type in self.scenario_types]

    def body(self) -> dict[str, Any]:
        return {
            "invocation_id": self.scope.partition(":")[2],
            "scheduled_for": "2026-01-01T02:00:00+00:00",
            "dry_run": self.dry_run,
            "evaluations": [
                {
                    "user_id": user_id,
                    "scenario_types": list(self.scenario_types),
                    "idempotency_key_prefix": f"{self.scope}:{self.keys_of or user_id}",
                }
                for user_id in self.users
            ],
        }


NOTHING = Evaluations((), (), "", dry_run=True)


@dataclass(frozen=True)
class Reply:
    """What came of a call.

    Args:
        failure: why there was no answer at all; None: there was one.
        is_too_long: it is longer than the scheduler reads; what it says was not read either.
        items: the results that name a pair, in the order in which they came.
        oddities: what is wrong with the answer's form.
    """

    asked: Evaluations
    status: int = 0
    failure: str | None = None
    media_type: str = ""
    is_too_long: bool = False
    items: tuple[Item, ...] = ()
    oddities: tuple[str, ...] = ()

    @property
    def is_answer(self) -> bool:
        """200, whatever it says."""
        return self.failure is None and self.status == 200

    def described(self) -> str:
        return self.failure or f"status {self.status}"

    def of(self, pair: Pair) -> Item | None:
        """The first result for a pair."""
        return next((item for item in self.items if (item["user_id"], item["scenario_type"]) == pair), None)

    def outcome_of(self, pair: Pair) -> str | None:
        item = self.of(pair)
        return None if item is None else str(item.get("outcome"))

    def notification_of(self, pair: Pair) -> str | None:
        item = self.of(pair) or {}
        return None if item.get("notification_id") is None else str(item["notification_id"])


class Engine:
    """Calls an engine, each time for so many seconds, the whole answer included."""

    def __init__(self, url: str, token: str, *, timeout_seconds: float) -> None:
        self._url = f"{url.rstrip('/')}/v1/evaluations"
        self.token = token
        self._timeout_seconds = timeout_seconds
        # As the scheduler: no proxies from the environment, and no redirects.
        self._client = httpx.AsyncClient(timeout=timeout_seconds, trust_env=False, verify=ssl.create_default_context())

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ask(self, asked: Evaluations) -> Reply:
        """Asks as the scheduler does."""
        return await self.ask_as(asked, self.token)

    async def ask_as(self, asked: Evaluations, token: str | None) -> Reply:
        """Asks with another token, or with none."""
        return await self._send(json.dumps(asked.body()).encode(), token, asked)

    async def send(self, body: bytes) -> Reply:
        """Sends what is no call."""
        return await self._send(body, self.token, NOTHING)

    async def _send(self, body: bytes, token: str | None, asked: Evaluations) -> Reply:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
            **({} if token is None else {"Authorization": f"Bearer {token}"}),
        }
        limit = BODY_BYTES + BYTES_PER_PAIR * len(asked.pairs)
        content = bytearray()
        try:
            # httpx bounds each read, which an engine that sends a byte now and then never exceeds.
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._client.stream("POST", self._url, content=body, headers=headers) as response,
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
        is_too_long = len(content) > limit
        items, oddities = _items_of(bytes(content)) if response.status_code == 200 and not is_too_long else ((), ())
        return Reply(asked, response.status_code, None, media_type, is_too_long, items, oddities)


def _items_of(content: bytes) -> tuple[tuple[Item, ...], tuple[str, ...]]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return (), ("the body is not JSON",)
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        return (), ('the body is not an object with a list of "results"',)
    items: list[Item] = []
    oddities: list[str] = []
    for result in results:
        if isinstance(result, dict) and isinstance(result.get("user_id"), str | int):
            items.append(
                {**result, "user_id": str(result["user_id"]), "scenario_type": str(result.get("scenario_type"))}
            )
            oddities += _odd_members(result)
        else:
            oddities.append("a result is not an object with a user_id")
    return tuple(items), tuple(dict.fromkeys(oddities))


OUTCOMES = ("triggered", "not_triggered", "suppressed", "failed")


def _odd_members(result: Item) -> list[str]:
    odd = [f"{name} is not text" for name in ("user_id", "scenario_type") if not isinstance(result.get(name), str)]
    if result.get("outcome") not in OUTCOMES:
        odd.append(f"outcome is {json.dumps(result.get('outcome'))[:40]}, not one of {', '.join(OUTCOMES)}")
    notification_id = result.get("notification_id")
    if notification_id is not None and (
        not isinstance(notification_id, str | int) or isinstance(notification_id, bool)
    ):
        odd.append("notification_id is neither text nor a whole number")
    if result.get("outcome") == "failed":
        error = result.get("error")
        if not isinstance(error, dict) or not isinstance(error.get("code"), str) or not error["code"]:
            odd.append("a failed result has no error with a code")
        elif not isinstance(error.get("retryable", False), bool):
            odd.append("error.retryable is neither true nor false")
    return odd
