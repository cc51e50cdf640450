"""Calls the scheduler's SQL functions as the Data API does, over as many connections as a race needs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID, uuid4

import psycopg
from psycopg.conninfo import make_conninfo

from tests.emulator.connections import Connection, connect

LOCK_WAIT_SECONDS = 20.0
VISIBILITY_SECONDS = 600
SCENARIO = "contact_lapsed"
# What is recorded with a run that is opened.
CONFIG = {"batch_size": 100, "scenarios": {"types": [{"type": SCENARIO, "enabled": True}], "not_due": []}}
EVALUATED = ("triggered", "not_triggered", "suppressed")
QUEUES = ("scenario_evaluation_batches_manual", "scenario_evaluation_batches", "scenario_evaluation_batches_poison")

Json = dict[str, Any]
Pairs = list[Json]


def mentor(number: int) -> str:
    """A user id; ids sort as their numbers do."""
    return str(UUID(int=(4 << 76) + (8 << 60) + number))


def pairs(numbers: Iterable[int], scenario_types: Sequence[str] = (SCENARIO,)) -> Pairs:
    """A batch's frozen pairs: these mentors, each for all of these scenario types."""
    return [{"scenario_types": list(scenario_types), "user_ids": [mentor(number) for number in numbers]}]


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


class Session:
    """One connection, each statement its own transaction unless `transaction()` is used."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def run(self, query: str, *parameters: object) -> None:
        await self.connection.execute(query.encode(), parameters or None)

    async def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        return await (await self.connection.execute(query.encode(), parameters or None)).fetchall()

    async def value(self, query: str, *parameters: object) -> Any:
        (row,) = await self.rows(query, *parameters)
        (value,) = row
        return value

    async def column(self, query: str, *parameters: object) -> list[Any]:
        return [value for (value,) in await self.rows(query, *parameters)]

    def transaction(self) -> contextlib.AbstractAsyncContextManager[psycopg.AsyncTransaction]:
        return self.connection.transaction()


class Worker(Session):
    """A session of role service_role: what one instance of the function may do."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._signatures: dict[str, str] = {}

    @property
    def called(self) -> set[str]:
        return set(self._signatures)

    async def call(self, function: str, **arguments: Any) -> Any:
        """Call a function of ours with JSON arguments, named without their `p_`, as the Data API would."""
        if function not in self._signatures:
            self._signatures[function] = await self.value(
                "select pg_get_function_identity_arguments(('public.' || %s)::regproc)", f"scheduler_{function}"
            )
        signature = self._signatures[function] or "nothing text"
        named = ", ".join(f"p_{name} => given.p_{name}" for name in arguments)
        return await self.value(
            f"select public.scheduler_{function}({named}) from json_to_record(%s::json) as given ({signature})",
            json.dumps({f"p_{name}": value for name, value in arguments.items()}, default=str),
        )

    async def open_slot(
        self, due: datetime, following: datetime, requested: datetime | None = None, **settings: Any
    ) -> Any:
        usual = {
            "missed_slot_max_gap_hours": 12,
            "expires_after_hours": 20,
            "max_workers": 4,
            "time_budget_seconds": 25,
            "retention_days": 90,
            "triggered_by": "pg_cron",
            "config": CONFIG,
            "scenario_version": "",
            "fires": [],
        }
        return await self.call(
            "open_slot", due_slot=due, next_slot=following, requested_slot=requested, **{**usual, **settings}
        )

    async def enqueue(
        self,
        invocation_id: str,
        batches: Sequence[Pairs],
        *,
        expected: str | None = None,
        following: str | None = None,
        done: bool = False,
        skip_reasons: Mapping[str, int] | None = None,
    ) -> bool:
        page = {"expected_cursor": expected, "next_cursor": following, "done": done, "skip_reasons": skip_reasons or {}}
        answer = await self.call("enqueue", invocation_id=invocation_id, batches=batches, **page)
        assert set(answer) == {"accepted"}
        return bool(answer["accepted"])

    async def claim(
        self,
        quantity: int = 100,
        visibility_seconds: int = VISIBILITY_SECONDS,
        *,
        manual_only: bool = False,
        poison: str | None = None,
    ) -> Any:
        return await self.call(
            "claim", quantity=quantity, visibility_seconds=visibility_seconds, manual_only=manual_only, poison=poison
        )

    async def claim_one(self, visibility_seconds: int = VISIBILITY_SECONDS) -> Json:
        (batch,) = (await self.claim(1, visibility_seconds))["batches"]
        assert isinstance(batch, dict)
        return batch

    async def take_permit(
        self,
        permit_id: str,
        *,
        calls: int = 4,
        total: int = 12,
        manual: bool = False,
        seconds: float = 30,
        per_minute: tuple[int, int] | None = None,
    ) -> Any:
        """`per_minute`: this permit's share, and the total."""
        share, most = per_minute or (None, None)
        permit = {"permit_id": permit_id, "calls": calls, "total": total, "is_manual": manual, "seconds": seconds}
        return await self.call("take_permit", **permit, per_minute=share, total_per_minute=most)

    async def complete(
        self,
        batch: Mapping[str, Any],
        outcome: str = "triggered",
        outcomes: Mapping[str, str] | None = None,
        *,
        remaining: Sequence[str] | None = None,
    ) -> Any:
        """Record a batch: each pair came to `outcome`, a user's to `outcomes[user id]`; `remaining` are cut off."""
        results = [
            (*pair, (outcomes or {}).get(pair[0], outcome))
            for pair in pairs_of(batch["pairs"])
            if pair[0] not in (remaining or ())
        ]
        counts: dict[str, Counter[str]] = {}
        for _, scenario_type, came_to in results:
            counts.setdefault(scenario_type, Counter())[came_to] += 1
        stored_rows = [result for result in results if result[2] != "not_triggered"]
        evaluated = len({user_id for user_id, _, came_to in results if came_to in EVALUATED})
        return await self.complete_with(batch, stored_rows, counts, users_evaluated=evaluated, remaining=remaining)

    async def complete_with(
        self,
        batch: Mapping[str, Any],
        stored_rows: Sequence[tuple[str, str, str]],
        counts: Mapping[str, Any],
        *,
        users_evaluated: int = 0,
        remaining: Sequence[str] | None = None,
        causes: Mapping[str, str] | None = None,
    ) -> Any:
        """Record these results, (user id, scenario type, outcome); `causes`: why users failed or were skipped."""
        return await self.call(
            "complete",
            invocation_id=batch["invocation_id"],
            batch_no=batch["batch_no"],
            deliveries=batch.get("deliveries", 1),
            results=[
                {"scenario_type": scenario_type, "outcome": outcome, "attempts": 1, "user_ids": [user_id]}
                | (
                    {"error_code": (causes or {}).get(user_id, "engine_error"), "error_message": "it failed"}
                    if outcome == "failed" or user_id in (causes or {})
                    else {}
                )
                for user_id, scenario_type, outcome in stored_rows
            ],
            scenario_counts=counts,
            users_evaluated=users_evaluated,
            duration_ms=5,
            worker="test",
            remaining=remaining,
        )

    async def split(self, batch: Mapping[str, Any]) -> Any:
        return await self.call("split", **_held(batch))

    async def release(self, batch: Mapping[str, Any], *, delay_seconds: int = 0, count_delivery: bool = False) -> Any:
        return await self.call("release", **_held(batch), delay_seconds=delay_seconds, count_delivery=count_delivery)

    async def finish(self, invocation_id: str) -> Any:
        return await self.call("finish", invocation_id=invocation_id)

    async def update(self, invocation_id: str, **change: Any) -> Any:
        """Call scheduler_update; what is not given stays as it is."""
        nothing = {"status": None, "error_message": None, "set_note": False, "note": None, "actor": "admin"}
        return await self.call("update", invocation_id=invocation_id, **{**nothing, **change})

    async def cancel(self, invocation_id: str) -> Any:
        """Cancel, and answer the invocation as it is afterwards: unchanged where it had ended."""
        answer = await self.update(invocation_id, status="cancelled")
        return answer and answer["invocation"]

    async def delete(self, invocation_id: str, *, actor: str = "admin") -> Any:
        return await self.call("delete", invocation_id=invocation_id, actor=actor)

    async def end_slice(self, **given: Any) -> None:
        """Call scheduler_end_slice; what is not given is null, or false."""
        nothing = {"engine_error": None, "retry_after_seconds": None, "dispatch_id": None}
        await self.call("end_slice", **{"progressed": False, "engine_answers": False, **nothing, **given})


