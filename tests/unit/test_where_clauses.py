"""Every UPDATE and DELETE of our SQL has a WHERE: Supabase refuses others through the Data API (safeupdate, 21000)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pglast
import pytest
from pglast import ast, visitors

ROOT = Path(__file__).parents[2]
FILES = [
    file
    for folder in ("supabase", "supabase/migrations", "tests/emulator/reference_engine")
    for file in sorted((ROOT / folder).glob("*.sql"))
]
PSQL_COMMAND = re.compile(r"^\s*\\.*$", re.MULTILINE)
PSQL_VARIABLE = re.compile(r":'\w+'")
# pglast finds no type of another schema than pg_catalog and public
OTHER_SCHEMA = re.compile(r"\b(?:scheduler|pgmq|net|cron|vault)\.")
ASSIGNED_TO = re.compile(r"^\s*[\w.\[\]]+\s*:?=(?!=)")
CHANGE_BEGINS = re.compile(r"\s*(update\s+\S*\s*(set\b|$)|delete\s+from\b)", re.IGNORECASE)
FORMAT_SPECIFIER = re.compile(r"%(?:\d+\$)?[ILs]")

# PLpgSQL_expr.parseMode of a whole statement; the others are expressions and assignments
STATEMENT = 0


class _Contents(visitors.Visitor):
    """What a parsed statement has in it, CTEs included: changes without a WHERE, and string constants."""

    def __init__(self) -> None:
        self.unbounded: list[str] = []
        self.constants: list[str] = []

    def visit_UpdateStmt(self, _: object, node: Any) -> None:  # noqa: N802
        self._note("update", node)

    def visit_DeleteStmt(self, _: object, node: Any) -> None:  # noqa: N802
        self._note("delete from", node)

    def visit_A_Const(self, _: object, node: Any) -> None:  # noqa: N802
        if isinstance(node.val, ast.String):
            self.constants.append(node.val.sval or "")

    def _note(self, verb: str, node: Any) -> None:
        if node.whereClause is None:
            self.unbounded.append(f"{verb} {node.relation.relname}")


def unbounded_changes(sql: str) -> list[str]:
    """`function: statement` for each UPDATE or DELETE without a WHERE, wherever it stands: CTEs, bodies, EXECUTE."""
    return list(_in_script(PSQL_VARIABLE.sub("''", PSQL_COMMAND.sub("", sql)), "the script itself"))


def _in_script(sql: str, place: str) -> Iterator[str]:
    for text in pglast.split(sql):
        (raw,) = pglast.parse_sql(text)
        found = _Contents()
        found(raw)
        yield from (f"{place}: {change}" for change in found.unbounded)
        if isinstance(raw.stmt, ast.CreateFunctionStmt):
            name = ".".join(part.sval for part in raw.stmt.funcname or ())
            options = {option.defname: option.arg for option in raw.stmt.options or ()}
            if "as" in options and options["language"].sval == "sql":
                yield from _in_script(options["as"][0].sval, name)
            elif "as" in options:
                yield from _in_plpgsql(text, name)
        elif isinstance(raw.stmt, ast.DoStmt):
            yield from _in_plpgsql(text, "a DO block")


def _in_plpgsql(text: str, place: str) -> Iterator[str]:
    for query, mode in _expressions(pglast.parse_plpgsql(OTHER_SCHEMA.sub("public.", text))):
        if mode == STATEMENT:
            yield from _in_script(query, place)
        yield from _in_constants(query if mode == STATEMENT else f"select {ASSIGNED_TO.sub('', query)}", place)


def _in_constants(query: str, place: str) -> Iterator[str]:
    """What is executed dynamically, as far as a constant holds it."""
    found = _Contents()
    found(pglast.parse_sql(query))
    for constant in found.constants:
        try:
            yield from _in_script(FORMAT_SPECIFIER.sub("x", constant), f"{place}, dynamic")
        except pglast.parser.ParseError:
            # A piece of a statement: what it is put together with cannot be known.
            if CHANGE_BEGINS.match(constant):
                yield f"{place}, dynamic: {constant.strip()}"


def _expressions(parsed: Any) -> Iterator[tuple[str, int]]:
    if isinstance(parsed, dict):
        if "PLpgSQL_expr" in parsed:
            yield parsed["PLpgSQL_expr"]["query"], parsed["PLpgSQL_expr"]["parseMode"]
        for part in parsed.values():
            yield from _expressions(part)
    elif isinstance(parsed, list):
        for part in parsed:
            yield from _expressions(part)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_update_and_delete_has_a_where(file: Path) -> None:
    assert unbounded_changes(file.read_text()) == []


def test_files_that_change_rows_are_among_those_read() -> None:
    assert {"uninstall.sql", "schema.sql", "20261120001100_dispatch_slices.sql"} <= {file.name for file in FILES}


IN_SQL = "create function s.f() returns void language sql as $$ {} $$"
IN_PLPGSQL = "create function s.f() returns void language plpgsql as $$ begin {}; end $$"
WHILE_LOOPING = "for i in 1..2 loop if true then {}; end if; end loop"


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("update a set b = 1; update a set b = 2 where c", ["the script itself: update a"]),
        ("delete from a using b", ["the script itself: delete from a"]),
        ("with gone as (delete from a returning *) select * from gone", ["the script itself: delete from a"]),
        (IN_SQL.format("select 1; update a set b = 1"), ["s.f: update a"]),
        ("create procedure f() begin atomic delete from a; end", ["the script itself: delete from a"]),
        (IN_PLPGSQL.format("update a set b = 1"), ["s.f: update a"]),
        (IN_PLPGSQL.format(WHILE_LOOPING.format("delete from a")), ["s.f: delete from a"]),
        (IN_PLPGSQL.format("execute format('update %I.t set b = 1', 'a')"), ["s.f, dynamic: update t"]),
        (IN_PLPGSQL.format("execute 'delete from ' || quote_ident('a')"), ["s.f, dynamic: delete from"]),
        ("do $$ declare v text; begin v := 'delete from a'; end $$", ["a DO block, dynamic: delete from a"]),
        ("do $$ begin perform 1; delete from a; end $$", ["a DO block: delete from a"]),
    ],
)
def test_a_change_without_a_where_is_found_wherever_it_stands(sql: str, found: list[str]) -> None:
    assert unbounded_changes(sql) == found
