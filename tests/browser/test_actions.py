"""What the operator presses: each thing is asked about first, and does what it says."""

from __future__ import annotations

import re

from playwright.async_api import expect

from tests.scripted_engine import rules

from .desk import Desk


async def test_run_now_is_confirmed_and_watched_to_its_end(desk: Desk) -> None:
    mentors = await desk.night.add_mentors(60)
    desk.night.engine.rules.append(rules.refuse_calls_with(mentors[:1]))
    await desk.history.settle()
    await desk.enter()

    await desk.page.get_by_role("button", name="Run now").click()
    await desk.page.get_by_role("dialog").get_by_role("button", name="Not now").click()
    assert await desk.night.invocations() == []

    await desk.confirm("Run now", "Run now")
    await expect(desk.page.get_by_role("heading", name="Manual run of")).to_be_visible()
    await expect(desk.page.locator(".place-heading").get_by_text("partial")).to_be_visible()
    await expect(desk.page.get_by_role("heading", name="120 evaluations")).to_be_visible()
    await expect(desk.page.locator(".place-failures")).to_contain_text("engine_http_422")
    await expect(desk.page.get_by_role("status")).to_contain_text("The run has ended: partial")
    (invocation,) = await desk.night.invocations()
    assert (invocation["triggered_by"], invocation["status"]) == ("manual", "partial")

    desk.night.engine.rules.clear()
    await desk.confirm("Retry the failed only", "Retry")
    await expect(desk.page.get_by_role("heading", name="Retry of")).to_be_visible()
    await expect(desk.page.locator(".place-heading").get_by_text("succeeded")).to_be_visible()
    await expect(desk.page.get_by_role("heading", name="2 evaluations")).to_be_visible()
    await desk.page.get_by_role("link", name="the run before").click()
    await expect(desk.page.locator(".place-heading")).to_contain_text("Retried")
    await expect(desk.page.get_by_role("button", name="Retry the failed only")).to_be_visible()


async def test_a_dry_run_of_one_mentor_notifies_nobody(desk: Desk) -> None:
    mentors = await desk.night.add_mentors(10)
    await desk.history.settle()
    await desk.enter()
    await desk.page.get_by_role("button", name="Dry run").click()
    dialog = desk.page.get_by_role("dialog")
    await dialog.get_by_label("Only these mentors").fill("not-an-id")
    await dialog.get_by_role("button", name="Start dry run").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("is no user id")
    await dialog.get_by_label("Only these mentors").fill(mentors[3])
    await dialog.get_by_role("button", name="Start dry run").click()
    await expect(desk.page.get_by_text("dry run: nobody is notified")).to_be_visible()
    await expect(desk.page.locator(".place-heading").get_by_text("succeeded")).to_be_visible()
    await expect(desk.page.get_by_role("heading", name="2 evaluations")).to_be_visible()
    assert desk.night.engine.acts == {}


async def test_a_run_is_shown_while_it_works_and_can_be_cancelled(desk: Desk) -> None:
    mentors = await desk.night.add_mentors(60)
    desk.night.engine.rules.append(rules.hang(mentors[20:]))
    await desk.history.settle()
    await desk.enter()
    await desk.confirm("Run now", "Run now")
    await expect(desk.page.get_by_text(re.compile(r"\d+ of 120 evaluations"))).to_be_visible()
    await expect(desk.page.get_by_role("progressbar", name="Evaluated")).to_be_visible()
    await desk.confirm("Cancel this run", "Cancel the run")
    await expect(desk.page.locator(".place-heading").get_by_text("cancelled")).to_be_visible()
    (invocation,) = await desk.night.invocations()
    assert invocation["status"] == "cancelled"


async def test_what_goes_wrong_is_shown_where_it_was_pressed_and_can_be_pressed_again(desk: Desk) -> None:
    await desk.night.add_mentors(5)
    await desk.history.settle()
    await desk.enter()
    await desk.page.get_by_role("button", name="Run now").click()
    dialog = desk.page.get_by_role("dialog")
    await desk.night.project.postgrest.stop()
    await dialog.get_by_role("button", name="Run now").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("database_unavailable")
    await desk.night.project.postgrest.start()
    await dialog.get_by_role("button", name="Run now").click()
    await expect(desk.page.get_by_role("heading", name="Manual run of")).to_be_visible()
    assert len(await desk.night.invocations()) == 1