def pairs_of(frozen: Pairs) -> list[tuple[str, str]]:
    return [
        (user_id, scenario_type)
        for group in frozen
        for user_id in group["user_ids"]
        for scenario_type in group["scenario_types"]
    ]


def _held(batch: Mapping[str, Any]) -> Json:
    return {name: batch[name] for name in ("invocation_id", "batch_no", "read_count")}


class SqlCore:
    """A migrated database, its owner's session, and sessions of workers."""

    owner: Session

    def __init__(self, url: str) -> None:
        self._url = url
        self._connections = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.owner = await self.session()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.aclose()

    async def session(self) -> Session:
        return Session(await self._connections.enter_async_context(connect(self._url)))

    async def session_under_safeupdate(self) -> Session:
        """One more session of role postgres, with the Data API's rule on that this role has off."""
        session = await self.session()
        await session.run("set safeupdate.enabled = on")
        return session

    async def worker(self) -> Worker:
        """One more session as PostgREST has them: with the limits of its own role, and safeupdate loaded."""
        url = make_conninfo(self._url, user="authenticator")
        connection = await self._connections.enter_async_context(connect(url))
        await connection.execute(b"set role service_role")
        return Worker(connection)

    async def workers(self, number: int) -> list[Worker]:
        return [await self.worker() for _ in range(number)]

    async def now(self) -> datetime:
        now = await self.owner.value("select clock_timestamp()")
        assert isinstance(now, datetime)
        return now.astimezone(UTC)

    async def slots(self) -> tuple[datetime, datetime]:
        """A slot of ten minutes ago, and the one after it, in fifty."""
        due = (await self.now()).replace(second=0, microsecond=0) - minutes(10)
        return due, due + minutes(60)

    async def install_long_ago(self) -> None:
        """Let the function's first start be a week past, so that a slot may be due."""
        await self.change_settings("slot_high_water_mark = now() - interval '7 days'")

    async def open_manual_run(self, worker: Worker, batches: Sequence[Pairs] = (), **enqueued: Any) -> str:
        return await self.open_run(worker, batches, trigger="manual", **enqueued)

    async def open_run(
        self, worker: Worker, batches: Sequence[Pairs] = (), *, trigger: str = "schedule", **enqueued: Any
    ) -> str:
        """A run that is open, with these batches queued; without a slot's rules."""
        due, _ = await self.slots()
        key = f"slot:{due:%Y-%m-%dT%H:%MZ}" if trigger == "schedule" else f"key:{uuid4()}"
        insert = (
            "insert into public.scheduler_invocations"
            " (idempotency_key, trigger, triggered_by, status, scheduled_for, started_at, expires_at, engine_scope,"
            " config)"
            " values (%s, %s, 'test', 'running', now(), now(), now() + interval '1 day', %s, %s) returning id::text"
        )
        invocation_id = str(await self.owner.value(insert, key, trigger, key, json.dumps(CONFIG)))
        if batches or enqueued != {"done": False}:
            assert await worker.enqueue(invocation_id, batches, **{"done": True, **enqueued})
        return invocation_id

    async def describe(self, invocation_id: str) -> Any:
        return await self.owner.value("select scheduler.describe_invocation(%s)", invocation_id)

    async def summarize(self, invocation_id: str) -> Any:
        return await self.owner.value("select scheduler.summarize_invocation(%s)", invocation_id)

    async def change(self, invocation_id: str, columns: str) -> None:
        """Set columns of a run behind the functions' back."""
        await self.owner.run(f"update public.scheduler_invocations set {columns} where id = %s", invocation_id)

    async def change_settings(self, columns: str) -> None:
        await self.owner.run(f"update scheduler.settings set {columns} where singleton")

    async def settings(self, columns: str) -> tuple[Any, ...]:
        (row,) = await self.owner.rows(f"select {columns} from scheduler.settings")
        return row

    async def batches(self, columns: str) -> list[tuple[Any, ...]]:
        return await self.owner.rows(f"select {columns} from public.scheduler_invocation_batches order by batch_no")

    async def expire_now(self, invocation_id: str) -> None:
        """Let its time be over; no function has noticed yet."""
        await self.change(invocation_id, "expires_at = now() - interval '1 second'")

    async def expire(self, invocation_id: str) -> Any:
        """Let it expire, and return what it came to."""
        await self.expire_now(invocation_id)
        await self.owner.run("select scheduler.expire()")
        return await self.describe(invocation_id)

    async def let_batches_reappear(self) -> None:
        """Let the visibility time of every claimed batch be over."""
        for queue in QUEUES:
            await self.owner.run(f"update pgmq.q_{queue} set vt = clock_timestamp()")

    async def lose_messages(self) -> None:
        for queue in QUEUES:
            await self.owner.run(f"select pgmq.purge_queue('{queue}')")

    async def messages(self) -> list[tuple[Any, ...]]:
        every = " union all ".join(f"select msg_id, read_ct, vt, message from pgmq.q_{queue}" for queue in QUEUES)
        return await self.owner.rows(f"{every} order by 1, 4")

    async def queued(self) -> int:
        return len(await self.messages())

    async def everything(self) -> list[list[tuple[Any, ...]]]:
        """Return all that recording, splitting and enqueueing may change."""
        return [
            await self.messages(),
            await self.batches("*"),
            await self.owner.rows("select * from public.scheduler_evaluations order by user_id, scenario_type"),
            await self.owner.rows("select id, status, next_batch_no from public.scheduler_invocations order by id"),
        ]

    async def posted(self) -> Any:
        return await self.owner.value("select count(*) from net.http_request_queue")

    async def make_callable(self) -> None:
        """Tell Vault where the function is; nothing is due."""
        for name in ("scheduler_function_url", "scheduler_invoke_token"):
            await self.owner.run("select vault.create_secret(%s, %s)", "https://function.example/", name)
        await self.change_settings("next_due_at = now() + interval '1 hour'")

    async def race(self, first: Session, act: Awaitable[Any], second: Session, call: Coroutine[Any, Any, Any]) -> Any:
        """Return what both were answered, where `second` calls while `first` has acted and not yet committed."""
        async with first.transaction():
            acted = await act
            calling = asyncio.create_task(call)
            await self.until_waiting_for_a_lock(second, or_done=calling)
        return acted, await calling

    async def until_waiting_for_a_lock(self, session: Session, *, or_done: asyncio.Task[Any] | None = None) -> None:
        """Return when the session's statement stands in the queue for a lock, or when the task that runs it is done."""
        async with asyncio.timeout(LOCK_WAIT_SECONDS):
            # only the server knows, and it sends no notice
            while not await self.owner.value(
                "select cardinality(pg_blocking_pids(%s)) > 0", session.connection.info.backend_pid
            ):
                if or_done is not None and or_done.done():
                    return
                await asyncio.sleep(0.005)


def assert_counts_add_up(invocation: Json) -> None:
    """Every pair has one outcome, in the counts of the invocation and in those of its scenarios (I2)."""
    counts = invocation["counts"]
    outcomes = ("triggered", "not_triggered", "suppressed", "skipped", "failed", "not_evaluated")
    assert sum(counts[outcome] for outcome in outcomes) == counts["evaluations"], counts
    for outcome in outcomes:
        by_scenario = sum(scenario.get(outcome, 0) for scenario in invocation["scenarios"].values())
        assert by_scenario == counts[outcome], (outcome, invocation["scenarios"], counts)
