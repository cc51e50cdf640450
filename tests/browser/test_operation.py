"""The schedule is paused and resumed, times have a zone, results are exported, the roster and the audit are read."""

from __future__ import annotations

import csv
import re
from datetime import UTC, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from playwright.async_api import Route, expect

from tests.browser.history import PAUSE_ENGINE, History, Past
from tests.browser.operator_page import OperatorPage
from tests.integration.scheduled_runs.harness import Harness
from tests.webhook_receiver import SIGNING_SECRET, WebhookReceiver

NEW_YORK = ZoneInfo("America/New_York")


async def test_schedule_is_paused_resumed_and_who_did_it_shown(harness: Harness, operator: OperatorPage) -> None:
    async def press(button: str, confirm: str, **fields: str) -> None:
        await band.get_by_role("button", name=button, exact=True).click()
        for label, text in fields.items():
            await dialog.get_by_label(label).fill(text)
        await dialog.get_by_role("button", name=confirm, exact=True).click()

    page = operator.page
    band, dialog = page.get_by_role("region", name="Project and schedule"), page.get_by_role("dialog")
    slot, zone = band.locator("dl time"), band.get_by_label("Time zone of all times")
    due = harness.slot.astimezone(NEW_YORK)
    tomorrow, until = due + timedelta(days=1), due + timedelta(days=3)
    await harness.add_mentors(20)
    await harness.execute(PAUSE_ENGINE)
    async with WebhookReceiver(answers=[500]) as receiver:
        webhook = {"ALERT_WEBHOOK_URL": receiver.url, "ALERT_WEBHOOK_SECRET": SIGNING_SECRET}
        schedule = {"EVALUATION_SCHEDULE": f"{due:%-M %-H} * * *", "EVALUATION_TIMEZONE": NEW_YORK.key}
        function = operator.function = await harness.start_function(schedule | webhook)
        await harness.project.write_vault_secrets(function.url)
        await operator.open()
        await expect(band).to_contain_text(f"{due:%-M %-H} * * * America/New_York")
        for choice in ("Europe/Oslo", "UTC", NEW_YORK.key):
            await zone.select_option(label=choice)
            await expect(slot).to_have_text(re.compile(f", {tomorrow.astimezone(ZoneInfo(choice)):%H:%M}$"))
        await page.reload()
        await expect(zone).to_have_value("schedule")

        await press("Pause", "Pause", Reason="maintenance", Until="2020-01-01T09:00")
        refusal = "until: expected a time within the next ten years, found 2020-01-01T14:00:00Z"
        await expect(dialog.get_by_label("Until")).to_have_accessible_description(refusal)
        await dialog.get_by_label("Until").fill(f"{until:%Y-%m-%dT%H:%M}")
        await dialog.get_by_role("button", name="Pause").click()
        await expect(band).to_contain_text(re.compile(f"by admin until .*, {due:%H:%M}"))
        await expect(band).to_contain_text("maintenance")
        await expect(slot).to_have_attribute("datetime", f"{until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
        await harness.fire(function)
        await band.get_by_role("button", name="Change the pause").click()
        await expect(dialog.get_by_label("Until")).to_have_value(f"{until:%Y-%m-%dT%H:%M}")
        await dialog.get_by_label("Until").fill("")
        await dialog.get_by_role("button", name="Save").click()
        await expect(band).to_contain_text("until it is resumed")
        await expect(page.locator(".next")).to_have_text("The schedule is paused: no slot opens until it is resumed.")
        await expect(page.locator(".verdict")).to_contain_text("The schedule was paused when its time came.")
        await press("Resume", "Resume")
        await expect(band.get_by_role("button", name="Pause")).to_be_visible()
        await press("Try the engine now", "Try now")
        await expect(band.get_by_text("The engine is not called")).to_have_count(0)
        await expect(page.locator(".next time")).to_have_attribute(
            "datetime", f"{tomorrow.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        )
        await press("Send a test alert", "Send")
        await expect(dialog.get_by_role("alert")).to_contain_text("did not take the message: webhook_http_500")
        await dialog.get_by_role("button", name="Send").click()
        await expect(band.get_by_role("status")).to_contain_text("The test alert was delivered.")
        assert [delivery.payload for delivery in receiver.deliveries[1:]] == [{"reason": "test"}]

        await page.get_by_role("link", name="Look into it").click()
        await expect(operator.text("The test alert was delivered.")).to_have_count(0)
        await operator.press("Retry what is left", "Retry")
        await expect(operator.status()).to_have_text("success")
        assert len(harness.engine.pairs_seen) == 40
    rows = page.get_by_role("region", name="Entries").locator("tbody tr")
    await page.locator("main").get_by_role("link", name="Who did it").click()
    await expect(rows.get_by_role("link", name="the run")).to_have_count(1)
    await page.get_by_role("link", name="Show all").click()
    done = ["retried a run", "tried the engine", "resumed the schedule", "paused the schedule", "paused the schedule"]
    await expect(rows.locator("td:nth-child(3)")).to_have_text([re.compile(f"^{what}") for what in done])
    await expect(rows.locator("td:nth-child(2)")).to_have_text(["admin"] * 5)
    await expect(rows.last).to_contain_text("pause_reason none → maintenance")
    await page.get_by_label("What").select_option("paused the schedule")
    await expect(rows).to_have_count(2)
    await page.get_by_label("Who", exact=True).fill("postgres")
    await page.keyboard.press("Enter")
    await expect(operator.text("No entry fits.")).to_be_visible()


async def test_results_are_filtered_exported_and_noted(
    harness: Harness, history: History, operator: OperatorPage, tmp_path: Path
) -> None:
    await harness.add_mentors(20)
    (run,) = await history.add(Past(0, "partial", {"engine_http_422": 3, "outcome_unknown": 2}))
    page = operator.page
    await operator.open(f"#/runs/{run}")
    dialog = await operator.press("Write a note", "Save", {"Note": "the engine's release"})
    await expect(page.locator(".facts")).to_contain_text("the engine's release")
    await operator.press("Change the note", "Save", {"Note": " "})
    await expect(operator.button("Write a note")).to_be_visible()
    await expect(dialog).to_have_count(0)
    assert (await harness.describe(run))["note"] is None

    await expect(operator.text("and the engine may have acted on it.")).to_be_visible()
    await page.get_by_role("link", name="All of this cause").last.click()
    rows = page.get_by_role("region", name="Results").locator("tbody tr")
    await expect(rows).to_have_count(2)
    assert page.url.endswith(f"#/runs/{run}/results?outcome=failed&code=outcome_unknown")
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
