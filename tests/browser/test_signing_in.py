"""Only an admin token opens the page, refused tokens get a reason, and a changed token keeps the place."""

from __future__ import annotations

from playwright.async_api import expect

from tests.browser.operator_page import OperatorPage
from tests.integration.scheduled_runs.harness import Harness

TOKEN_IN_TAB = "sessionStorage.getItem('scheduler-admin-token')"
PLACE = "#/mentors/0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10"


async def test_admin_token_lasts_as_long_as_the_tab(operator: OperatorPage) -> None:
    await operator.open()
    await expect(operator.heading("Runs").first).to_be_visible()
    await operator.page.reload()
    await expect(operator.heading("No scheduled run yet")).to_be_visible()
    assert await operator.page.evaluate("Object.keys(localStorage).length") == 0
    assert await operator.page.context.cookies() == []
    await operator.page.get_by_role("button", name="Sign out").click()
    await expect(operator.text("You are signed out.")).to_be_visible()
    assert await operator.page.evaluate(TOKEN_IN_TAB) is None
    await operator.page.reload()
    await expect(operator.page.get_by_label("Admin token")).to_be_focused()


async def test_other_tokens_are_refused_with_a_reason(harness: Harness, operator: OperatorPage) -> None:
    await operator.open(token="")
    for token, reason in {
        "a-token-that-is-not-configured": "This token is not known.",
        harness.project.invoke_token: "This is an invoke token",
        "två ord": "A token has no blanks or special letters.",
        " ": "Enter the token.",
    }.items():
        await operator.sign_in(token)
        await expect(operator.page.get_by_role("alert").filter(has_text=reason)).to_be_visible()
        await expect(operator.page.get_by_label("Admin token")).to_be_focused()
        assert await operator.page.evaluate(TOKEN_IN_TAB) is None


async def test_refused_token_is_replaced_at_the_same_place(operator: OperatorPage) -> None:
    await operator.open(PLACE)
    await expect(operator.heading("No run includes this mentor")).to_be_visible()
    await operator.page.evaluate("sessionStorage.setItem('scheduler-admin-token', 'rotated-away-meanwhile')")
    await operator.button("Show history").click()
    await expect(operator.text("Your token is not accepted any more.")).to_be_visible()
    await operator.sign_in(operator.harness.project.admin_token)
    await expect(operator.heading("No run includes this mentor")).to_be_visible()
    assert operator.page.url.endswith(PLACE)
