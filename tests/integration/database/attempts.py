"""Statements that try everything on everything of ours: what the catalogues say is one thing, what happens another."""

from __future__ import annotations

import psycopg

from .sql_core import Session

OURS = "n.nspname in ('public', 'scheduler') or (n.nspname = 'pgmq' and c.relname ~ 'scenario_evaluation_batches|meta')"

# Each with its first column, which an update leaves as it would be by default: nothing is wrong with the statement.
ON_RELATIONS = f"""
select statement.text
  from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
  join pg_attribute as a on a.attrelid = c.oid and a.attnum = 1
 cross join lateral (values
    (format('select 1 from %I.%I', n.nspname, c.relname)),
    (format('insert into %I.%I default values', n.nspname, c.relname)),
    (format('update %I.%I set %I = default', n.nspname, c.relname, a.attname)),
    (format('delete from %I.%I', n.nspname, c.relname)),
    (case when c.relkind in ('r', 'p') then format('truncate %I.%I', n.nspname, c.relname) end)
  ) as statement (text)
 where c.relkind in ('r', 'p', 'v') and ({OURS}) and statement.text is not null
 union all
select format(statement.form, format('%I.%I', n.nspname, c.relname))
  from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
 cross join (values ('select nextval(%1$L)'), ('select last_value from %1$s')) as statement (form)
 where c.relkind = 'S' and ({OURS})
 union all
select format('select 1 from %I.%I', n.nspname, c.relname)
  from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
 where c.relkind in ('m', 'f') and ({OURS})
"""

# The arguments are null, and come from a table: a constant null would let the planner skip a strict function.
ON_ROUTINES = """
select case p.prokind when 'p'
         then format('call %I.%I(%s)', n.nspname, p.proname, coalesce(arguments.nulls, ''))
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


async def attempts(session: Session) -> list[str]:
    """What a stranger might try: to read, write, empty and count with every relation, to call every routine."""
    return [*await session.column(ON_RELATIONS), *await session.column(ON_ROUTINES)]


async def what_succeeds(session: Session, role: str, statements: list[str]) -> dict[str, str]:
    """Which of these are not refused for want of a right, each with what was said instead."""
    done: dict[str, str] = {}
    for statement in statements:
        try:
            async with session.connection.transaction(force_rollback=True):
                await session.run(f"set local role {role}")
                await session.run(statement)
        except psycopg.errors.InsufficientPrivilege:
            continue
        except psycopg.Error as error:
            done[statement] = str(error)
        else:
            done[statement] = "done"
    return done
