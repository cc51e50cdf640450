"""The scripted engine's server and its ledger."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self
from uuid import NAMESPACE_URL, uuid5

from .exchange import Call, Pair, Reply, Result, Rule, from_single, oddities, parse_call, to_single

LOOPBACK = "127.0.0.1"
BATCH = "POST /v1/evaluations "
SINGLE = "POST /api/v1/scenario-trigger-evaluations "


def innocent_outcome(user_id: str, scenario_type: str) -> str:
    """A quarter triggered, a tenth suppressed, the rest not: fixed by the pair alone."""
    drawn = int.from_bytes(hashlib.sha256(f"{user_id}:{scenario_type}".encode()).digest()[:4]) / 2**32
    if drawn < 0.25:
        return "triggered"
    return "suppressed" if drawn < 0.35 else "not_triggered"


@dataclass(frozen=True)
class Act:
    """A notification that a real engine would have queued."""

    pair: Pair
    notification_id: str


@dataclass
class CallRecord:
    """One call as it arrived. `status` stays None while it is unanswered, and for good if it was reset or hung."""

    number: int
    authorized: bool
    headers: Mapping[str, str]
    is_single: bool = False
    status: int | None = None
    violations: list[str] = field(default_factory=list)
    # Where it could be read:
    invocation_id: str | None = None
    dry_run: bool | None = None
    user_ids: list[str] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @property
    def traceparent(self) -> str | None:
        return self.headers.get("traceparent")


class ScriptedEngine:
    """An engine on a free port of the loopback, inside the running event loop, that serves both protocols.

    `rules` may be changed while it runs. Ledger: `calls` (every one, also the refused), `acts` by idempotency key,
    `keys_seen` (how often each key was asked about).
    """

    def __init__(
        self,
        *,
        token: str = "scripted-engine-token",  # noqa: S107
        rules: Iterable[Rule] = (),
        outcome_of: Callable[[str, str], str] = innocent_outcome,
    ) -> None:
        self.token = token
        self.rules = list(rules)
        self.calls: list[CallRecord] = []
        self.acts: dict[str, Act] = {}
        self.keys_seen: Counter[str] = Counter()
        self.peak_in_flight = 0
        self.expected_outcome = outcome_of
        """What a pair comes to unless a rule interferes."""
        self._port = 0
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._answering: set[asyncio.Task[Reply]] = set()
        self._news = asyncio.Event()
        self._script_errors: list[Exception] = []

    @property
    def notified_twice(self) -> list[Pair]:
        """Pairs acted on under more than one key. Empty unless a user was notified twice."""
        return [pair for pair, times in Counter(act.pair for act in self.acts.values()).items() if times > 1]

    @property
    def pairs_seen(self) -> Counter[Pair]:
        """How often each pair was asked about in calls with the right token."""
        return Counter(pair for record in self.calls if record.authorized for pair in record.pairs)

    @property
    def violations(self) -> list[str]:
        """Everything in which a caller broke the contract."""
        return [f"call {record.number}: {text}" for record in self.calls for text in record.violations]

    @property
    def in_flight(self) -> int:
        return len(self._answering)

    async def until(self, condition: Callable[[ScriptedEngine], bool], *, timeout_seconds: float = 30) -> None:
        """Waits until this holds; checks whenever a call arrives, is evaluated or is answered. Raises TimeoutError."""
        async with asyncio.timeout(timeout_seconds):
            while not condition(self):
                await self._news.wait()

    async def until_called(self, times: int) -> None:
        await self.until(lambda engine: len(engine.calls) >= times)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await self.stop()
        if self._script_errors and error is None:
            raise ExceptionGroup("rules of the scripted engine failed", self._script_errors)

    async def start(self) -> None:
        """Listens, on the same port as before if it was stopped. The ledger is kept."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self._port, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening and resets every connection that waits for an answer."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in self._answering:
            task.cancel()
        for writer in self._connections.values():
            writer.transport.abort()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await server.wait_closed()

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[None]:
        """Connections are refused for as long as the block runs."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request after request."""
        connection = asyncio.current_task()
        assert connection is not None
        self._connections[connection] = writer
        if self._server is None:  # it was stopped meanwhile
            writer.transport.abort()
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = (line.partition(":") for line in lines if line)
                headers = {name.lower(): value.strip() for name, _, value in fields}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await _send(writer, await self._reply(request, headers, body))
        writer.close()
        del self._connections[connection]

    async def _reply(self, request: str, headers: dict[str, str], body: bytes) -> Reply:
        if not request.startswith((BATCH, SINGLE)):
            return Reply(status=200 if request.startswith("GET /health ") else 404, body=b"{}")
        given = headers.pop("authorization", "").encode("latin-1")
        authorized = hmac.compare_digest(given, f"Bearer {self.token}".encode())
        is_single = request.startswith(SINGLE)
        record = CallRecord(len(self.calls) + 1, authorized, headers, is_single)
        self.calls.append(record)

        task = asyncio.create_task(self._reply_to(record, body, len(self._answering) + 1))
        self._answering.add(task)
        self.peak_in_flight = max(self.peak_in_flight, len(self._answering))
        self._tell()
        try:
            reply = await task
        except asyncio.CancelledError:
            return Reply(reset=True)  # by stop()
        except Exception as exc:
            # Kept for the end of the test: a 500 would look like part of the script.
            self._script_errors.append(exc)
            return Reply(reset=True)
        finally:
            self._answering.discard(task)
        # Noted before it is sent: a caller that has the answer finds it in the ledger.
        record.status = None if reply.reset or reply.raw else reply.status
        self._tell()
        return reply

    async def _reply_to(self, record: CallRecord, body: bytes, in_flight: int) -> Reply:
        call = self._read(record, body, in_flight)
        if not record.authorized:
            return Reply(status=401, headers={"www-authenticate": "Bearer"}, body=b"{}")
        if call is None:
            return Reply(status=400, body=json.dumps({"error": {"message": record.violations[-1]}}).encode())
        self.keys_seen.update(call.keys)

        rules = tuple(self.rules)

        async def proceed_from(position: int, call: Call) -> Reply:
            if position == len(rules):
                return Reply(results=self._evaluate(record, call))
            return await rules[position](call, lambda changed: proceed_from(position + 1, changed))

        reply = await proceed_from(0, call)
        return to_single(reply) if record.is_single else reply

    def _read(self, record: CallRecord, body: bytes, in_flight: int) -> Call | None:
        try:
            decoded = json.loads(body)
            if record.is_single:
                decoded = from_single(decoded, record.headers)
            call = parse_call(decoded, number=record.number, in_flight=in_flight, headers=record.headers)
        except (ValueError, RecursionError) as exc:
            record.violations.append(str(exc))
            return None
        record.violations += oddities(call)
        record.invocation_id, record.dry_run = call.invocation_id, call.dry_run
        record.user_ids, record.pairs, record.keys = call.user_ids, call.pairs, call.keys
        return call

    def _evaluate(self, record: CallRecord, call: Call) -> list[Result]:
        results = []
        for pair, key in zip(call.pairs, call.keys, strict=True):
            outcome = self.expected_outcome(*pair)
            result: Result = {"user_id": pair[0], "scenario_type": pair[1], "outcome": outcome}
            if outcome == "triggered" and not call.dry_run:
                result["notification_id"] = self._act_once(key, pair, record).notification_id
            results.append(result)
        self._tell()
        return results

    def _act_once(self, key: str, pair: Pair, record: CallRecord) -> Act:
        act = self.acts.get(key)
        if act is None:
            act = self.acts[key] = Act(pair, str(uuid5(NAMESPACE_URL, key)))
        elif act.pair != pair:
            record.violations.append(f"uses the key {key!r} of {act.pair} for {pair}")
        return act

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> None:
    """Writes the answer; a connection that is of no use afterwards is closed."""
    if reply.raw is not None:
        await _write(writer, reply.raw)
        writer.close()
    elif reply.reset and reply.body is None:
        # A reset and not an orderly close: lingering for no time makes the kernel send RST.
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    else:
        body = json.dumps({"results": reply.results}).encode() if reply.body is None else reply.body
        length = {"content-length": str(len(body))} if isinstance(body, bytes) else {"transfer-encoding": "chunked"}
        headers = {"content-type": "application/json", **length, **reply.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {reply.status} \r\n{head}\r\n".encode("latin-1"))
        if isinstance(body, bytes):
            writer.write(body)
            await writer.drain()
        else:
            await _write(writer, (b"%x\r\n%b\r\n" % (len(chunk), chunk) async for chunk in body))
            writer.write(b"0\r\n\r\n")
        if reply.reset:
            writer.close()


async def _write(writer: asyncio.StreamWriter, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        writer.write(chunk)
        await writer.drain()
        # Draining waits only for a slow reader: without this a fast one would have the event loop to itself.
        await asyncio.sleep(0)
