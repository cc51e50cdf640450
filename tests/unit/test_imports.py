"""Data runs one way, and so do imports: `functions` knows `shared`, neither knows the tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def imported_by(folder: str) -> dict[str, set[str]]:
    """The top-level packages that each module of the folder imports, also within functions and under conditions."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(folder if node.level else (node.module or "").partition(".")[0])
        found[str(path.relative_to(ROOT))] = names
    return found


@pytest.mark.parametrize(
    ("folder", "forbidden"), [("shared", {"functions", "tests"}), ("functions", {"tests"})], ids=["shared", "functions"]
)
def test_nothing_is_imported_against_the_stream(folder: str, forbidden: set[str]) -> None:
    modules = imported_by(folder)
    assert len(modules) > 5
    assert {module: names & forbidden for module, names in modules.items() if names & forbidden} == {}


def test_runs_know_nothing_of_http_but_what_may_be_sent() -> None:
    for path in (ROOT / "functions").glob("*.py"):
        if path.name != "main.py":
            text = path.read_text(encoding="utf-8")
            assert set(re.findall(r"functions\.http[\w.]*", text)) <= {"functions.http.schemas"}, path.name
            assert not re.search(r"^(from|import) (fastapi|starlette)", text, re.MULTILINE), path.name


def test_one_module_knows_the_http_library() -> None:
    modules = imported_by("functions") | imported_by("shared")
    assert [module for module, names in modules.items() if "pyreqwest" in names] == ["shared/http_client.py"]


def test_only_entry_points_read_the_environment() -> None:
    modules = imported_by("functions") | imported_by("shared")
    readers = {
        module
        for module in modules
        for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    }
    # The HTTP client says where the variable that names trusted authorities, which its library reads, leads nowhere.
    assert readers == {"functions/main.py", "shared/deployment/__main__.py", "shared/http_client.py"}
