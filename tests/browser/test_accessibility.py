"""Dark and light, wide and on a phone: axe finds nothing serious, nothing is cut off; the README shows this page."""

from __future__ import annotations

import os
import re
from datetime import timedelta

import pytest
from playwright.async_api import expect

from tests.browser.canned_scenarios import CannedScenarios
from tests.browser.conftest import Tab
from tests.browser.history import PAUSE_ENGINE, PAUSE_SCHEDULE, History, Past
from tests.browser.operator_page import OperatorPage
from tests.emulator.staging import ROOT
from tests.integration.scheduled_runs.harness import Harness

SCREENSHOT = ROOT / "docs" / "dashboard.png"
PHONE = (390, 844)
LAPTOP = (1280, 860)


async def a_month(harness: Harness, history: History) -> list[str]:
    """A month with every kind of run; the newest run is the last."""
    await harness.add_mentors(446)
    odd = {
        24: Past(24, "partial", {"engine_http_503": 4}),
        17: Past(17, "failed", error_code="no_active_mentors"),
        12: Past(12, "partial", {"engine_timeout": 12}, 40, late=timedelta(hours=3), took=timedelta(seconds=41)),
        9: Past(9, "skipped", error_code="overlap"),
        6: Past(6, late=timedelta(minutes=47)),
        0: Past(0, "partial", {"engine_http_422": 14, "engine_timeout": 2}),
    }
    usual = {ago: Past(ago, took=timedelta(seconds=7 + ago * 7 % 5)) for ago in range(36) if ago not in (3, 20)}
    runs = await history.add(*[(usual | odd)[ago] for ago in sorted(usual, reverse=True)])
    await history.settle()
    return runs


@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_every_place_is_accessible_and_fits_the_screen(
    harness: Harness, history: History, tab: Tab, scheme: str, size: tuple[int, int]
) -> None:
    runs = await a_month(harness, history)
    operator = await tab(*size, scheme)
    rename = b"update public.scheduler_invocations set triggered_by = id, note = repeat('x', 80) where id = %s"
    await harness.execute(rename, [runs[-1]])
    for pause in (PAUSE_ENGINE, PAUSE_SCHEDULE):
        await harness.execute(pause)
    await operator.open(token="")
    await operator.sign_in("not-the-token")
    await expect(operator.text("This token is not known.")).to_be_visible()
    await _check(operator, "sign-in")
    await operator.sign_in(harness.project.admin_token)
    await expect(operator.page.locator(".chart svg[role=img]")).to_have_count(3)
    await operator.text("As a table: Without a result").click()
    await _check(operator, "overview")
    dialog = await operator.press("Run now", "Run now")
    await expect(dialog.get_by_role("button", name="Run for 446 mentors")).to_be_visible()
    await _check(operator, "question")
    await dialog.get_by_role("button", name="Back").click()
    await _check(operator, "dialog")
    await operator.page.keyboard.press("Escape")
    await operator.open(f"#/runs/{runs[-1]}", token="")
    await expect(operator.page.locator(".cause-list > li")).to_have_count(2)
    await operator.text("The configuration in force").click()
    await _check(operator, "run")
    await operator.open(f"#/mentors/{sorted(harness.mentors)[0]}", token="")
    await expect(operator.page.locator(".history tbody tr")).to_have_count(25)
    await _check(operator, "mentor")
    for place, rows in ((f"#/runs/{runs[-1]}/results", 16), ("#/roster", 100), ("#/audit", 2)):
        await operator.open(place, token="")
        await expect(operator.page.locator("tbody tr")).to_have_count(rows)
        await _check(operator, place)
    await CannedScenarios().serve(operator.page)
    await operator.open("#/scenarios", token="")
    await operator.button("Switch off milestone").click()
    await expect(operator.text("milestone is off.")).to_be_visible()
    await _check(operator, "scenarios")
    dialog = await operator.press("Change inactivity", "Save", {"Schedule": "weekly"})
    await expect(dialog.get_by_text("expected a cron expression")).to_be_visible()
    await _check(operator, "change")


async def _check(operator: OperatorPage, place: str) -> None:
    assert await operator.axe_violations() == [], place
    places = "document.documentElement, ...document.querySelectorAll('.scroll, dd')"
    wider = f"[{places}].filter(e => e.scrollWidth > e.clientWidth)"
    assert await operator.page.evaluate(f"{wider}.map(e => e.ariaLabel ?? e.tagName)") == [], place


async def test_picture_in_the_readme_is_made_of_this_page(harness: Harness, history: History, tab: Tab) -> None:
    await a_month(harness, history)
    operator = await tab(*LAPTOP)
    await operator.open()
    await expect(operator.page.locator(".chart svg[role=img]")).to_have_count(3)
    await expect(operator.heading(re.compile("without a result"))).to_be_visible()
    await expect(operator.button("Retry 16 mentors")).to_be_visible()
    picture = await operator.page.screenshot()
    if os.environ.get("UPDATE_SCREENSHOT"):
        SCREENSHOT.write_bytes(picture)
    for made in (picture, SCREENSHOT.read_bytes()):
        assert made.startswith(b"\x89PNG")
        assert int.from_bytes(made[16:20], "big") == LAPTOP[0]
        assert 10_000 < len(made) < 150_000
