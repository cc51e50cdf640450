"""Answers of the schedule, the audit, a test alert and retries, and the state behind them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.async_api import Page, Route

NEXT_SLOT = "2026-11-23T02:00:00Z"
RUN = "0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10"
ENTRIES: list[dict[str, Any]] = [
    {"actor": "berit", "action": "pause", "after": {"reason": "a release", "until": NEXT_SLOT}},
    {"actor": "postgres", "action": "scenario_change", "scenario_type": "milestone", "after": {"enabled": False}},
    {"actor": RUN, "action": "retry", "invocation_id": RUN, "after": {"status": "pending"}},
]


class CannedOperation:
    """A schedule that can be paused, an engine that is paused, three entries of the audit, and no webhook at first."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.schedule: dict[str, Any] = {
            "evaluation_schedule": "0 2 * * *",
            "evaluation_timezone": "America/New_York",
            "next_slots": [NEXT_SLOT],
            "pause": None,
            "engine_pause": {"until": "2026-11-23T02:10:00Z", "outages": 3},
        }
        self.alert: dict[str, Any] = {
            "status": 409,
            "code": "no_webhook",
            "title": "Conflict",
            "detail": "set ALERT_WEBHOOK_URL",
        }

    async def serve(self, page: Page) -> None:
        await page.route("**/api/v1/schedule", self._schedule)
        await page.route("**/api/v1/scheduler-audit**", self._audit)
        await page.route("**/api/v1/test-alert", self._alert)

    async def _schedule(self, route: Route) -> None:
        if route.request.method == "PUT":
            change = json.loads(route.request.post_data or "")
            self.asked.append(dict(change))
            if change.get("until") == "2020-01-01T08:00:00.000Z":
                problem = {"status": 422, "code": "invalid_field", "field": "until", "title": "Unprocessable Content"}
                await _refuse(route, problem | {"detail": "until: expected a time to come"})
                return
            if change.pop("retry_engine", False):
                self.schedule["engine_pause"] = None
            elif change.pop("paused"):
                self.schedule |= {
                    "pause": {"paused_at": "2026-11-22T12:00:00Z", "paused_by": "berit"} | change,
                    "next_slots": [],
                }
            else:
                self.schedule |= {"pause": None, "next_slots": [NEXT_SLOT]}
        await route.fulfill(json=self.schedule)

    async def _audit(self, route: Route) -> None:
        query = {name: value for name, (value,) in parse_qs(urlsplit(route.request.url).query).items()}
        empty = dict.fromkeys(("invocation_id", "scenario_type", "before", "after"))
        entries = [
            empty | entry | {"id": 9 - number, "at": f"2026-11-22T1{9 - number}:00:00Z"}
            for number, entry in enumerate(ENTRIES)
            if all(entry.get(name) == query.get(name, entry.get(name)) for name in ("actor", "action", "invocation_id"))
        ]
        start = int(query.get("cursor", 0))
        following = str(start + 2) if len(entries) > start + 2 else None
        await route.fulfill(
            json={"data": entries[start : start + 2], "pagination": {"limit": 2, "next_cursor": following}}
        )

    async def _alert(self, route: Route) -> None:
        if self.alert["status"] == 200:
            await route.fulfill(json={"delivered": True})
        else:
            await _refuse(route, self.alert)


async def serve_retry(page: Page, run: str, mentors: int | None) -> None:
    """Adds to the answers about this run that a retry would read it, and how many mentors it left."""

    async def add(route: Route) -> None:
        if route.request.method != "GET":
            await route.continue_()
            return
        response = await route.fetch()
        retry = {"invocation_id": run, "mentors": mentors}
        await route.fulfill(response=response, json=await response.json() | {"retry": retry})

    await page.route(f"**/api/v1/scheduler-invocations/{run}", add)


async def _refuse(route: Route, problem: dict[str, Any]) -> None:
    await route.fulfill(status=problem["status"], json=problem, content_type="application/problem+json")
