"""Data runs one way, and so do imports: `functions` knows `shared`, neither knows the tests."""

from __future__ import annotations

import ast
import re

from tests.emulator.staging import ROOT


def product_code(folder: str) -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / folder).rglob("*.py")}


PRODUCT = product_code("shared") | product_code("functions")


def imported(text: str) -> set[str]:
    """The modules that a module imports, also within functions and under conditions."""
    nodes = list(ast.walk(ast.parse(text)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}


def importers(package: str, *, folder: str = "") -> set[str]:
    of_package = re.compile(rf"{re.escape(package)}(\.|$)")
    return {
        path
        for path, text in PRODUCT.items()
        if path.startswith(folder) and any(of_package.match(name) for name in imported(text))
    }


def test_nothing_is_imported_against_the_stream() -> None:
    assert importers("tests") == set()
    assert importers("functions", folder="shared/") == set()
    assert importers("pyreqwest") == {"shared/http_client.py"}
    # Runs know nothing of HTTP but what may be sent.
    of_runs = [imported(text) for path, text in PRODUCT.items() if re.fullmatch(r"functions/(?!main)\w+\.py", path)]
    of_http = re.compile(r"fastapi|starlette|functions\.http(?!\.schemas)")
    assert [name for names in of_runs for name in names if of_http.match(name)] == []


def test_only_entry_points_read_the_environment() -> None:
    nodes = {path: ast.walk(ast.parse(text)) for path, text in PRODUCT.items()}
    readers = {path for path in nodes if {"environ", "getenv"} & {getattr(node, "attr", "") for node in nodes[path]}}
    # The HTTP client says where the variable that names trusted authorities, which its library reads, leads nowhere.
    assert readers == {"functions/main.py", "shared/deployment/__main__.py", "shared/http_client.py"}
