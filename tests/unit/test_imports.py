"""Imports go from `functions/http` to `functions/runs` to `shared`, and none of them knows the tests."""

from __future__ import annotations

import ast
import re

import pytest

from tests.emulator.staging import ROOT


def product_code(folder: str) -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / folder).rglob("*.py")}


PRODUCT = product_code("shared") | product_code("functions")
# What the modules of a folder and of all folders in it must not import; the first pattern that matches a path holds.
FORBIDDEN = {
    r"shared/": r"(tests|functions|fastapi|starlette)\b",
    r"functions/runs/": r"(tests|functions(?!\.runs\b)|fastapi|starlette)\b",
    r"functions/http/": r"(tests|functions(?!\.(http|runs)\b))\b",
    r"functions/(main|__init__)\.py": r"tests\b",
}


def imported(text: str) -> set[str]:
    """All that a module imports, also within functions and under conditions, and each with its module's name."""
    nodes = list(ast.walk(ast.parse(text)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    of_modules = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return names | {"." * node.level + f"{node.module}.{alias.name}" for node in of_modules for alias in node.names}


def wrong_imports(path: str, text: str) -> set[str]:
    """Imports against the direction; relative ones count as well, since their direction cannot be read."""
    forbidden = next(names for folder, names in FORBIDDEN.items() if re.match(folder, path))
    return {name for name in imported(text) if re.match(rf"\.|{forbidden}", name)}


def test_imports_go_from_http_to_runs_to_shared() -> None:
    assert {path: names for path, text in PRODUCT.items() if (names := wrong_imports(path, text))} == {}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("shared/deployment/a.py", "import functions"),
        ("shared/a.py", "def f():\n    from functions.runs.slice import process_open_runs"),
        ("functions/runs/a.py", "from functions import http"),
        ("functions/runs/a.py", "from functions.http.schemas import Problem"),
        ("functions/runs/deeper/a.py", "import starlette.requests"),
        ("functions/http/a.py", "from functions.main import CONFIG"),
        ("functions/http/a.py", "from ..main import CONFIG"),
        ("functions/main.py", "import tests.unit"),
    ],
)
def test_an_import_against_the_direction_is_found(path: str, text: str) -> None:
    assert len(wrong_imports(path, text)) == 1


def test_only_one_module_imports_the_http_library() -> None:
    importers = {path for path, text in PRODUCT.items() if any(name.startswith("pyreqwest") for name in imported(text))}
    assert importers == {"shared/http_client.py"}


def test_only_entry_points_read_the_environment() -> None:
    nodes = {path: ast.walk(ast.parse(text)) for path, text in PRODUCT.items()}
    readers = {path for path in nodes if {"environ", "getenv"} & {getattr(node, "attr", "") for node in nodes[path]}}
    # The HTTP client says where the variable that names trusted authorities, which its library reads, leads nowhere.
    assert readers == {"functions/main.py", "shared/deployment/__main__.py", "shared/http_client.py"}
