"""Nobody is kept out: axe finds nothing serious, the keyboard suffices, and a phone is wide enough."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.async_api import expect

from .desk import Desk
from .test_runs import a_month


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
async def test_no_page_keeps_anybody_out(desk: Desk, scheme: Literal["light", "dark"], width: int) -> None:
    await a_month(desk)
    page = desk.page
    await page.set_viewport_size({"width": width, "height": 800})
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await desk.open()
    await desk.sign_in("no-token-that-anybody-would-know-of")
    await expect(page.get_by_role("alert")).to_contain_text("not known")
    assert await desk.violations() == []
    await desk.sign_in()
    await expect(page.get_by_role("link", name="Look into it")).to_be_visible()
    await check(desk, width)
    await page.get_by_role("button", name="Run now").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await check(desk, width)
    await page.keyboard.press("Escape")
    await page.get_by_role("link", name="Look into it").click()
    await expect(page.locator(".place-failures").get_by_role("link").first).to_be_visible()
    await page.get_by_text("The configuration in force").click()
    await check(desk, width)
    await page.locator(".place-failures").get_by_role("link").first.click()
    await expect(page.get_by_role("table", name="Runs that she was in")).to_be_visible()
    await check(desk, width)


async def check(desk: Desk, width: int) -> None:
    assert await desk.violations() == []
    assert await desk.page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"


async def test_the_keyboard_suffices_from_signing_in_to_a_run(desk: Desk) -> None:
    await a_month(desk)
    await desk.open()
    keyboard = desk.page.keyboard
    await expect(desk.page.get_by_label("Admin token")).to_be_focused()
    await keyboard.insert_text(desk.night.project.admin_token)
    await keyboard.press("Enter")
    link = desk.page.get_by_role("link", name="Look into it")
    await expect(link).to_be_visible()
    for _ in range(20):
        await keyboard.press("Tab")
        if await link.evaluate("element => element === document.activeElement"):
            break
    await expect(link).to_be_focused()
    assert await link.evaluate("element => getComputedStyle(element).outlineStyle") != "none"
    await keyboard.press("Enter")
    await expect(desk.page.get_by_role("heading", name="Scheduled run of")).to_be_focused()
