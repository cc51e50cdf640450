"""Rows of the table `scenario_evaluation_config`, as SQL returns them."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def row(scenario_type: str, organization: str | None = None, **members: Any) -> Row:
    """A row that leaves what is not given to the more general one."""
    unset = dict.fromkeys(("enabled", "segments", "schedule"))
    stamp = "2026-11-30T12:00:00+00:00"
    key = {"scenario_type": scenario_type, "organization": organization}
    return key | unset | {"updated_at": stamp, "updated_by": "postgres", "due_after": stamp} | members
