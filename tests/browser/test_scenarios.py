"""The page "Scenarios": types are switched, changed and reset; and what a run says of the types in force."""

from __future__ import annotations

import json

from playwright.async_api import Locator, expect

from tests.browser.canned_scenarios import IGNORED, NEXT_SLOT, UNUSABLE, CannedScenarios
from tests.browser.history import History, Past
from tests.browser.operator_page import OperatorPage
from tests.integration.scheduled_runs.harness import Harness


def cells(operator: OperatorPage, name: str) -> Locator:
    """The cells of a type's row, its heading first; or of an organization's row."""
    heading = operator.page.get_by_role("rowheader", name=name)
    return operator.page.locator(".types tbody tr").filter(has=heading).first.locator("th, td")


async def test_scenarios_are_switched_changed_and_reset(
    harness: Harness, history: History, operator: OperatorPage
) -> None:
    await harness.add_mentors(20)
    await history.add(Past(1), Past(0, "partial", {"engine_timeout": 3}))
    canned = CannedScenarios()
    await canned.serve(operator.page)
    await operator.open()
    await operator.page.get_by_role("link", name="Scenarios").click()
    inactivity, milestone = cells(operator, "inactivity"), cells(operator, "milestone")
    organization, unknown = cells(operator, "inactivity for blue-cross"), cells(operator, "birthday for blue-cross")
    await expect(inactivity.nth(1)).to_contain_text("on")
    await expect(inactivity.nth(2)).to_have_text("established")
    await expect(inactivity.nth(3)).to_contain_text("each slot")
    await expect(inactivity.nth(3).locator("time")).to_have_attribute("datetime", NEXT_SLOT)
    await expect(inactivity.nth(4)).to_have_text("4 triggered16 not triggered")
    await expect(milestone.nth(4)).to_have_text("17 not triggered3 failed")
    await expect(milestone.nth(5)).to_contain_text("by Berit")
    await expect(organization.nth(0)).to_contain_text(UNUSABLE)
    await expect(unknown.nth(0)).to_contain_text(IGNORED)
    await expect(unknown.nth(1)).not_to_contain_text("as for all")
    await expect(unknown.get_by_role("button")).to_have_count(0)

    switch = operator.button("Switch off inactivity")
    await switch.click()
    said = operator.page.get_by_role("status").filter(has_text="inactivity is off. From the next run on")
    await expect(said).to_contain_text("mentors are not evaluated for it; a run under way is not changed.")
    await expect(operator.button("Switch on inactivity")).to_be_focused()
    await expect(organization.nth(1)).to_contain_text("as for all")
    await operator.button("Switch off milestone").click()
    await expect(operator.text("All types are off: the next scheduled run fails")).to_be_visible()
    await operator.button("Switch on inactivity").click()
    await expect(inactivity.nth(1)).to_contain_text("on")
    await operator.button("reset the state of inactivity").click()
    await expect(inactivity.nth(1)).not_to_contain_text("set here")
    await operator.button("Switch off inactivity for blue-cross").click()
    await operator.button("Switch on inactivity for blue-cross").click()
    await operator.button("reset the schedule of inactivity for blue-cross").click()
    await expect(organization.nth(0)).not_to_contain_text(UNUSABLE)
    assert canned.changes == [
        ("inactivity", None, {"enabled": False}),
        ("milestone", None, {"enabled": False}),
        ("inactivity", None, {"enabled": True}),
        ("inactivity", None, {"enabled": None}),
        ("inactivity", "blue-cross", {"enabled": False}),
        ("inactivity", "blue-cross", {"enabled": None}),
        ("inactivity", "blue-cross", {"schedule": None}),
    ]

    canned.changes.clear()
    dialog = await operator.press("Change milestone", "Save", {"Schedule": "weekly"})
    schedule = dialog.get_by_label("Schedule")
    await expect(schedule).to_be_focused()
    found = "schedule: expected a cron expression of five fields, found 'weekly'"
    await expect(schedule).to_have_accessible_description(found)
    await schedule.fill("0 7 1 * *")
    await dialog.get_by_label("Segments").fill("established\n certified ")
    await dialog.get_by_role("button", name="Save").click()
    await expect(milestone.nth(2)).to_contain_text("established, certified")
    await expect(milestone.nth(3)).to_contain_text("0 7 1 * *")
    await operator.button("reset the schedule of milestone").click()
    await expect(milestone.nth(3)).to_contain_text("each slot")
    await operator.press("Change milestone", "Save", {"Segments": ""})
    await expect(milestone.nth(2)).to_contain_text("all mentors")
    dialog = await operator.press("Add organization to inactivity", "Add", {"Name": "org:blue-cross"})
    await expect(dialog.get_by_label("Name")).to_have_accessible_description("Enter its name, without org:.")
    await dialog.get_by_label("Name").fill("blue-cross")
    await dialog.get_by_role("button", name="Add").click()
    await expect(dialog.get_by_label("Name")).to_have_accessible_description("It has a row already.")
    await dialog.get_by_label("Name").fill("Røde Kors/Øst")
    await dialog.get_by_label("Switched off").check()
    await dialog.get_by_role("button", name="Add").click()
    await expect(cells(operator, "inactivity for Røde Kors/Øst").nth(1)).to_contain_text("off")
    assert canned.changes == [
        ("milestone", None, {"segments": ["established", "certified"], "schedule": "0 7 1 * *"}),
        ("milestone", None, {"schedule": None}),
        ("milestone", None, {"segments": []}),
        ("inactivity", "Røde Kors/Øst", {"enabled": False, "segments": None, "schedule": None}),
    ]


async def test_run_shows_the_types_in_force(harness: Harness, history: History, operator: OperatorPage) -> None:
    await harness.add_mentors(20)
    (run,) = await history.add(Past(0, "failed", error_code="no_enabled_scenarios"))
    source = {
        "types": [
            {"type": "inactivity", "enabled": False, "segments": []},
            {"type": "milestone", "enabled": True, "segments": ["established"], "schedule": "0 6 * * 1"},
            {"type": "survey", "enabled": True, "segments": [], "organizations": {"acme": {"segments": ["certified"]}}},
        ],
        "not_due": [["milestone", None]],
        "warnings": ["birthday: expected a type of SCENARIO_TYPES; the row is ignored"],
    }
    update = b"update public.scheduler_invocations set config = jsonb_set(config, '{scenarios}', %s)"
    await harness.execute(update, [json.dumps(source)])
    await operator.open(f"#/runs/{run}")
    await expect(operator.text("Every scenario type was off when it was opened")).to_be_visible()
    await expect(operator.text("birthday: expected a type of SCENARIO_TYPES")).to_be_visible()
    await operator.text("The configuration in force").click()
    rows = operator.page.get_by_role("region", name="Scenario types", exact=True).locator("tbody tr")
    shown = [
        "inactivity off all mentors each slot",
        "milestone not due established 0 6 * * 1",
        "survey on all mentors each slot",
        "survey for acme as for all certified as for all",
    ]
    await expect(rows).to_have_count(len(shown))
    assert [" ".join(await row.locator("th, td").all_inner_texts()) for row in await rows.all()] == shown

    off = {"acme": {"enabled": False}}
    types = [{"type": "milestone", "enabled": False}, {"type": "survey", "enabled": True, "organizations": off}]
    await harness.execute(update, [json.dumps({"types": types, "source": source})])
    await operator.page.reload()
    await expect(operator.text("Off when it was opened, and skipped: milestone, survey for acme.")).to_be_visible()
    await operator.text("The configuration in force").click()
    await expect(rows).to_have_count(len(shown))
