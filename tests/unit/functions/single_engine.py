"""An engine within the process that speaks the protocol `single` and keeps which calls it may have acted on."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from shared.deadline import Deadline
from shared.engine_client import EngineClient
from shared.engine_protocol import SINGLE, EngineProtocol
from shared.post_client import HttpBodyError, HttpError, HttpResponse, HttpTimeoutError
from tests.unit.clock import ManualClock
from tests.unit.fake_post_client import reply
from tests.unit.functions.fake_engine import client_of

PUBLISHED = replace(SINGLE, dry_run=False, idempotency=False)

Pair = tuple[str, str]
Answer = HttpResponse | HttpError | None
"""None: what the engine says of the pair."""

TIME_OUT = HttpTimeoutError()
RESET = HttpError("connection reset")
BROKEN = HttpResponse(200, {}, unreadable=HttpBodyError("the body cannot be unpacked"))
REFUSED = HttpError("no connection: refused", is_connecting=True)
SLOW_CONNECT = HttpTimeoutError(5)
NOTHING: Mapping[Pair, Sequence[Answer]] = {}


def decision(pair: Pair) -> bool:
    """What the engine says of a pair whenever it answers."""
    return sum("".join(pair).encode()) % 2 == 0


def decided(pair: Pair, **members: object) -> HttpResponse:
    body = {"id": f"n-{pair[0]}-{pair[1]}", "user_id": pair[0], "scenario_type": pair[1]}
    return reply(201, json_body=body | {"should_notify": decision(pair), "evaluated_at": "2026-11-23"} | members)


class SingleEngine:
    """Stands where the HTTP client would be.

    Args:
        script: the answers to each pair's calls, in order, and from then on what the engine says of it.
        trouble: answers a call beyond the script.
        held: calls about these users are answered once their event is set.
        takes: seconds of each call on the clock; a time-out takes its own.
    """

    def __init__(
        self,
        clock: ManualClock,
        script: Mapping[Pair, Sequence[Answer]] = NOTHING,
        *,
        trouble: Callable[[Pair], Answer] = lambda _: None,
        held: Mapping[str, asyncio.Event] | None = None,
        takes: float = 0,
    ) -> None:
        self.clock = clock
        self._script = defaultdict(list, {pair: [*answers] for pair, answers in script.items()})
        self._trouble = trouble
        self._held = held or {}
        self._takes = takes
        self.sent: list[Pair] = []
        self.bodies: list[dict[str, object]] = []
        self.may_have_acted: Counter[Pair] = Counter()

    def connect(self, url: str, headers: Mapping[str, str], *, connect_seconds: float) -> SingleEngine:
        return self

    async def post(
        self, content: bytes, headers: Mapping[str, str], *, timeout_seconds: float, max_bytes: int
    ) -> HttpResponse:
        body = json.loads(content)
        pair = (body["user_id"], body["scenario_type"])
        assert headers["Idempotency-Key"].endswith(":".join(pair))
        self.sent.append(pair)
        self.bodies.append(body)
        await asyncio.sleep(0)
        if pair[0] in self._held:
            await self._held[pair[0]].wait()
        script = self._script[pair]
        answer = script.pop(0) if script else self._trouble(pair)
        if answer is TIME_OUT or timeout_seconds < self._takes:
            self.clock.advance(timeout_seconds)
            answer = TIME_OUT
        else:
            self.clock.advance(self._takes)
        surely_idle = answer in (REFUSED, SLOW_CONNECT) or (
            isinstance(answer, HttpResponse) and (answer.status in (408, 429, 503) or 300 <= answer.status < 500)
        )
        if not body["dry_run"]:
            self.may_have_acted[pair] += not surely_idle
        if isinstance(answer, HttpError):
            raise answer
        return decided(pair) if answer is None else answer

    def client(self, *, protocol: EngineProtocol = PUBLISHED, concurrency: int = 1) -> EngineClient:
        return client_of(self.connect, self.clock, protocol=protocol, concurrency=concurrency)

    def deadline(self, seconds: float = 100_000) -> Deadline:
        return Deadline(seconds, self.clock)
