"""What an operator presses: run now, dry run, retry, cancel; what the page shows meanwhile and at the end."""

from __future__ import annotations

import asyncio

from playwright.async_api import Route, expect

from tests.browser.history import History, Past
from tests.browser.operator_page import OperatorPage
from tests.integration.manual.caller import let_no_slot_be_due
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules


async def test_run_is_watched_from_its_beginning_to_its_end(harness: Harness, operator: OperatorPage) -> None:
    await harness.add_mentors(300)
    await let_no_slot_be_due(harness)
    gate = asyncio.Event()
    harness.engine.rules.append(rules.only(lambda call: call.number > 1, rules.hold_until(gate)))
    await operator.open()
    dialog = await operator.press("Run now", "Run now", {"Note": "after the outage"})
    await expect(dialog.get_by_text("evaluates all 300 active mentors (600 evaluations).")).to_be_visible()
    await dialog.get_by_role("button", name="Run for 300 mentors").click()
    progress = operator.page.get_by_role("progressbar")
    await expect(progress).to_be_visible()
    await expect(dialog).to_have_count(0)
    await expect(operator.status()).to_have_text("running")
    await expect(operator.page.locator(".progress-text")).to_contain_text("of 600 evaluations")
    gate.set()
    await expect(operator.status()).to_have_text("success")
    await expect(progress).to_be_hidden()
    await expect(operator.page.locator("#announcer")).to_contain_text("The run has ended: success.")
    (run,) = await harness.invocations()
    await harness.check_truth(run)
    assert (run["note"], run["dry_run"]) == ("after the outage", False)
    for outcome in ("triggered", "not_triggered"):
        figure = operator.page.locator(f".tile.outcome-{outcome} strong")
        await expect(figure).to_have_text(str(run["counts"][outcome]))
    await harness.project.cron_driver().run_all()  # which reads what the function answered
    await operator.page.reload()
    row = operator.page.get_by_role("row")
    await expect(row.filter(has_text="worked, ")).not_to_have_count(0)
    await operator.text("The configuration in force").click()
    await expect(row.filter(has_text="EVALUATION_SCHEDULE")).to_contain_text(harness.schedule)


async def test_dry_run_of_chosen_mentors_notifies_none(harness: Harness, operator: OperatorPage) -> None:
    mentors = await harness.add_mentors(5)
    await let_no_slot_be_due(harness)
    await operator.open()
    dialog = await operator.press("Dry run", "Start dry run", {"Only these mentors": "nonsense"})
    await expect(dialog.get_by_role("alert").first).to_contain_text("“nonsense” is no user id.")
    assert await harness.invocations() == []
    await dialog.get_by_label("Only these mentors").fill("")
    await dialog.get_by_role("button", name="Start dry run").click()
    await expect(dialog.get_by_text("evaluates all 5 active mentors (10 evaluations).")).to_be_visible()
    await dialog.get_by_role("button", name="Back").click()
    await dialog.get_by_label("milestone").uncheck()
    await dialog.get_by_label("certification_expiry").uncheck()
    await expect(dialog.get_by_text("5 mentors, 5 evaluations.")).to_be_visible()
    await dialog.get_by_label("Only these mentors").fill("\n".join(mentors[:2]))
    await expect(dialog.get_by_text("2 chosen mentors")).to_be_visible()
    await dialog.get_by_role("button", name="Start dry run").click()
    await expect(operator.text("dry run: no notifications")).to_be_visible()
    await expect(operator.status()).to_have_text("success")
    (run,) = await harness.invocations()
    assert (run["dry_run"], run["counts"]["mentors"], list(run["scenarios"])) == (True, 2, ["inactivity"])
    assert harness.engine.acts == {}


