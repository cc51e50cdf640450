"""Strangers with a connection of their own: everything is tried through SQL, and PostgreSQL refuses it (I6)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.emulator.connections import connect
from tests.emulator.project import ProjectFactory

from .attempts import attempts, what_succeeds
from .sql_core import Session

STRANGERS = ["anon", "authenticated"]
QUEUE = "scenario_evaluation_batches"


@pytest.fixture
async def owner(projects: ProjectFactory) -> AsyncIterator[Session]:
    async with projects.database() as name, connect(projects.server.url(name)) as connection:
        yield Session(connection)


async def test_everything_of_ours_is_tried(owner: Session) -> None:
    """An attempt at nothing is always refused."""
    tried = await attempts(owner)
    for relation in (
        "public.peer_mentors",
        "public.active_peer_mentors",
        "public.scheduler_invocations",
        "public.scheduler_invocation_batches",
        "public.scheduler_evaluations",
        "scheduler.settings",
        "scheduler.dispatches",
        "scheduler.engine_permits",
        "scheduler.engine_ceiling",
        f"pgmq.q_{QUEUE}",
        f"pgmq.a_{QUEUE}_manual",
        "pgmq.meta",
    ):
        for start in (f"select 1 from {relation}", f"insert into {relation} ", f"delete from {relation}"):
            assert any(statement.startswith(start) for statement in tried), start
    for routine in (
        "select public.scheduler_claim(",
        "select public.scheduler_complete(",
        "select scheduler.dispatch(",
        "call scheduler.prune(",
        "select pgmq.send(",
        "select pgmq.read(",
        "select pgmq.purge_queue(",
    ):
        assert any(statement.startswith(routine) for statement in tried), routine


@pytest.mark.parametrize("role", STRANGERS)
async def test_a_stranger_is_refused_whatever_he_tries(owner: Session, role: str) -> None:
    assert await what_succeeds(owner, role, await attempts(owner)) == {}


async def test_the_same_attempts_are_not_refused_to_the_owner(owner: Session) -> None:
    """Refused for want of a right, and not because the statements are wrong."""
    tried = await attempts(owner)
    assert len(await what_succeeds(owner, "postgres", tried)) == len(tried)


@pytest.mark.parametrize(
    "forgotten",
    [
        "create table public.forgotten (id integer)",
        "create view public.forgotten as select 1 as one",
        "create materialized view public.forgotten as select 1 as one",
        "create sequence public.forgotten",
        "create function public.forgotten(n integer) returns integer language sql strict set search_path = '' return n",
        "create procedure public.forgotten() language sql set search_path = '' begin atomic select 1; end",
    ],
)
@pytest.mark.parametrize("role", STRANGERS)
async def test_what_somebody_forgot_to_close_is_found_open(owner: Session, role: str, forgotten: str) -> None:
    await owner.run(forgotten)
    open_now = await what_succeeds(owner, role, await attempts(owner))
    assert open_now
    assert all("public.forgotten" in statement for statement in open_now)


@pytest.mark.parametrize(
    "call",
    [
        f"pgmq.send('{QUEUE}', '{{}}')",
        f"pgmq.read('{QUEUE}', 1, 1)",
        f"pgmq.pop('{QUEUE}')",
        f"pgmq.delete('{QUEUE}', 1)",
        f"pgmq.archive('{QUEUE}', 1)",
        f"pgmq.set_vt('{QUEUE}', 1, 1)",
        f"pgmq.purge_queue('{QUEUE}')",
        f"pgmq.drop_queue('{QUEUE}')",
    ],
)
@pytest.mark.parametrize("role", STRANGERS)
async def test_our_queues_stay_closed_where_a_project_opens_pgmq_to_its_users(
    owner: Session, role: str, call: str
) -> None:
    """As it has to for queues of its own that browsers use: pgmq's functions have their caller's rights."""
    await owner.run(f"select pgmq.send('{QUEUE}', '{{}}')")
    await owner.run(f"grant usage on schema pgmq to {role}")
    await owner.run(f"grant execute on all functions in schema pgmq to {role}")
    assert await what_succeeds(owner, role, [f"select {call}"]) == {}
    assert await what_succeeds(owner, "postgres", [f"select {call}"]) == {f"select {call}": "done"}
