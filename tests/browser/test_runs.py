"""What the operator sees of the runs that were."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from playwright.async_api import expect

from .desk import Desk
from .history import Past

# A month with one of each: the newest is partial, and two nights have no run.
MONTH = [
    Past(1, "partial", failed={"engine_http_422": 4, "engine_missing_result": 2}),
    *(Past(ago) for ago in range(2, 5)),
    Past(5, "partial", failed={"engine_timeout": 3}),
    *(Past(ago) for ago in (6, 7, 8, 10, 11)),
    Past(12, late=timedelta(minutes=47)),
    *(Past(ago) for ago in (13, 14, 15, 16, 18, 19)),
    Past(20, "failed", not_evaluated=60, error="expired"),
    Past(21),
    Past(22, "skipped", error="overlap"),
    *(Past(ago) for ago in range(23, 32)),
]


async def a_month(desk: Desk) -> None:
    await desk.night.add_mentors(60)
    await desk.history.add(*MONTH)
    await desk.history.settle()


async def test_a_glance_shows_how_the_last_night_went_and_a_gap_a_late_one_and_a_partial_one(
    desk: Desk, pytestconfig: pytest.Config
) -> None:
    """The README's picture is this one: `pytest tests/browser/test_runs.py --screenshot docs/dashboard.png`."""
    await a_month(desk)
    await desk.enter()
    content = desk.page.locator("#content")
    await expect(content.get_by_role("heading", name="6 evaluations of 120 without a result")).to_be_visible()
    await expect(content.get_by_text("The engine answers 422 about them and answers about others.")).to_be_visible()
    await expect(content.get_by_role("button", name="Retry the failed only")).to_be_visible()
    strip = content.get_by_role("list", name=re.compile("^The last 30 slots"))
    for what, number in {
        "no run": 2,
        "47 min late": 1,
        ": partial": 2,
        ": failed": 1,
        ": skipped": 1,
        ": succeeded": 24,
    }.items():
        await expect(strip.locator(f"[aria-label*='{what}']")).to_have_count(number)
    signs = {
        await strip.locator(f"[aria-label*='{what}'] path").first.get_attribute("d")
        for what in ("no run", ": partial", ": failed", ": succeeded")
    }
    assert len(signs) == 4, "told apart by colour alone"
    for name in ("Results", "Without a result", "Duration"):
        await expect(content.get_by_role("img", name=re.compile(f"^{name}")).first).to_be_visible()
    moment = content.locator("time").first
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:00 UTC", await moment.get_attribute("title") or "")
    if picture := pytestconfig.getoption("--screenshot"):
        await desk.page.mouse.move(0, 0)
        await desk.page.screenshot(path=picture)


async def test_one_run_says_whom_it_missed_and_why_and_under_which_settings(desk: Desk) -> None:
    await a_month(desk)
    await desk.enter()
    await desk.page.get_by_role("link", name="Look into it").click()
    content = desk.page.locator("#content")
    failures = content.get_by_role("region", name="Why they failed").or_(content.locator(".place-failures"))
    await expect(failures.first).to_contain_text("engine_missing_result")
    await expect(content.locator(".place-failures").get_by_role("link")).to_have_count(6)
    await expect(content.locator(".place-scenarios")).to_contain_text("milestone_reached")
    await expect(content.locator(".place-facts")).to_contain_text("Lateness")
    await content.get_by_text("The configuration in force").click()
    await expect(content.get_by_text("EVALUATION_SCHEDULE", exact=True)).to_be_visible()


async def test_ten_thousand_runs_are_paged_and_the_oldest_is_reached(desk: Desk) -> None:
    await desk.history.add_many(10_000)
    await desk.history.settle()
    await desk.enter()
    rows = desk.page.get_by_role("table", name="Runs", exact=True).get_by_role("row")
    await expect(rows).to_have_count(1 + 25)
    first = await rows.nth(1).inner_text()
    assert await desk.page.locator("*").count() < 3_000, "what nobody sees is on the page"
    await desk.page.get_by_role("link", name="Older").click()
    await expect(rows.nth(1)).not_to_have_text(first)
    await desk.page.get_by_role("link", name="Newest", exact=True).click()
    await expect(rows.nth(1)).to_contain_text(first.split("\n")[0])
    oldest = desk.history.slot(9_999)
    await desk.page.get_by_label("Up to").fill((oldest + timedelta(days=2)).strftime("%Y-%m-%d"))
    await expect(rows.filter(has_text=str(oldest.year)).first).to_be_visible()
    await expect(desk.page.get_by_role("link", name="Older")).to_have_count(0)
    assert await rows.count() <= 1 + 3
    await desk.page.get_by_label("Status").select_option("failed")
    await expect(desk.page.get_by_text("No run fits.")).to_be_visible()


async def test_before_the_first_run_the_page_says_so(desk: Desk) -> None:
    await desk.history.settle()
    await desk.enter()
    await expect(desk.page.get_by_text("There is no run yet.")).to_be_visible()


async def test_while_the_database_is_away_the_page_says_so_and_comes_back_by_itself(desk: Desk) -> None:
    await desk.history.settle()
    await desk.night.project.postgrest.stop()
    await desk.open()
    await desk.sign_in()
    alert = desk.page.get_by_role("alert").filter(has_text="Trying again")
    await expect(alert).to_contain_text("database_unavailable")
    await desk.night.project.postgrest.start()
    await expect(desk.page.get_by_text("There is no run yet.")).to_be_visible()
    await expect(alert).to_be_hidden()


async def test_a_run_that_is_not_there_is_said_to_be_none(desk: Desk) -> None:
    await desk.enter("#/runs/0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10")
    await expect(desk.page.get_by_role("heading", name="There is no such run")).to_be_visible()
