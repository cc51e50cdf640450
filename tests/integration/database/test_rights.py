"""Nothing of ours is open to roles that need it not (I6): a walk over the catalogues after the migrations alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.emulator.connections import connect
from tests.emulator.migrations import apply_migrations
from tests.emulator.project import MIGRATIONS, ProjectFactory

from .sql_core import Session
from .walk import Grant, grants, tables_without_rls

DOCUMENTED = {
    *(Grant("relation", "public.peer_mentors", "service_role", of) for of in ("SELECT", "INSERT", "UPDATE", "DELETE")),
    Grant("relation", "public.active_peer_mentors", "service_role", "SELECT"),
    Grant("relation", "public.scheduler_invocations", "service_role", "SELECT"),
    Grant("relation", "public.scheduler_invocation_batches", "service_role", "SELECT"),
    Grant("relation", "public.scheduler_evaluations", "service_role", "SELECT"),
}


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


@pytest.mark.parametrize(
    "forgotten",
    [
        "create table public.forgotten (id integer)",
        "create materialized view public.forgotten as select 1 as one",
        "create sequence public.forgotten",
        "create function scheduler.forgotten() returns integer language sql set search_path = '' return 1",
        # PUBLIC's default makes this mistake easy
        "create function public.scheduler_forgotten() returns integer language sql set search_path = '' return 1;"
        " revoke all on function public.scheduler_forgotten() from public",
        "grant usage on schema scheduler to service_role",
        "grant select (user_id) on public.scheduler_evaluations to authenticated",
        "grant select on pgmq.q_scenario_evaluation_batches to public",
        # the view, replaced without repeating its revokes
        "drop view public.active_peer_mentors;"
        " create view public.active_peer_mentors as select user_id, segments from public.peer_mentors",
    ],
)
async def test_a_right_forgotten_to_revoke_is_found(owner: Session, forgotten: str) -> None:
    await owner.run(forgotten)
    assert await grants(owner) - await expected(owner) != set()


async def test_functions_and_the_view_lend_no_rights(owner: Session) -> None:
    """What a function names without a schema, its caller may replace; but a procedure that commits may set no path."""
    ours = "pronamespace in ('public'::regnamespace, 'scheduler'::regnamespace)"
    no_path = "not 'search_path=\"\"' = any (coalesce(proconfig, '{}'))"
    assert await owner.column(f"select proname from pg_proc where {ours} and {no_path}") == ["prune"]
    definers = f"select proname from pg_proc where {ours} and prosecdef and proname !~ '^scheduler_'"
    assert await owner.column(definers) == []
    owners = f"select distinct rolsuper from pg_proc join pg_roles as r on r.oid = proowner where {ours}"
    assert await owner.column(owners) == [False]
    view = "select reloptions from pg_class where oid = 'public.active_peer_mentors'::regclass"
    assert await owner.value(view) == ["security_invoker=true"]


async def test_row_level_security_is_on_without_a_policy(owner: Session) -> None:
    assert await tables_without_rls(owner) == set()
    policies = "select * from pg_policy where polrelid::regclass::text ~ 'scheduler|mentor|scenario'"
    assert await owner.rows(policies) == []
    await owner.run("create table scheduler.forgotten (id integer)")
    assert await tables_without_rls(owner) == {"scheduler.forgotten"}
