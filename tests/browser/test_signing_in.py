"""Only an admin token opens the page, refused tokens get a reason, and a changed token keeps the place."""

from __future__ import annotations

import asyncio
import base64
from urllib.parse import urlsplit

from playwright.async_api import Route, expect

from tests.browser.history import PAUSE_ENGINE, PAUSE_SCHEDULE, History, Past
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


async def test_users_sign_in_and_viewers_see_no_buttons(
    harness: Harness, history: History, operator: OperatorPage
) -> None:
    async def sign_in(name: str, password: str) -> None:
        await page.get_by_label("E-mail").fill(f"{name}@example.org")
        await page.get_by_label("Password").fill(password)
        await page.get_by_role("button", name="Sign in").click()

    async def sign_with_legacy_secret(route: Route) -> None:
        response = await route.fetch()
        answer = await response.json()
        header = base64.urlsafe_b64encode(b'{"alg": "HS256"}').decode()
        token = f"{header}.{answer['access_token'].partition('.')[2]}"
        await route.fulfill(response=response, json=answer | {"access_token": token})

    async def answer_late(route: Route) -> None:
        response = await route.fetch()
        await signed_in.wait()
        await route.fulfill(response=response)

    signed_in = asyncio.Event()
    page, passwords = operator.page, harness.project.sign_in.passwords
    (run,) = await history.add(Past(0, "partial", {"engine_timeout": 1}))
    await harness.project.start_auth()
    operator.function = await harness.start_function({"ENVIRONMENT_NAME": "staging"})
    operator.called.append(harness.project.auth_url)
    for pause in (PAUSE_ENGINE, PAUSE_SCHEDULE):
        await harness.execute(pause)
    await operator.open(token="")
    for name, password, reason in (
        ("viewer", "wrong", "E-mail or password is wrong."),
        ("mentor", passwords["mentor"], "This user has no role here."),
    ):
        await sign_in(name, password)
        await expect(page.get_by_role("alert")).to_contain_text(reason)
    await page.route("**/auth/v1/token**", sign_with_legacy_secret)
    await sign_in("viewer", passwords["viewer"])
    await expect(page.get_by_role("alert")).to_contain_text("the legacy JWT secret (HS256)")
    assert await page.evaluate("sessionStorage.length") == 0
    await page.unroute("**/auth/v1/token**")
    await page.clock.install()
    await sign_in("viewer", passwords["viewer"])
    for shown in (urlsplit(harness.project.auth_url).netloc, "staging", "viewer@example.org"):
        await expect(operator.text(shown)).to_be_visible()
    await expect(operator.runs()).to_have_count(1)
    for place in ("", f"#/runs/{run}", "#/scenarios"):
        await operator.open(place, token="")
        await expect(operator.text("by berit, until it is resumed")).to_be_visible()
        await expect(page.locator(".loading")).to_have_count(0)
        assert await page.get_by_role("button").all_inner_texts() == ["Sign out"]
    await page.route("**/auth/v1/token?grant_type=refresh_token", answer_late)
    async with page.expect_request("**/auth/v1/token?grant_type=refresh_token"):
        await page.clock.fast_forward(3_550_000)
    await expect(operator.heading("Scenarios").first).to_be_visible()
    async with page.expect_request("**/auth/v1/logout*"):
        await page.get_by_role("button", name="Sign out").click()
    assert await page.evaluate("sessionStorage.length") == 0
    await sign_in("operator", passwords["operator"])
    await expect(operator.button("Run now")).to_be_visible()
    async with page.expect_response("**/auth/v1/token?grant_type=refresh_token"):
        signed_in.set()
    await page.reload()
    await expect(operator.text("operator@example.org")).to_be_visible()
    for button in ("Run now", "Resume", "Try the engine now", "Send a test alert"):
        await expect(page.get_by_role("button", name=button)).to_be_visible()
