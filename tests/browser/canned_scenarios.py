"""Answers of `scenario-configs`, and a table behind them: every kind of row, and one refusal."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from playwright.async_api import Page, Route

NEXT_SLOT = "2026-11-23T02:00:00Z"
SEGMENTS = {"inactivity": ["established"], "milestone": []}
IGNORED = "expected a type of SCENARIO_TYPES; the row is ignored"
UNUSABLE = "schedule: expected a cron expression of five fields, found '* *'; it is taken as not set"


class CannedScenarios:
    """Two types, of which one has an organization's row with an unusable schedule; and a row of an unknown type."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str | None, dict[str, Any]]] = []
        self._rows: dict[tuple[str, str | None], dict[str, Any]] = {
            ("inactivity", None): {},
            ("inactivity", "blue-cross"): {"segments": ["a", "b"], "schedule": "* *"},
            ("milestone", None): {"enabled": True, "schedule": "0 6 * * 1"},
            ("birthday", "blue-cross"): {"enabled": True},
        }

    async def serve(self, page: Page) -> None:
        await page.route("**/api/v1/scenario-configs**", self._answer)

    async def _answer(self, route: Route) -> None:
        if route.request.method == "GET":
            order = sorted(self._rows, key=lambda key: (key[0] not in SEGMENTS, key[0], key[1] or ""))
            data = [self._entry(*key) for key in order]
            settings = {"evaluation_schedule": "0 2 * * *", "evaluation_timezone": "UTC"}
            await route.fulfill(json=settings | {"data": data})
            return
        address = urlsplit(route.request.url)
        scenario_type = unquote(address.path.rpartition("/")[2])
        (organization,) = parse_qs(address.query).get("organization", [None])
        change = json.loads(route.request.post_data or "")
        if change.get("schedule") == "weekly":
            detail = "schedule: expected a cron expression of five fields, found 'weekly'"
            problem = {"status": 422, "title": "Unprocessable Content", "code": "invalid_field", "field": "schedule"}
            await route.fulfill(status=422, json=problem | {"detail": detail}, content_type="application/problem+json")
            return
        self.changes.append((scenario_type, organization, change))
        row = self._rows.setdefault((scenario_type, organization), {})
        row.update(change)
        await route.fulfill(json=self._entry(scenario_type, organization))

    def _entry(self, scenario_type: str, organization: str | None) -> dict[str, Any]:
        row = dict.fromkeys(("enabled", "segments", "schedule")) | self._rows[scenario_type, organization]
        known, warnings = scenario_type in SEGMENTS, list[str]()
        general = self._rows.get((scenario_type, None), {})
        enabled = known and row["enabled"] is not False and general.get("enabled") is not False
        segments = next((one for one in (row["segments"], general.get("segments")) if one is not None), None)
        if row["schedule"] == "* *":
            row["schedule"], warnings = None, [UNUSABLE]
        return row | {
            "scenario_type": scenario_type,
            "organization": organization,
            "effective": {
                "enabled": enabled,
                "segments": SEGMENTS.get(scenario_type, []) if segments is None else segments,
                "schedule": row["schedule"] or general.get("schedule"),
                "next_slot": NEXT_SLOT if enabled else None,
            },
            "warnings": warnings if known else [IGNORED],
            "updated_at": "2026-11-20T10:15:00Z" if self._rows[scenario_type, organization] else None,
            "updated_by": "Berit" if self._rows[scenario_type, organization] else None,
        }
