"""Who gets in, and what the others are told."""

from __future__ import annotations

from playwright.async_api import expect

from .desk import Desk

CSP = "default-src 'none'; script-src 'self'; style-src 'self'"


async def test_an_admin_token_opens_the_page_and_stays_in_the_tab(desk: Desk) -> None:
    await desk.enter()
    await expect(desk.page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    await expect(desk.page.get_by_label("Admin token")).to_be_hidden()
    kept = await desk.page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie])")
    assert kept == f'[{{"scheduler-admin-token":"{desk.night.project.admin_token}"}},{{}},""]'
    await desk.page.reload()
    await expect(desk.page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    await desk.page.get_by_role("button", name="Sign out").click()
    await expect(desk.page.get_by_role("alert")).to_have_text("You are signed out.")
    assert await desk.page.evaluate("sessionStorage.length") == 0


async def test_a_wrong_token_an_invoke_token_and_none_are_told_apart(desk: Desk) -> None:
    await desk.open()
    alert = desk.page.get_by_role("alert")
    await desk.page.get_by_role("button", name="Sign in").click()
    await expect(alert).to_have_text("Enter the token.")
    await desk.sign_in("no-token-that-anybody-would-know-of")
    await expect(alert).to_contain_text("This token is not known")
    await desk.sign_in(desk.night.project.invoke_token)
    await expect(alert).to_contain_text("This is an invoke token")
    assert await desk.page.evaluate("sessionStorage.length") == 0
    await desk.sign_in()
    await expect(desk.page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()


async def test_a_token_that_is_not_accepted_any_more_is_asked_for_without_losing_the_place(desk: Desk) -> None:
    await desk.night.add_mentors(3)
    assert (await desk.night.fire(desk.function)).status_code == 200
    await desk.enter()
    await desk.page.get_by_role("link", name="Look into it").click()
    await expect(desk.page.get_by_role("heading", name="Scheduled run of")).to_be_visible()
    address = desk.page.url
    await desk.page.evaluate("sessionStorage.setItem('scheduler-admin-token', 'one-that-was-rotated-out-since-then')")
    await desk.page.get_by_role("link", name="One mentor").click()
    await desk.page.go_back()
    await expect(desk.page.get_by_role("alert").filter(has_text="not accepted any more")).to_be_visible()
    await desk.sign_in()
    await expect(desk.page.get_by_role("heading", name="Scheduled run of")).to_be_visible()
    assert desk.page.url == address


async def test_the_page_itself_holds_nothing_and_loads_nothing_from_elsewhere(desk: Desk) -> None:
    asked: list[str] = []
    desk.page.on("request", lambda request: asked.append(request.url))
    await desk.enter()
    assert {url.split("/dashboard")[0].split("/api")[0] for url in asked if not url.startswith("data:")} == {
        desk.function.url
    }
    answer = await desk.night.http.get(f"{desk.function.url}/dashboard")
    assert answer.headers["content-security-policy"].startswith(CSP)
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = await desk.night.http.get(
        f"{desk.function.url}/dashboard", headers={"If-None-Match": answer.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    assert (await desk.night.http.post(f"{desk.function.url}/dashboard")).status_code == 405
