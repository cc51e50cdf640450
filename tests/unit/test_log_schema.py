"""The events that the code writes, those of the schema and those in docs/observability.md are the same."""

from __future__ import annotations

import ast
import json
import re

import pytest

from tests.emulator.staging import ROOT
from tests.log_schema import LINE, REFUSAL, UndocumentedLineError, check_lines, schema


def written_in_the_code() -> dict[str, set[str]]:
    """Each event with the fields that some call gives it by name."""
    errors = (ROOT / "shared" / "errors.py").read_text()
    # What the formatter puts in place of an event where a line has none, and the events that errors name.
    found: dict[str, set[str]] = {name: set() for name in ("log", *re.findall(r'^    event = "(\w+)"', errors, re.M))}
    for path in [*(ROOT / "functions").rglob("*.py"), *(ROOT / "shared").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("log_event", "log_exception"):
                name = node.args[0]
                if ast.unparse(name) != "error.event":
                    assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: an event that cannot be read"
                    fields = {keyword.arg for keyword in node.keywords if keyword.arg not in (None, "level")}
                    found.setdefault(str(name.value), set()).update(field for field in fields if field)
    return found


def test_code_schema_and_document_have_the_same_events() -> None:
    document = schema()
    names = [reference["$ref"].removeprefix("#/$defs/") for reference in document["oneOf"]]
    written = written_in_the_code()
    assert sorted(names) == sorted(written)
    for name in names:
        event = document["$defs"][name]
        assert event["properties"]["event"] == {"const": name}
        assert event["unevaluatedProperties"] is False
        assert written[name] <= event["properties"].keys(), name
    explained_in = (ROOT / "docs" / "observability.md").read_text().split("## Log lines")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", explained_in, re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert explained - document["$defs"]["line"]["properties"].keys() == {*names}


@pytest.mark.parametrize(
    "line",
    [
        *("", "Traceback (most recent call last):", "[]", "  SUPABASE_URL: missing"),
        *(
            json.dumps(LINE | changes)
            for changes in (
                *({"event": "caller_came"}, {"severity": "info"}, {"who": "me"}, {"time": "2026-11-23"}),
                {"component": "mine"},
            )
        ),
        json.dumps(LINE | {"event": "engine_results_dropped", "dropped": "1"}),
    ],
)
def test_a_line_unlike_its_event_in_the_schema_fails(line: str) -> None:
    allowed = [REFUSAL, "  SUPABASE_URL: missing", json.dumps(LINE)]
    assert check_lines(allowed, "function.log") == 1
    with pytest.raises(UndocumentedLineError, match=r"function\.log:2"):
        check_lines([*allowed, line], "function.log")
