"""The schedule is paused and resumed, times have a zone, results are exported, the roster and the audit are read."""

from __future__ import annotations

import csv
from pathlib import Path

from playwright.async_api import Route, expect

from tests.browser.canned_operation import NEXT_SLOT, RUN, CannedOperation
from tests.browser.history import History, Past
from tests.browser.operator_page import OperatorPage
from tests.integration.scheduled_runs.harness import Harness

BAND = "Project and schedule"


async def test_schedule_is_paused_changed_and_resumed(history: History, operator: OperatorPage) -> None:
    async def press(button: str, confirm: str, reason: str = "", until: str = "") -> None:
        await band.get_by_role("button", name=button, exact=True).click()
        if reason:
            await dialog.get_by_label("Reason").fill(reason)
            await dialog.get_by_label("Until").fill(until)
        await dialog.get_by_role("button", name=confirm, exact=True).click()

    canned, page = CannedOperation(), operator.page
    band, dialog = page.get_by_role("region", name=BAND), page.get_by_role("dialog")
    await history.add(Past(0))
    await canned.serve(page)
    await operator.open()
    await expect(band).to_contain_text("0 2 * * * America/New_York")
    await press("Pause", "Pause", "maintenance", "2020-01-01T09:00")
    await expect(dialog.get_by_label("Until")).to_have_accessible_description("until: expected a time to come")
    await dialog.get_by_label("Until").fill("2027-07-01T09:00")
    await dialog.get_by_role("button", name="Pause").click()
    await expect(band).to_contain_text("by berit until 1 Jul 2027, 09:00")
    await expect(band).to_contain_text("maintenance")
    await expect(page.locator(".next")).to_have_text("The schedule is paused: no slot opens until it is resumed.")
    await band.get_by_role("button", name="Change the pause").click()
    await expect(dialog.get_by_label("Until")).to_have_value("2027-07-01T09:00")
    await dialog.get_by_label("Until").fill("")
    await dialog.get_by_role("button", name="Save").click()
    await expect(band).to_contain_text("until it is resumed")
    await press("Resume", "Resume")
    await expect(band.get_by_role("button", name="Pause")).to_be_visible()
    await press("Try the engine now", "Try now")
    await expect(band.get_by_text("The engine is not called")).to_have_count(0)
    await expect(page.locator(".next time")).to_have_attribute("datetime", NEXT_SLOT)
    pause = {"paused": True, "reason": "maintenance"}
    assert canned.asked == [
        pause | {"until": "2020-01-01T08:00:00.000Z"},
        pause | {"until": "2027-07-01T07:00:00.000Z"},
        pause | {"until": None},
        {"paused": False},
        {"retry_engine": True},
    ]
    await press("Send a test alert", "Send")
    await expect(dialog.get_by_role("alert")).to_contain_text("set ALERT_WEBHOOK_URL")
    canned.alert = {"status": 200}
    await dialog.get_by_role("button", name="Send").click()
    await expect(band.get_by_role("status")).to_contain_text("The test alert was delivered.")


async def test_times_are_shown_in_the_chosen_zone(operator: OperatorPage) -> None:
    await CannedOperation().serve(operator.page)
    await operator.open()
    slot = operator.page.locator(".band time").first
    zone = operator.page.get_by_label("Time zone of all times")
    for choice, shown in (("Europe/Oslo", "03:00"), ("UTC", "02:00"), ("America/New_York", "22 Nov 2026, 21:00")):
        await zone.select_option(label=choice)
        await expect(slot).to_contain_text(shown)
    await operator.page.reload()
    await expect(slot).to_contain_text("21:00")
    await expect(zone).to_have_value("schedule")


