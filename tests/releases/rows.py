"""All rows of ours in a database, out of it and into another one."""

from __future__ import annotations

import json

from psycopg import sql

from tests.emulator.connections import Connection

from .kept import Row

# The sample's mentors are among them: an evaluation is of somebody. The reference engine's outbox is not, which is no
# part of the product, nor is Vault, where there are secrets; cron's jobs are made by the migrations.
TABLES = b"""
select format('%I.%I', n.nspname, c.relname)
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
 where c.relkind = 'r'
   and (
     n.nspname = 'scheduler'
     or n.nspname = 'public' and (c.relname like 'scheduler%' or c.relname = 'peer_mentors')
     or n.nspname = 'pgmq' and c.relname like '__scenario_evaluation_batches%'
   )
 order by 1
"""

GENERATED = b"""
select attname from pg_attribute where attrelid = %s::regclass and attgenerated <> '' and not attisdropped
"""

IDENTITIES = b"""
select attname from pg_attribute where attrelid = %s::regclass and attidentity <> '' and not attisdropped
"""


async def read_rows(connection: Connection) -> dict[str, list[Row]]:
    """All rows, by table; tables without any are left out."""
    found: dict[str, list[Row]] = {}
    for table in await _tables(connection):
        query = sql.SQL("select coalesce(json_agg(r order by r::text), '[]') from {} as r").format(_name(table))
        ((rows,),) = await (await connection.execute(query)).fetchall()
        if rows:
            found[table] = rows
    return found


async def write_rows(superuser: Connection, rows: dict[str, list[Row]]) -> None:
    """Puts these rows, and no others, into tables of the shape that they come from.

    Args:
        superuser: a session that may leave foreign keys and triggers out of it, as a restore does.
        rows: as they were read.
    """
    async with superuser.transaction():
        await superuser.execute(b"set local session_replication_role = replica")
        tables = await _tables(superuser)
        missing = set(rows) - set(tables)
        assert not missing, f"the release had {', '.join(sorted(missing))}, and its migrations make no such table"
        await superuser.execute(sql.SQL("truncate {}").format(sql.SQL(", ").join(map(_name, tables))))
        for table, content in rows.items():
            # What a row does not have is the table's default; what is generated follows from the rest.
            generated = {name for (name,) in await (await superuser.execute(GENERATED, (table,))).fetchall()}
            columns = [name for name in content[0] if name not in generated]
            await superuser.execute(
                sql.SQL(
                    "insert into {0} ({1}) overriding system value"
                    " select {1} from jsonb_populate_recordset(null::{0}, %s::jsonb)"
                ).format(_name(table), sql.SQL(", ").join(map(sql.Identifier, columns))),
                (json.dumps(content),),
            )
            for (column,) in await (await superuser.execute(IDENTITIES, (table,))).fetchall():
                await superuser.execute(
                    sql.SQL("select setval(pg_get_serial_sequence(%s, %s), max({})) from {}").format(
                        sql.Identifier(column), _name(table)
                    ),
                    (table, column),
                )


async def _tables(connection: Connection) -> list[str]:
    return [table for (table,) in await (await connection.execute(TABLES)).fetchall()]


def _name(table: str) -> sql.Identifier:
    return sql.Identifier(*table.split("."))
