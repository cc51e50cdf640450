"""Anonymous roles with a connection of their own: PostgreSQL refuses every statement (I6)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from tests.emulator.connections import connect
from tests.emulator.project import ProjectFactory

from .sql_core import Session
from .walk import OURS

# An update leaves the first column as it would be by default. A routine's arguments are null, and come from a table:
# a constant null would let the planner skip a strict function.
ATTEMPTS = f"""
select format(statement.form, format('%I.%I', n.nspname, c.relname), a.attname)
  from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
  join pg_attribute as a on a.attrelid = c.oid and a.attnum = 1
 cross join (values
    ('select 1 from %1$s', 'rpvmfS'), ('insert into %1$s default values', 'rpv'),
    ('update %1$s set %2$I = default', 'rpv'), ('delete from %1$s', 'rpv'), ('truncate %1$s', 'rp'),
    ('select nextval(%1$L)', 'S')
  ) as statement (form, kinds)
 where strpos(statement.kinds, c.relkind::text) > 0 and ({OURS})
 union all
select case p.prokind
         when 'p' then format('call %I.%I(%s)', n.nspname, p.proname, coalesce(arguments.nulls, ''))
         else format('select %I.%I(%s) from (select %s offset 0) as given', n.nspname, p.proname,
                     coalesce(arguments.given, ''), coalesce(arguments.named, '1'))
       end
  from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
 cross join lateral (
   select string_agg(format('null::%s', format_type(type, null)), ', ' order by position),
          string_agg(format('given.a%s', position), ', ' order by position),
          string_agg(format('null::%s as a%s', format_type(type, null), position), ', ' order by position)
     from unnest(p.proargtypes::oid[]) with ordinality as argument (type, position)
 ) as arguments (nulls, given, named)
 where n.nspname in ('public', 'scheduler', 'pgmq') and p.prokind in ('f', 'p')
   and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
"""
QUEUE = "scenario_evaluation_batches"
QUEUE_CALLS = (
    *(f"select pgmq.{name}('{QUEUE}', 1)" for name in ("delete", "archive")),
    *(f"select pgmq.{name}('{QUEUE}', 1, 1)" for name in ("read", "set_vt")),
    *(f"select pgmq.{name}('{QUEUE}')" for name in ("pop", "purge_queue", "drop_queue")),
    f"select pgmq.send('{QUEUE}', '{{}}')",
)
ANONYMOUS = pytest.mark.parametrize("role", ["anon", "authenticated"])


@pytest.fixture
async def owner(projects: ProjectFactory) -> AsyncIterator[Session]:
    async with projects.database() as name, connect(projects.server.url(name)) as connection:
        yield Session(connection)


async def what_is_not_refused(session: Session, role: str, statements: list[str]) -> list[str]:
    """The statements that may be wrong, but are not refused for want of a right."""
    found = []
    for statement in statements:
        try:
            async with session.connection.transaction(force_rollback=True):
                await session.run(f"set local role {role}")
                await session.run(statement)
        except psycopg.errors.InsufficientPrivilege:
            continue
        except psycopg.Error:
            pass
        found.append(statement)
    return found


@ANONYMOUS
async def test_every_statement_of_an_anonymous_role_is_refused(owner: Session, role: str) -> None:
    tried = await owner.column(ATTEMPTS)
    assert await what_is_not_refused(owner, role, tried) == []
    # refused for want of a right, and not because the statements are wrong
    assert await what_is_not_refused(owner, "postgres", tried) == tried
    for what in ("select 1 from scheduler.alerts", "select public.scheduler_settle_alert(", "call scheduler.prune("):
        assert any(statement.startswith(what) for statement in tried), what
    forgotten = "create function public.forgotten(n integer) returns integer language sql strict return n"
    await owner.run(forgotten)
    assert len(await what_is_not_refused(owner, role, await owner.column(ATTEMPTS))) == 1


@pytest.mark.parametrize("call", QUEUE_CALLS)
@ANONYMOUS
async def test_queues_stay_closed_where_pgmq_is_open(owner: Session, role: str, call: str) -> None:
    """As a project has to open it for queues that browsers use: pgmq's functions have their caller's rights."""
    await owner.run(f"select pgmq.send('{QUEUE}', '{{}}')")
    await owner.run(f"grant usage on schema pgmq to {role}")
    await owner.run(f"grant execute on all functions in schema pgmq to {role}")
    assert await what_is_not_refused(owner, role, [call]) == []
    await owner.run(call)
