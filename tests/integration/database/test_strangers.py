"""Strangers with a connection of their own: everything is tried through SQL, and PostgreSQL refuses it (I6)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.emulator.connections import connect
from tests.emulator.project import ProjectFactory

from .attempts import attempts, what_succeeds
from .sql_core import Session

QUEUE = "scenario_evaluation_batches"
QUEUE_CALLS = (
    *(f"select pgmq.{name}('{QUEUE}', 1)" for name in ("delete", "archive")),
    *(f"select pgmq.{name}('{QUEUE}', 1, 1)" for name in ("read", "set_vt")),
    *(f"select pgmq.{name}('{QUEUE}')" for name in ("pop", "purge_queue", "drop_queue")),
    f"select pgmq.send('{QUEUE}', '{{}}')",
)
STRANGERS = pytest.mark.parametrize("role", ["anon", "authenticated"])


@pytest.fixture
async def owner(projects: ProjectFactory) -> AsyncIterator[Session]:
    async with projects.database() as name, connect(projects.server.url(name)) as connection:
        yield Session(connection)


@STRANGERS
async def test_a_stranger_is_refused_whatever_is_tried(owner: Session, role: str) -> None:
    tried = await attempts(owner)
    assert await what_succeeds(owner, role, tried) == {}
    # refused for want of a right, and not because the statements are wrong
    assert len(await what_succeeds(owner, "postgres", tried)) == len(tried)
    for what in ("select 1 from scheduler.alerts", "select public.scheduler_settle_alert(", "call scheduler.prune("):
        assert any(statement.startswith(what) for statement in tried), what


@pytest.mark.parametrize(
    "forgotten",
    [
        "create view public.forgotten as select 1 as one",
        "create sequence public.forgotten",
        "create function public.forgotten(n integer) returns integer language sql strict set search_path = '' return n",
    ],
)
async def test_what_was_forgotten_to_close_is_found_open(owner: Session, forgotten: str) -> None:
    await owner.run(forgotten)
    open_now = await what_succeeds(owner, "anon", await attempts(owner))
    assert open_now
    assert all("public.forgotten" in statement for statement in open_now)


@pytest.mark.parametrize("call", QUEUE_CALLS)
@STRANGERS
async def test_queues_stay_closed_where_pgmq_is_open(owner: Session, role: str, call: str) -> None:
    """As a project has to open it for queues that browsers use: pgmq's functions have their caller's rights."""
    await owner.run(f"select pgmq.send('{QUEUE}', '{{}}')")
    await owner.run(f"grant usage on schema pgmq to {role}")
    await owner.run(f"grant execute on all functions in schema pgmq to {role}")
    assert await what_succeeds(owner, role, [call]) == {}
    assert await what_succeeds(owner, "postgres", [call]) == {call: "done"}
