"""A migrated database in which steps are taken within one transaction, so that any of them can be taken back."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from uuid import UUID

from tests.emulator.connections import connect
from tests.integration.database.sql_core import Worker, minutes

from .invariants import Ledger, check, check_step
from .snapshot import DESCRIBE, Snapshot, look
from .steps import MAX_WORKERS, Scene, prune

SECRETS = {"scheduler_function_url": "https://function.example/", "scheduler_invoke_token": "a-token"}
# The real body, without its commits: a savepoint would not outlive them.
PRUNE_WITHIN_TRANSACTION = """
do $do$ begin
  execute format(
    'create procedure scheduler.prune_within_transaction() language plpgsql as %L',
    (select replace(prosrc, 'commit;', '') from pg_catalog.pg_proc where oid = 'scheduler.prune'::regproc)
  );
end $do$
"""


# A step with all its arguments.
Step = partial[Coroutine[Any, Any, None]]


def name_of(step: Step) -> str:
    return f"{step.func.__name__}({', '.join(f'{name}={value!r}' for name, value in step.keywords.items())})"


class ViolationError(AssertionError):
    """A step did, or was answered, what it must not."""


@dataclass(frozen=True)
class State:
    snapshot: Snapshot
    ledger: Ledger

    @cached_property
    def key(self) -> str:
        return self.snapshot.key() + self.ledger.key()


class Harness:
    """Takes steps over one connection, inside a transaction, and checks everything after each."""

    def __init__(self, session: Worker, queues: Sequence[str]) -> None:
        self._session = session
        self._queues = queues
        self._read = look(queues)
        self._ids = 0
        # Keys of the states in which the invariants hold: they need not be checked there again.
        self._checked: set[str] = set()

    async def begin(self) -> State:
        """Set it up as the function's first start would have two hours ago; nothing has been opened yet."""
        await self._session.run(PRUNE_WITHIN_TRANSACTION)
        for queue in self._queues:
            # What was drawn before is not to be seen in the numbers: the same steps do the same again.
            await self._session.run(f"select setval(pg_get_serial_sequence('pgmq.q_{queue}', 'msg_id'), 1, false)")
        now = await self._session.value("select date_trunc('minute', clock_timestamp())")
        self._first_slot = now - minutes(120)
        await self._session.run(
            "update scheduler.settings set slot_high_water_mark = %s, max_workers = %s where singleton",
            *(self._first_slot - minutes(1), MAX_WORKERS),
        )
        for name, secret in SECRETS.items():
            await self._session.run("select vault.create_secret(%s, %s)", secret, name)
        return State(Snapshot(await self._session.value(self._read)), Ledger())

    async def change(self, function: str, right: str, wrong: str) -> None:
        """Put `wrong` in the place of `right` in an SQL function."""
        definition = await self._session.value("select pg_get_functiondef(%s::regproc)", function)
        assert definition.count(right) == 1, f"{function} does not say {right!r} once: bring this mistake up to date"
        await self._session.run(definition.replace(right, wrong))

    async def take(self, step: Step, state: State) -> State | None:
        """Return the state that the step leads to, None where there is nothing to do; or raise ViolationError."""
        self._ids += 1
        # Spread over all ids, so that runs are not locked in the order of their age.
        new_id = str(UUID(int=(self._ids * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128, version=4))
        scene = Scene(self._session, self._read, state.snapshot, state.ledger.branch(), self._first_slot, new_id)
        try:
            await step(scene)
            if scene.after is None:
                return None
            after = State(scene.after, scene.ledger)
            check_step(state.snapshot, after.snapshot, prunes=step.func is prune)
            if after.key not in self._checked:
                check(after.snapshot, await self._session.value(DESCRIBE) or {}, after.ledger)
                self._checked.add(after.key)
        except Exception as error:
            raise ViolationError(f"{name_of(step)}: {error}") from error
        return after

    @contextlib.asynccontextmanager
    async def returning_here(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Yield what takes back all that was done since; to be called after each branch. May be nested."""
        await self._session.run("savepoint here")
        yield lambda: self._session.run("rollback to savepoint here")
        await self._session.run("release savepoint here")


@contextlib.asynccontextmanager
async def harness(url: str) -> AsyncIterator[Harness]:
    """Enter a harness in a transaction of its own, which is rolled back."""
    async with connect(url) as connection, connection.transaction(force_rollback=True):
        session = Worker(connection)
        yield Harness(session, await session.column("select queue_name from pgmq.meta order by queue_name"))
