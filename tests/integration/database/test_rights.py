"""Nothing of ours is open to roles that need it not (I6), as the catalogues have it after the migrations alone.

Row level security, search paths and definers' rights: supabase/tests/database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from tests.emulator.connections import connect
from tests.emulator.migrations import apply_migrations
from tests.emulator.project import MIGRATIONS, ProjectFactory

from .sql_core import Session
from .walk import Grant, grants

DOCUMENTED = {
    *(Grant("relation", "public.peer_mentors", "service_role", of) for of in ("SELECT", "INSERT", "UPDATE", "DELETE")),
    Grant("relation", "public.active_peer_mentors", "service_role", "SELECT"),
    Grant("relation", "public.scheduler_invocations", "service_role", "SELECT"),
    Grant("relation", "public.scheduler_invocation_batches", "service_role", "SELECT"),
    Grant("relation", "public.scheduler_evaluations", "service_role", "SELECT"),
    Grant("relation", "public.scenario_evaluation_config", "service_role", "SELECT"),
    Grant("relation", "public.scheduler_audit", "service_role", "SELECT"),
}
QUEUE = "scenario_evaluation_batches"
QUEUE_CALLS = (
    *(f"select pgmq.{name}('{QUEUE}', 1)" for name in ("delete", "archive")),
    *(f"select pgmq.{name}('{QUEUE}', 1, 1)" for name in ("read", "set_vt")),
    *(f"select pgmq.{name}('{QUEUE}')" for name in ("pop", "purge_queue", "drop_queue")),
    f"select pgmq.send('{QUEUE}', '{{}}')",
)


@pytest.fixture(scope="module")
async def migrations_alone(projects: ProjectFactory) -> AsyncIterator[str]:
    """A template without the reference engine's tables, which are no part of the product."""
    async with projects.database("postgres") as name:
        await apply_migrations(projects.server.url(name), MIGRATIONS)
        yield name


@pytest.fixture
async def owner(projects: ProjectFactory, migrations_alone: str) -> AsyncIterator[Session]:
    async with (
        projects.database(migrations_alone) as name,
        connect(projects.server.url(name)) as connection,
    ):
        yield Session(connection)


async def expected(owner: Session) -> set[Grant]:
    """The documented grants; the service role may call each function that is named public.scheduler_*."""
    functions = await owner.column(
        "select format('public.%I', proname) from pg_proc where pronamespace = 'public'::regnamespace"
    )
    return DOCUMENTED | {
        Grant("function", name, "service_role", "EXECUTE") for name in functions if name.startswith("public.scheduler_")
    }


async def test_granted_is_what_is_documented_and_nothing_else(owner: Session) -> None:
    granted = await grants(owner)
    assert granted == await expected(owner)
    assert len(granted) > len(DOCUMENTED) + 15


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_queues_stay_closed_where_pgmq_is_open(owner: Session, role: str) -> None:
    """As a project has to open it for queues that browsers use: pgmq's functions have their caller's rights."""
    await owner.run(f"select pgmq.send('{QUEUE}', '{{}}')")
    await owner.run(f"grant usage on schema pgmq to {role}")
    await owner.run(f"grant execute on all functions in schema pgmq to {role}")
    for call in QUEUE_CALLS:
        await owner.run(f"set role {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await owner.run(call)
        await owner.run("reset role")
        async with owner.connection.transaction(force_rollback=True):
            await owner.run(call)
