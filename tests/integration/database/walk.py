"""Walks the catalogues for everything of ours: which role may do what with it."""

from __future__ import annotations

from typing import NamedTuple

from .sql_core import Session

# Of a product's database everything in these two schemas is ours; in pgmq only the tables of our queues.
OURS = """
  n.nspname in ('public', 'scheduler') or (n.nspname = 'pgmq' and c.relname like '%scenario_evaluation_batches%')
"""

GRANTS = f"""
select grants.kind, grants.name, case acl.grantee when 0 then 'PUBLIC' else acl.grantee::regrole::text end,
       acl.privilege_type
  from (
    select 'schema', n.nspname::text, coalesce(n.nspacl, acldefault('n', n.nspowner))
      from pg_namespace as n
     where n.nspname = 'scheduler'
    union all
    select case c.relkind when 'S' then 'sequence' else 'relation' end, format('%I.%I', n.nspname, c.relname),
           coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner))
      from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and ({OURS})
    union all
    select 'column', format('%I.%I.%I', n.nspname, c.relname, a.attname), a.attacl
      from pg_attribute as a join pg_class as c on c.oid = a.attrelid join pg_namespace as n on n.oid = c.relnamespace
     where a.attacl is not null and ({OURS})
    union all
    select 'function', format('%I.%I', n.nspname, p.proname), coalesce(p.proacl, acldefault('f', p.proowner))
      from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
     where n.nspname in ('public', 'scheduler')
  ) as grants (kind, name, acl)
 cross join aclexplode(grants.acl) as acl
 where acl.grantee in (0::oid, 'anon'::regrole::oid, 'authenticated'::regrole::oid, 'service_role'::regrole::oid)
"""


class Grant(NamedTuple):
    kind: str
    name: str
    role: str
    privilege: str


async def grants(session: Session) -> set[Grant]:
    """What PUBLIC, anon, authenticated and service_role may do with what is ours."""
    return {Grant(*row) for row in await session.rows(GRANTS)}
