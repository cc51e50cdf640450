"""docs/scaling.md, whose tables stand between marks: `<!-- table NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.emulator.staging import ROOT

DOCUMENT = ROOT / "docs" / "scaling.md"
_MARKED = re.compile(r"<!-- table (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """The text with these tables in the places that are marked for them.

    Raises:
        KeyError: a mark names no table.
    """
    return _MARKED.sub(lambda mark: f"<!-- table {mark[1]} -->\n{tables[mark[1]]}\n<!-- end -->", text)


def tables_in(text: str) -> set[str]:
    """The names that are marked."""
    return {mark[1] for mark in _MARKED.finditer(text)}
