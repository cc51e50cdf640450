"""Every cause that the code can record for a mentor, read from the code itself.

A cause is the first argument of an EngineError, of one of its subclasses or of `fail_unresolved`, or an item's
`error_code`. It is a text, or a text with a part that is filled in, which counts as one cause.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

import shared.errors
from shared import evaluations
from tests.emulator.staging import ROOT

FILLED_IN = "…"


def failure_codes() -> set[str]:
    """Why a pair can be `failed`, but for the engine's own codes."""
    trees = [ast.parse(path.read_text()) for folder in ("functions", "shared") for path in (ROOT / folder).glob("*.py")]
    causes = _kinds_of_engine_error(trees) | {"fail_unresolved"}
    return {
        code
        for tree in trees
        for argument in _arguments(tree, causes)
        for code in _texts(argument, _texts_by_name(tree))
    }


def skip_codes() -> set[str]:
    """Why a pair can be `skipped`: the named texts beside the values."""
    return {value for name, value in vars(evaluations).items() if name.isupper() and isinstance(value, str)}


def _kinds_of_engine_error(trees: list[ast.Module]) -> set[str]:
    names = {
        name
        for name, kind in vars(shared.errors).items()
        if isinstance(kind, type) and issubclass(kind, shared.errors.EngineError)
    }
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return names | {node.name for node in classes if names & {getattr(base, "id", "") for base in node.bases}}


def _arguments(tree: ast.Module, causes: set[str]) -> Iterator[ast.expr]:
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        if called in causes and call.args:
            yield call.args[0]
        if called in ("Item", "EvaluationResult"):
            yield from (keyword.value for keyword in call.keywords if keyword.arg == "error_code")


def _texts_by_name(tree: ast.Module) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, set()).update(_texts(node.value, {}))
    return found


def _texts(expression: ast.expr, by_name: Mapping[str, set[str]]) -> set[str]:
    """What it can be. What it has from somewhere else, as an error's own code, is found there."""
    match expression:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.JoinedStr(values=parts):
            texts = [str(part.value) if isinstance(part, ast.Constant) else FILLED_IN for part in parts]
            return {"".join(texts)}
        case ast.IfExp(body=one, orelse=other):
            return _texts(one, by_name) | _texts(other, by_name)
        case ast.Name(id=name):
            return set(by_name.get(name, ()))
        case _:
            return set()
