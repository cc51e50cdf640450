"""Only an admin token opens the page, refused tokens get a reason, and a changed token keeps the place."""

from __future__ import annotations

from datetime import timedelta

from playwright.async_api import expect

from tests.browser.canned_operation import CannedAuth, CannedOperation
from tests.browser.history import History, Past
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


async def test_users_sign_in_with_their_role(harness: Harness, history: History, operator: OperatorPage) -> None:
    async def sign_in(password: str) -> None:
        await page.get_by_label("E-mail").fill("berit@example.org")
        await page.get_by_label("Password").fill(password)
        await page.get_by_role("button", name="Sign in").click()

    page = operator.page
    (run,) = await history.add(Past(0, "partial", {"engine_timeout": 1}))
    auth, canned = CannedAuth(operator.function.url, harness.project.admin_token), CannedOperation()
    await canned.serve(page)
    await auth.serve(page)
    await operator.open(token="")
    for algorithm, role, password, reason in (
        ("ES256", "operator", "wrong", "E-mail or password is wrong."),
        ("HS256", "operator", "right", "signs its users' tokens with the legacy JWT secret (HS256)"),
        ("ES256", None, "right", "This user has no role here."),
    ):
        auth.algorithm, auth.role = algorithm, role
        await sign_in(password)
        await expect(page.get_by_role("alert").filter(has_text=reason)).to_be_visible()
        assert await page.evaluate("sessionStorage.length") == 0
    auth.role, auth.lifetime = "viewer", timedelta(seconds=61)
    await page.clock.install()
    await sign_in("right")
    for shown in ("abcdefghijklmnopqrst", "production", "berit@example.org"):
        await expect(operator.text(shown)).to_be_visible()
    await expect(operator.runs()).to_have_count(1)
    # of a viewer's page every button reads: none changes anything
    for place, reads in (("", []), (f"#/runs/{run}", []), ("#/scenarios", [])):
        await operator.open(place, token="")
        await expect(page.locator(".loading")).to_have_count(0)
        assert await page.get_by_role("button").all_inner_texts() == ["Sign out", *reads]
    auth.grants.clear()
    await page.clock.run_for(40_000)
    await expect(operator.heading("Scenarios")).to_be_visible()
    assert set(auth.grants) == {"refresh_token"}
    await page.get_by_role("button", name="Sign out").click()
    await expect(operator.text("You are signed out.")).to_be_visible()
    assert (auth.grants[-1], await page.evaluate("sessionStorage.length")) == ("logout", 0)
    await page.get_by_role("button", name="Use an admin token").click()
    await operator.sign_in(harness.project.admin_token)
    await expect(operator.button("Run now")).to_be_visible()