async def test_only_failed_evaluations_are_retried(harness: Harness, history: History, operator: OperatorPage) -> None:
    await harness.add_mentors(20)
    await history.add(Past(1), Past(0, "partial", {"engine_http_422": 3}))
    await history.settle()
    await operator.open()
    await expect(operator.heading("3 evaluations of 40 without a result")).to_be_visible()
    await operator.press("Retry 3 mentors", "Retry")
    await expect(operator.heading("Retry of")).to_be_visible()
    await expect(operator.status()).to_have_text("success")
    assert len(harness.engine.pairs_seen) == 3
    await operator.page.get_by_role("link", name="the run before").click()
    await expect(operator.text("Retried:")).to_contain_text("success")
    await operator.page.get_by_role("link", name="All runs").click()
    await expect(operator.page.locator(".verdict")).to_contain_text("Retried")


async def test_run_is_cancelled_only_after_confirmation(harness: Harness, operator: OperatorPage) -> None:
    await harness.add_mentors(300)
    await let_no_slot_be_due(harness)
    gate = asyncio.Event()
    harness.engine.rules.append(rules.hold_until(gate))
    await operator.open()
    dialog = await operator.press("Run now", "Run now")
    await dialog.get_by_role("button", name="Run for 300 mentors").click()
    await expect(operator.status()).to_have_text("running")
    await operator.press("Cancel this run", "Let it run")
    assert [run["status"] for run in await harness.invocations()] == ["running"]
    await operator.press("Cancel this run", "Cancel the run")
    await expect(operator.status()).to_have_text("cancelled")
    await expect(operator.button("Retry 300 mentors")).to_be_visible()
    gate.set()
    assert [run["status"] for run in await harness.invocations()] == ["cancelled"]


async def test_lost_answer_opens_no_second_run(harness: Harness, operator: OperatorPage) -> None:
    await harness.add_mentors(5)
    await let_no_slot_be_due(harness)
    lost = 0

    async def lose_the_first(route: Route) -> None:
        nonlocal lost
        if route.request.method != "POST" or lost:
            await route.continue_()
            return
        lost += 1
        await route.fetch()
        await route.abort()

    await operator.open()
    await expect(operator.heading("No scheduled run yet")).to_be_visible()
    await operator.page.route("**/api/v1/scheduler-invocations", lose_the_first)
    dialog = await operator.press("Run now", "Run now")
    confirm = dialog.get_by_role("button", name="Run for 5 mentors")
    await confirm.click()
    await expect(dialog.get_by_role("alert")).to_contain_text("The function cannot be reached")
    await confirm.click()
    await expect(operator.status()).to_have_text("success")
    assert (len(await harness.invocations()), lost) == (1, 1)


async def test_keyboard_alone_starts_a_run(harness: Harness, operator: OperatorPage) -> None:
    await harness.add_mentors(5)
    await let_no_slot_be_due(harness)
    await operator.open(token="")
    keyboard = operator.page.keyboard
    await expect(operator.page.get_by_label("Admin token")).to_be_focused()
    await keyboard.type(harness.project.admin_token)
    await keyboard.press("Enter")
    await expect(operator.heading("No scheduled run yet")).to_be_visible()
    await operator.button("Run now").focus()
    await keyboard.press("Enter")
    await expect(operator.page.get_by_label("Only these mentors")).to_be_focused()
    await keyboard.press("Escape")
    await expect(operator.page.get_by_role("dialog")).to_have_count(0)
    await expect(operator.button("Run now")).to_be_focused()
    await keyboard.press("Enter")
    dialog = operator.page.get_by_role("dialog")
    await expect(dialog.get_by_role("checkbox")).to_have_count(3)
    for presses, name in ((6, "Run now"), (2, "Run for 5 mentors")):
        for _ in range(presses):
            await keyboard.press("Tab")
        await expect(dialog.get_by_role("button", name=name)).to_be_focused()
        await keyboard.press("Enter")
        await expect(dialog.get_by_role("button", name=name)).to_have_count(0)
    await expect(operator.status()).to_have_text("success")
