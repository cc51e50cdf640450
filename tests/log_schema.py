"""Holds log lines against docs/log-events.schema.json: each that the function writes in a test is one of its events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft202012Validator

SCHEMA_PATH = Path(__file__).parents[1] / "docs" / "log-events.schema.json"
# What a process that refuses its configuration prints on standard error, beside its log line.
REFUSAL = "The configuration is not usable:"
# The shortest line of the schema.
LINE = {"time": "2026-11-23T02:00:00.000+00:00", "severity": "INFO", "component": "scenario-scheduler"}
LINE |= {"event": "client_disconnected", "message": "m"}


class UndocumentedLineError(AssertionError):
    """A line is none that the schema describes."""


def schema() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    return document


@cache
def _validator(event: str, *, formats: bool) -> Draft202012Validator | None:
    document = schema()
    if {"$ref": f"#/$defs/{event}"} not in document["oneOf"]:
        return None
    return Draft202012Validator({"$ref": f"#/$defs/{event}", "$defs": document["$defs"]}, validate_formats=formats)


def check_lines(lines: Iterable[str], log: str, *, formats: bool = True) -> int:
    """Returns how many lines there are, or raises UndocumentedLineError for the first that is not as the schema says.

    Args:
        lines: what was logged.
        log: how to name the log, with its path if it has one.
        formats: whether ids have to be UUIDs and times times; tests of one unit make up shorter ones.
    """
    number = 0
    for number, line in enumerate(_without_refusals(lines), 1):
        value = None
        try:
            value = json.loads(line)
            validator = _validator(value["event"], formats=formats)
        except (ValueError, KeyError, TypeError):
            validator = None
        if validator is None:
            raise UndocumentedLineError(f"{log}:{number}: expected an event of the schema, found {line[:200]!r}")
        if complaints := [error.message for error in validator.iter_errors(value)]:
            raise UndocumentedLineError(f"{log}:{number}: {'; '.join(complaints)}: {line[:400]}")
    return number


def _without_refusals(lines: Iterable[str]) -> Iterable[str]:
    refusing = False
    for line in lines:
        refusing = line == REFUSAL or (refusing and line.startswith("  "))
        if not refusing:
            yield line
