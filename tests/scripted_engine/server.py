"""The scripted engine's server and its ledger."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import NAMESPACE_URL, uuid5

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .exchange import Call, Pair, Reply, Result, Rule, oddities, parse_call

LOOPBACK = "127.0.0.1"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]


def innocent_outcome(user_id: str, scenario_type: str) -> str:
    """A quarter triggered, a tenth suppressed, the rest not: fixed by the pair alone."""
    drawn = int.from_bytes(hashlib.sha256(f"{user_id}:{scenario_type}".encode()).digest()[:4]) / 2**32
    if drawn < 0.25:
        return "triggered"
    return "suppressed" if drawn < 0.35 else "not_triggered"


@dataclass(frozen=True)
class Act:
    """A notification that a real engine would have queued."""

    key: str
    pair: Pair
    notification_id: str
    call_number: int

    @property
    def user_id(self) -> str:
        return self.pair[0]


@dataclass
class CallRecord:
    """One call as it arrived. `status` stays None while it is unanswered, and for good if it was reset or hung."""

    number: int
    authorized: bool
    headers: Mapping[str, str]
    status: int | None = None
    violations: list[str] = field(default_factory=list)
    # Where it could be read:
    call: Call | None = None
    invocation_id: str | None = None
    dry_run: bool | None = None
    user_ids: list[str] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @property
    def traceparent(self) -> str | None:
        return self.headers.get("traceparent")


class ScriptedEngine:
    """An engine on a free port of the loopback, inside the running event loop.

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
        self._outcome_of = outcome_of
        self._port = 0
        self._server: uvicorn.Server | None = None
        self._answering: set[asyncio.Task[Reply]] = set()
        self._news = asyncio.Event()
        self._script_errors: list[Exception] = []

    # ---- oracles

    def expected_outcome(self, user_id: str, scenario_type: str) -> str:
        """What this pair comes to unless a rule interferes."""
        return self._outcome_of(user_id, scenario_type)

    @property
    def notified_twice(self) -> list[Pair]:
        """Pairs acted on under more than one key. Empty unless somebody was notified twice."""
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

    async def until(self, condition: Callable[[ScriptedEngine], bool], *, patience_seconds: float = 30) -> None:
        """Waits until this holds; looked at whenever a call arrives, is evaluated or is answered.

        Raises TimeoutError when patience ends: a test that waits in vain should fail, not hang.
        """
        async with asyncio.timeout(patience_seconds):
            while not condition(self):
                await self._news.wait()

    async def until_called(self, times: int) -> None:
        await self.until(lambda engine: len(engine.calls) >= times)

    # ---- life

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
        """Listens, on the same port as before if it was stopped. The ledger goes on."""
        # The protocol is named: asyncio switches Nagle's algorithm off only where it is, and calls take 40 ms with it.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, self._port))
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            http=_OpenTransport,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            access_log=False,
            log_config=None,  # the process's logging is the test's
        )
        config.load()
        server = uvicorn.Server(config)
        # Not serve() and shutdown(): they take over the process's signals, and sleep a tenth of a second to stop.
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        self._server = server

    async def stop(self) -> None:
        """Stops listening and resets every connection that waits for an answer."""
        server, self._server = self._server, None
        if server is None:
            return
        for listening in server.servers:
            listening.close()
        for task in self._answering:
            task.cancel()
        for connection in server.server_state.connections:
            if isinstance(connection, _OpenTransport):
                connection.transport.abort()
        # An aborted connection is closed in the loop's next turn; a caller must not find it open any more.
        await asyncio.sleep(0)
        await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
        for listening in server.servers:
            await listening.wait_closed()

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[None]:
        """Connections are refused for as long as the block runs."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()

    # ---- answering

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        transport: asyncio.Transport = scope["transport"]
        body = bytearray()
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        else:
            return
        await self._exchange(scope, bytes(body), transport, send)

    async def _exchange(self, scope: Scope, body: bytes, transport: asyncio.Transport, send: Send) -> None:
        if (scope["method"], scope["path"]) != ("POST", "/v1/evaluations"):
            is_health = (scope["method"], scope["path"]) == ("GET", "/health")
            await _send_reply(send, transport, Reply(status=200 if is_health else 404, body=b"{}"))
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.pop("authorization", "").encode("latin-1")
        authorized = hmac.compare_digest(given, f"Bearer {self.token}".encode())
        record = CallRecord(number=len(self.calls) + 1, authorized=authorized, headers=headers)
        self.calls.append(record)

        task = asyncio.create_task(self._reply_to(record, body, len(self._answering) + 1))
        self._answering.add(task)
        self.peak_in_flight = max(self.peak_in_flight, len(self._answering))
        self._tell()
        try:
            reply = await task
        except asyncio.CancelledError:
            return  # by stop(), which resets the connection
        except Exception as exc:
            # Kept for the end of the test: a 500 would look like part of the script.
            self._script_errors.append(exc)
            transport.abort()
            return
        finally:
            self._answering.discard(task)
        # Noted before it is sent: whoever has the answer finds it in the ledger.
        record.status = None if reply.reset or reply.raw else reply.status
        self._tell()
        await _send_reply(send, transport, reply)

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

        return await proceed_from(0, call)

    def _read(self, record: CallRecord, body: bytes, in_flight: int) -> Call | None:
        try:
            call = parse_call(json.loads(body), number=record.number, in_flight=in_flight, headers=record.headers)
        except (ValueError, RecursionError) as exc:
            record.violations.append(str(exc))
            return None
        record.call = call
        record.violations += oddities(call)
        record.invocation_id, record.dry_run = call.invocation_id, call.dry_run
        record.user_ids, record.pairs, record.keys = call.user_ids, call.pairs, call.keys
        return call

    def _evaluate(self, record: CallRecord, call: Call) -> list[Result]:
        results = []
        for pair, key in zip(call.pairs, call.keys, strict=True):
            outcome = self._outcome_of(*pair)
            result: Result = {"user_id": pair[0], "scenario_type": pair[1], "outcome": outcome}
            if outcome == "triggered" and not call.dry_run:
                result["notification_id"] = self._act_once(key, pair, record).notification_id
            results.append(result)
        self._tell()
        return results

    def _act_once(self, key: str, pair: Pair, record: CallRecord) -> Act:
        act = self.acts.get(key)
        if act is None:
            act = self.acts[key] = Act(key, pair, str(uuid5(NAMESPACE_URL, key)), record.number)
        elif act.pair != pair:
            record.violations.append(f"uses the key {key!r} of {act.pair} for {pair}")
        return act

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class _OpenTransport(H11Protocol):
    """Puts the connection's transport into the scope: ASGI has no word for dropping a connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope["transport"] = transport
            await app(scope, receive, send)

        self.app = with_transport


async def _send_reply(send: Send, transport: asyncio.Transport, reply: Reply) -> None:
    if reply.raw is not None:
        await _send_raw(transport, reply.raw)
        return
    if reply.reset and reply.body is None:
        _drop(transport)
        return
    body = json.dumps({"results": reply.results}).encode() if reply.body is None else reply.body
    headers = {"content-type": "application/json"} | reply.headers
    if isinstance(body, bytes):
        headers.setdefault("content-length", str(len(body)))
    await send(
        {
            "type": "http.response.start",
            "status": reply.status,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        }
    )
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body, "more_body": reply.reset})
        if reply.reset:
            transport.close()
        return
    async for chunk in body:
        if transport.is_closing():
            return
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        # Sending waits only for a slow reader: without this a fast one would have the event loop to itself.
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})


async def _send_raw(transport: asyncio.Transport, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        transport.write(chunk)
        # The protocol would tell when the caller has read it, and is passed over.
        while transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        if transport.is_closing():
            return
    transport.close()


def _drop(transport: asyncio.Transport) -> None:
    """A reset and not an orderly close: lingering for no time makes the kernel send RST."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
