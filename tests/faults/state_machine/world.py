"""The database that a story happens to, and everybody who does something to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from tests.integration.database.sql_core import Session, SqlCore, Worker, minutes

from .clock import Dispatch, LetBatchesReappear, LetThePauseEnd, LetTimeRunOut
from .ending import Delete, Prune, is_read
from .invariants import check
from .ledger import Ledger
from .meddling import Stop
from .opening import Enqueue
from .operation import NOTHING, Operation, Scene, Step
from .picture import MANUAL, NIGHTLY, Picture, last_good, look
from .working import Claim, Complete, Finish

AT_ONCE = 4
STEP_SECONDS = 60
SECRETS = {"scheduler_function_url": "https://function.example/", "scheduler_invoke_token": "a-token"}
EMPTY = "".join(
    f"delete from {table};"
    for table in (
        "public.scheduler_invocations",
        *(f"pgmq.q_{queue}" for queue in (NIGHTLY, MANUAL)),
        "scheduler.dispatches",
        "net.http_request_queue",
        "net._http_response",
        "vault.secrets",
        "scheduler.settings",
    )
)


@dataclass(frozen=True)
class Attempt:
    """An operation whose transaction stays open for `held` round trips more, and may not end well."""

    operation: Operation
    held: int = 0
    dies: str = ""  # or "rollback", or "killed"


class World:
    """A clone of the migrated database with a few connections, used for one story after the other."""

    def __init__(self, core: SqlCore) -> None:
        self._core = core
        self._workers: list[Worker] = []
        self._owners: list[Worker] = []
        self._stopper: Session
        self._ids = 0
        self.picture: Picture
        self.ledger: Ledger
        self.first_slot: datetime

    async def connect(self) -> None:
        self._stopper = await self._core.session()
        self._workers = await self._core.workers(AT_ONCE)
        self._owners = [Worker((await self._core.session()).connection) for _ in range(AT_ONCE)]

    async def begin(self, *, has_secrets: bool, is_installed: bool) -> None:
        """Nothing has happened yet, but for the function's first start if it `is_installed`."""
        owner = self._core.owner
        await owner.run(EMPTY)
        self.first_slot = (await self._core.now()).replace(second=0, microsecond=0) - minutes(120)
        await owner.run(
            "insert into scheduler.settings (slot_high_water_mark, max_workers) values (%s, 2)",
            self.first_slot - minutes(1) if is_installed else None,
        )
        for name, secret in SECRETS.items() if has_secrets else ():
            await owner.run("select vault.create_secret(%s, %s)", secret, name)
        self.ledger = Ledger(has_secrets=has_secrets)
        self.picture = await look(owner)

    async def step(self, attempts: Sequence[Attempt], stop: Stop | None = None) -> list[Any]:
        """All of it at once, then everything is checked. The answers; NOTHING from who died or found nothing to do."""
        async with asyncio.timeout(STEP_SECONDS):
            answers = await self._all_at_once(attempts, stop)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            after = await look(self._core.owner)
        done = [
            (attempt.operation, answer)
            for attempt, answer in zip(attempts, answers, strict=True)
            if answer is not NOTHING
        ]
        is_alone = len(attempts) == 1 and stop is None
        step = Step(self.picture, after, self.ledger, tuple(operation for operation, _ in done), is_alone)
        for key in step.requeued:
            self.ledger.begin_anew(key)
        for operation, answer in sorted(done, key=lambda one: one[0].rank):
            operation.judge(answer, step)
        check(step)
        self.picture = after
        return answers

    async def _all_at_once(self, attempts: Sequence[Attempt], stop: Stop | None) -> list[Any]:
        if stop is None:
            doing = [self._attempt(number, attempt) for number, attempt in enumerate(attempts)]
            return await asyncio.gather(*doing, return_exceptions=True)
        async with self._stopper.transaction():
            await stop.hold(self._stopper, self._scene())
            tasks = [asyncio.create_task(self._attempt(number, attempt)) for number, attempt in enumerate(attempts)]
            # whoever does not stop at a lock comes to his end
            while sum(task.done() for task in tasks) + await self._waiting() < len(tasks):
                pass
        return await asyncio.gather(*tasks, return_exceptions=True)

    async def _waiting(self) -> int:
        number = await self._core.owner.value(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        assert isinstance(number, int)
        return number

    async def _attempt(self, number: int, attempt: Attempt) -> Any:
        operation = attempt.operation
        session = (self._owners if operation.as_owner else self._workers)[number]
        scene = self._scene()
        if operation.commits_itself or not (attempt.held or attempt.dies):
            return await operation.ask(session, scene)
        await session.run("begin")
        try:
            answer = await operation.ask(session, scene)
            for _ in range(attempt.held):
                await session.run("select")
        except psycopg.Error:
            await session.run("rollback")
            raise
        if attempt.dies == "killed":
            await self._core.owner.run("select pg_terminate_backend(%s, 5000)", session.pid)
            await self._replace(number, operation)
            return NOTHING
        await session.run("rollback" if attempt.dies else "commit")
        return NOTHING if attempt.dies else answer

    def _scene(self) -> Scene:
        self._ids += 1
        # spread over all ids, so that runs are not locked in the order of their age
        new_id = str(UUID(int=(self._ids * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128, version=4))
        return Scene(self.picture, self.ledger, self.first_slot, new_id)

    async def _replace(self, number: int, operation: Operation) -> None:
        if operation.as_owner:
            self._owners[number] = Worker((await self._core.session()).connection)
        else:
            self._workers[number] = await self._core.worker()

    async def rest(self, *, by_expiry: bool) -> None:
        """Let everybody work, or let the time run out, until nothing is open; then take everything away."""
        await self._one(LetThePauseEnd())
        for _ in range(100):
            if not self.picture.open_runs:
                break
            if by_expiry:
                await self._one(LetTimeRunOut())
                await self._one(Dispatch())
            else:
                await self._work()
        assert not self.picture.open_runs, "there are runs that never end"
        while self.picture.messages:
            await self._one(LetBatchesReappear())
            claimed = await self._one(Claim(quantity=100))
            assert not claimed["batches"]
            assert claimed["stale"], "messages are left that nobody can claim"
        for index in range(len(self.picture.runs)):
            await self._one(Delete(run=index))
        # a retry goes in the first round, what it was a retry of in the next
        known = None
        while self.picture.runs.keys() != known:
            known = self.picture.runs.keys()
            await self._one(Prune())
        kept = self.picture.runs
        for run in kept.values():
            assert run.id == last_good(kept.values()) or is_read(run, self.picture), "it was deleted, and stays"

    async def _work(self) -> None:
        await self._one(LetBatchesReappear())
        claimed = await self._one(Claim(quantity=4))
        for index in range(len(claimed["batches"])):
            await self._one(Complete(hand=index, seed=index))
        await self._one(Dispatch())
        if not claimed["batches"]:
            await self._one(Enqueue(run=0, done=True))
            for index in range(len(self.picture.open_runs)):
                await self._one(Finish(run=index))

    async def _one(self, operation: Operation) -> Any:
        (answer,) = await self.step([Attempt(operation)])
        return answer
