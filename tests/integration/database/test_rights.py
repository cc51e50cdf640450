"""Nothing of ours is open to whom it need not be (I6): a walk over the catalogues after the migrations alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from tests.emulator.connections import connect
from tests.emulator.migrations import apply_migrations
from tests.emulator.project import MIGRATIONS, ProjectFactory

from .sql_core import Session
from .walk import Grant, functions_with_a_search_path, grants, tables_without_rls

DOCUMENTED = {
    *(
        Grant("relation", "public.peer_mentors", "service_role", verb)
        for verb in ("SELECT", "INSERT", "UPDATE", "DELETE")
    ),
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


async def undocumented(owner: Session) -> set[Grant]:
    """Grants that nobody wrote down. The service role may call whatever is named public.scheduler_*."""
    return {
        grant
        for grant in await grants(owner) - DOCUMENTED
        if not (
            grant.role == "service_role"
            and grant.kind == "function"
            and grant.name.startswith("public.scheduler_")
            and grant.privilege == "EXECUTE"
        )
    }


async def test_the_walk_meets_all_that_is_ours(owner: Session) -> None:
    """An empty walk would find nothing wrong."""
    await owner.run("grant select on all tables in schema public, scheduler, pgmq to anon")
    await owner.run("grant execute on all routines in schema public, scheduler to anon")
    await owner.run("grant usage on schema scheduler to anon")
    met = {grant.name for grant in await grants(owner) if grant.role == "anon"}
    assert met >= {
        "scheduler",
        "public.peer_mentors",
        "public.active_peer_mentors",
        "public.scheduler_invocations",
        "public.scheduler_invocation_batches",
        "public.scheduler_evaluations",
        "scheduler.settings",
        "scheduler.dispatches",
        "scheduler.engine_permits",
        "scheduler.engine_ceiling",
        "pgmq.q_scenario_evaluation_batches",
        "pgmq.a_scenario_evaluation_batches",
        "pgmq.q_scenario_evaluation_batches_manual",
        "pgmq.a_scenario_evaluation_batches_manual",
        "pgmq.q_scenario_evaluation_batches_poison",
        "pgmq.a_scenario_evaluation_batches_poison",
        "public.scheduler_open_slot",
        "public.scheduler_enqueue",
        "public.scheduler_claim",
        "public.scheduler_take_permit",
        "public.scheduler_complete",
        "public.scheduler_release",
        "public.scheduler_split",
        "public.scheduler_finish",
        "public.scheduler_update",
        "public.scheduler_delete",
        "public.scheduler_open",
        "public.scheduler_list",
        "public.scheduler_get",
        "public.scheduler_hand_back",
        "scheduler.dispatch",
        "scheduler.post_slices",
        "scheduler.expire",
        "scheduler.prune",
    }


async def test_strangers_have_no_right_to_anything(owner: Session) -> None:
    assert {grant for grant in await grants(owner) if grant.role != "service_role"} == set()


async def test_the_service_role_has_no_right_that_is_not_documented(owner: Session) -> None:
    assert await undocumented(owner) == set()


async def test_every_documented_right_is_given(owner: Session) -> None:
    assert await grants(owner) >= DOCUMENTED


async def test_the_service_role_may_call_each_public_function(owner: Session) -> None:
    functions = await owner.column(
        "select format('%I.%I', 'public', proname) from pg_proc where pronamespace = 'public'::regnamespace"
    )
    assert set(functions) == {grant.name for grant in await grants(owner) if grant.kind == "function"}


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_no_membership_leads_around_the_revokes(owner: Session, role: str) -> None:
    """Rights in effect, inherited ones too; the walk sees only those that were granted to the role itself.

    pg_net's tables are open to every role and not ours to close.
    """
    reachable = await owner.column(
        "select c.oid::regclass::text from pg_class as c join pg_namespace as n on n.oid = c.relnamespace"
        " where c.relkind in ('r', 'v') and n.nspname in ('public', 'scheduler', 'pgmq', 'vault', 'cron')"
        f" and has_table_privilege('{role}', c.oid, 'select, insert, update, delete, truncate, references, trigger')"
        f" and has_schema_privilege('{role}', n.oid, 'usage')"
    )
    assert reachable == []


@pytest.mark.parametrize(
    "forgotten",
    [
        "create table public.forgotten (id integer)",
        "create view public.forgotten as select 1 as one",
        "create materialized view public.forgotten as select 1 as one",
        "create sequence public.forgotten",
        "create function public.forgotten() returns integer language sql set search_path = '' return 1",
        "create function scheduler.forgotten() returns integer language sql set search_path = '' return 1",
        "create procedure scheduler.forgotten() language sql set search_path = '' begin atomic select 1; end",
        # the mistake that PUBLIC's default makes easy
        "create function public.scheduler_forgotten() returns integer language sql set search_path = '' return 1;"
        " revoke all on function public.scheduler_forgotten() from public",
        "grant usage on schema scheduler to service_role",
        "grant select (user_id) on public.scheduler_evaluations to authenticated",
        "grant select on scheduler.settings to public",
        "grant select on pgmq.q_scenario_evaluation_batches to anon",
        # the seam, replaced without repeating its revokes
        "drop view public.active_peer_mentors;"
        " create view public.active_peer_mentors as select user_id, segments from public.peer_mentors",
    ],
)
async def test_a_right_that_somebody_forgot_to_revoke_is_found(owner: Session, forgotten: str) -> None:
    before = await undocumented(owner)
    await owner.run(forgotten)
    assert await undocumented(owner) - before != set()


async def test_row_level_security_is_on_for_each_table(owner: Session) -> None:
    assert await tables_without_rls(owner) == set()
    await owner.run("create table scheduler.forgotten (id integer)")
    assert await tables_without_rls(owner) == {"scheduler.forgotten"}


async def test_no_policy_lets_anybody_past_it(owner: Session) -> None:
    policies = (
        "select polrelid::regclass::text from pg_policy where polrelid::regclass::text ~ 'scheduler|mentor|scenario'"
    )
    assert await owner.column(policies) == []


async def test_the_view_shows_no_more_than_its_reader_may_see(owner: Session) -> None:
    assert await owner.value("select reloptions from pg_class where relname = 'active_peer_mentors'") == [
        "security_invoker=true"
    ]


async def test_every_function_has_an_empty_search_path_but_the_procedure_that_commits(owner: Session) -> None:
    assert await functions_with_a_search_path(owner) == {"scheduler.prune"}
    await owner.run("create function scheduler.forgotten() returns integer language sql return 1")
    assert await functions_with_a_search_path(owner) == {"scheduler.prune", "scheduler.forgotten"}


async def test_only_what_the_data_api_calls_runs_with_its_owners_rights(owner: Session) -> None:
    assert (
        await owner.column(
            "select oid::regprocedure::text from pg_proc where prosecdef"
            " and (pronamespace = 'scheduler'::regnamespace"
            " or pronamespace = 'public'::regnamespace and proname !~ '^scheduler_')"
        )
        == []
    )
    assert await owner.column(
        "select distinct rolsuper from pg_proc join pg_roles as r on r.oid = proowner"
        " where pronamespace in ('public'::regnamespace, 'scheduler'::regnamespace)"
    ) == [False]


@pytest.mark.parametrize(
    "statement",
    [
        "insert into public.scheduler_invocations (idempotency_key) values ('slot:x')",
        "update public.scheduler_invocations set status = 'succeeded'",
        "delete from public.scheduler_invocations",
        "delete from public.scheduler_invocation_batches",
        "delete from public.scheduler_evaluations",
        "select from scheduler.settings",
        "select from scheduler.dispatches",
        "select scheduler.dispatch()",
        "select scheduler.expire()",
        "select from pgmq.q_scenario_evaluation_batches",
        "select pgmq.read('scenario_evaluation_batches', 1, 1)",
    ],
)
async def test_the_service_role_changes_state_through_functions_only(owner: Session, statement: str) -> None:
    await owner.run("set role service_role")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await owner.run(statement)