async def test_results_are_filtered_exported_and_noted(
    harness: Harness, history: History, operator: OperatorPage, tmp_path: Path
) -> None:
    await harness.add_mentors(20)
    (run,) = await history.add(Past(0, "partial", {"engine_http_422": 3, "engine_timeout": 2}))
    page = operator.page
    await operator.open(f"#/runs/{run}")
    dialog = await operator.press("Write a note", "Save", {"Note": "the engine's release"})
    await expect(page.locator(".facts")).to_contain_text("the engine's release")
    await operator.press("Change the note", "Save", {"Note": " "})
    await expect(operator.button("Write a note")).to_be_visible()
    await expect(dialog).to_have_count(0)
    assert (await harness.describe(run))["note"] is None

    await page.get_by_role("link", name="All of this cause").last.click()
    rows = page.get_by_role("region", name="Results").locator("tbody tr")
    await expect(rows).to_have_count(2)
    assert page.url.endswith(f"#/runs/{run}/results?outcome=failed&code=engine_timeout")
    await page.get_by_label("Code").fill("")
    await page.get_by_label("Scenario type").fill("milestone")
    await page.keyboard.press("Enter")
    await expect(rows).to_have_count(5)
    await page.evaluate("delete window.showSaveFilePicker")
    async with page.expect_download() as download:
        await operator.button("Export all that match (CSV)").click()
    await (await download.value).save_as(tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 5
    writable = "new WritableStream({ write(part) { window.saved += new TextDecoder().decode(part); } })"
    picker = f"async (options) => (window.saved = options.suggestedName, {{ createWritable: () => {writable} }})"
    await page.evaluate(f"() => {{ window.showSaveFilePicker = {picker}; }}")
    await operator.button("Export all that match (CSV)").click()
    await expect(operator.text("Saved.")).to_be_visible()
    assert str(await page.evaluate("window.saved")).startswith(f"evaluations-{run}.csvuser_id,")
    await page.get_by_label("Scenario type").fill("inactivity")
    await page.keyboard.press("Enter")
    await expect(operator.text("No stored result matches.")).to_be_visible()


async def test_roster_says_who_is_left_out_and_why(harness: Harness, operator: OperatorPage) -> None:
    async def leave_out(route: Route) -> None:
        answer = await (await route.fetch()).json()
        for mentor, reason in zip(answer["data"], ("invalid_segments", None), strict=False):
            mentor |= {"scenario_types": [], "skip_reason": reason}
        await route.fulfill(json=answer | {"user_id_missing": 1})

    page = operator.page
    await operator.open()
    steps = page.get_by_role("list", name="What to do next")
    await expect(steps).to_contain_text("The view active_peer_mentors has no mentor")
    await expect(steps).to_contain_text("3 scenario types on")
    mentors = await harness.add_mentors(130)
    await page.route("**/active-peer-mentors?*", leave_out)
    await steps.get_by_role("link", name="See the roster").click()
    rows = page.get_by_role("region", name="Mentors", exact=True).locator("tbody tr")
    await expect(rows).to_have_count(100)
    await page.get_by_role("button", name="Show more").click()
    await expect(rows).to_have_count(130)
    for shown in ("128 mentors for 256 evaluations.", "1 row without a user id."):
        await expect(operator.text(shown)).to_be_visible()
    await page.get_by_role("combobox", name="Show").select_option("who is left out")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("The segments in the view active_peer_mentors cannot be used")
    await expect(rows.last).to_contain_text("No scenario type that is on applies.")
    await rows.first.get_by_role("link").click()
    await expect(page.get_by_label("User id")).to_have_value(sorted(mentors)[0])


async def test_audit_names_who_did_what(operator: OperatorPage) -> None:
    page = operator.page
    await CannedOperation().serve(page)
    await operator.open("#/audit")
    rows = page.get_by_role("region", name="Entries").locator("tbody tr")
    await expect(rows).to_have_count(3)
    await expect(rows.nth(0)).to_contain_text("beritpaused the schedule")
    await expect(rows.nth(0)).to_contain_text("until none → 23 Nov 2026, 03:00:00")
    await expect(rows.nth(1).locator("li")).to_have_text("enabled none → false")
    await page.get_by_label("What").select_option("changed a scenario type")
    await expect(rows).to_have_count(1)
    await page.get_by_role("link", name="Show all").click()
    await page.get_by_label("Who", exact=True).fill("berit")
    await page.keyboard.press("Enter")
    await expect(rows).to_have_count(1)
    await operator.open(f"#/audit?invocation_id={RUN}", token="")
    await expect(rows.get_by_role("link", name="the run")).to_have_attribute("href", f"#/runs/{RUN}")
