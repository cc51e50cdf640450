"""Was she evaluated last week, and with what result?"""

from __future__ import annotations

from playwright.async_api import expect

from .desk import Desk
from .history import Past


async def test_a_mentors_history_says_when_she_was_evaluated_and_what_came_of_it(desk: Desk) -> None:
    mentors = sorted(await desk.night.add_mentors(20))
    await desk.history.add(*(Past(ago) for ago in (1, 2, 4)), Past(3, "partial", failed={"engine_timeout": 1}))
    await desk.history.settle()
    await desk.enter()
    await desk.page.get_by_role("link", name="One mentor").click()
    await desk.page.get_by_label("User id").fill("somebody")
    await desk.page.get_by_role("button", name="Show history").click()
    await expect(desk.page.get_by_role("alert")).to_contain_text("That is no user id")
    await desk.page.get_by_label("User id").fill(mentors[0].upper())
    await desk.page.get_by_role("button", name="Show history").click()
    await expect(
        desk.page.locator("#content").get_by_text("In the last 7 days she was in 4 runs: 7 not triggered, 1 failed.")
    ).to_be_visible()
    rows = desk.page.get_by_role("table", name="Runs that she was in").get_by_role("row")
    await expect(rows).to_have_count(1 + 4)
    await expect(rows.filter(has_text="partial")).to_contain_text("engine_timeout")
    await rows.nth(1).get_by_role("link").click()
    await expect(desk.page.get_by_role("heading", name="Scheduled run of")).to_be_visible()


async def test_who_was_in_no_run_is_said_to_be_in_none(desk: Desk) -> None:
    await desk.night.add_mentors(2)
    await desk.history.add(Past(1))
    await desk.history.settle()
    await desk.enter("#/mentors/0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10")
    await expect(desk.page.get_by_role("heading", name="She was in no run")).to_be_visible()
