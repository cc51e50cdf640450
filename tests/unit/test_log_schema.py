"""The events that the code writes, those of the schema and those in docs/logging.md are the same."""

from __future__ import annotations

import ast
import json
import re

import pytest

from tests.emulator.staging import ROOT
from tests.log_schema import REFUSAL, UndocumentedLineError, check_lines, schema

# What the formatter puts in place of an event where a line has none.
FALLBACK = "log"
LINE = {"time": "2026-11-23T02:00:00.000+00:00", "severity": "INFO", "event": "caller_left", "message": "m"}
RUN = {"invocation_id": "8a4e3f0c-5d0e-4d3e-9d53-0f5e0c4f6a11", "slot": "2026-11-23T02:00:00+00:00"}


def written_in_the_code() -> dict[str, set[str]]:
    """Each event with the fields that some call gives it by name."""
    found: dict[str, set[str]] = {FALLBACK: set()}
    for path in [*(ROOT / "functions").rglob("*.py"), *(ROOT / "shared").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id not in ("log_event", "log_exception"):
                continue
            name = node.args[0]
            if isinstance(name, ast.Attribute) and name.attr == "event":
                for event in events_of_errors():
                    found.setdefault(event, set())
                continue
            assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: an event that cannot be read from the code"
            fields = found.setdefault(str(name.value), set())
            fields |= {keyword.arg for keyword in node.keywords if keyword.arg not in (None, "level")}
    return found


def events_of_errors() -> set[str]:
    """What the errors of the database are called in the log."""
    tree = ast.parse((ROOT / "shared" / "errors.py").read_text(encoding="utf-8"))
    assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    return {ast.literal_eval(node.value) for node in assigned if ast.unparse(node.targets[0]) == "event"}


def described_in_the_schema() -> dict[str, set[str]]:
    document = schema()
    names = [reference["$ref"].removeprefix("#/$defs/") for reference in document["oneOf"]]
    assert len(set(names)) == len(names)
    return {name: set(document["$defs"][name]["properties"]) - {"event", "severity"} for name in names}


def documented_for_readers() -> set[str]:
    rows = re.findall(r"^\| (`[^|]+`) \|", (ROOT / "docs" / "logging.md").read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}


def test_the_code_writes_the_events_of_the_schema_and_no_others() -> None:
    assert written_in_the_code().keys() == described_in_the_schema().keys()


def test_the_document_tells_of_the_events_of_the_schema_and_of_no_others() -> None:
    fields_of_every_line = set(schema()["$defs"]["line"]["properties"])
    assert documented_for_readers() - fields_of_every_line == described_in_the_schema().keys()


def test_no_call_gives_a_field_that_its_event_has_not() -> None:
    described = described_in_the_schema()
    strange = {event: fields - described[event] for event, fields in written_in_the_code().items()}
    assert {event: fields for event, fields in strange.items() if fields} == {}


def test_each_event_knows_its_own_name_and_allows_nothing_that_it_does_not_name() -> None:
    document = schema()
    for name in described_in_the_schema():
        event = document["$defs"][name]
        assert event["properties"]["event"] == {"const": name}
        assert event["unevaluatedProperties"] is False
        assert event["description"]


@pytest.mark.parametrize(
    "changes",
    [
        {"event": "caller_came"},
        {"event": None},
        {"severity": "info"},
        {"severity": "WARNING"},
        {"time": "2026-11-23 02:00:00"},
        {"time": "2026-11-23T02:00:00.000+02:00"},
        {"trace_id": "1"},
        {"who": "me"},
        {"logging.googleapis.com/spanId": "b7ad6b7169203331"},
        {"event": "engine_results_dropped"},
        {"event": "engine_results_dropped", "dropped": "1"},
        {"event": "mentors_enumerated", **RUN, "invocation_id": "17", "mentors": 1, "batches": 1},
        {
            "event": "slice_ended",
            "invocation_ids": [],
            "batches": 1,
            "more_to_do": False,
            "duration_ms": 1,
            "counts": {"ok": 1},
        },
    ],
    ids=str,
)
def test_a_line_that_is_not_as_its_event_says_is_found(changes: dict[str, object]) -> None:
    with pytest.raises(UndocumentedLineError, match=r"function\.log:2"):
        check_lines([json.dumps(LINE), json.dumps(LINE | changes)], "function.log")


@pytest.mark.parametrize(
    "line", ["", "Traceback (most recent call last):", "[]", "null", '"event"', "  SUPABASE_URL: missing"]
)
def test_a_line_that_is_no_object_is_found(line: str) -> None:
    with pytest.raises(UndocumentedLineError, match=r"function\.log:1"):
        check_lines([line], "function.log")


def test_what_a_process_says_that_refuses_to_start_is_no_log_line() -> None:
    assert check_lines([REFUSAL, "  SUPABASE_URL: missing", json.dumps(LINE)], "function.log") == 1
