"""A browser for the session, a context for each test, and a function with a page to show.

A test fails where the browser complained: of a script's error, of what the Content-Security-Policy forbids, of a call
to another host.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

import pytest
from playwright.async_api import Browser, Error, async_playwright

from tests.browser.history import History
from tests.browser.operator_page import TIMEOUT_MS, OperatorPage
from tests.emulator.function import FunctionProcess
from tests.faults.system_packages import find_chromium, not_there
from tests.integration.scheduled_runs.harness import Harness, slot_minutes_ago

TIMEZONE = "Europe/Oslo"

ColorScheme = Literal["light", "dark"]
Tab = Callable[..., Awaitable[OperatorPage]]


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The system's browser, else Playwright's own; see `not_there` for where neither is."""
    found = find_chromium()
    if found is None:
        not_there("no Chromium", "install the packages chromium, fonts-dejavu-core and libatomic1")
    async with async_playwright() as playwright:
        try:
            browser = await playwright.chromium.launch(executable_path=found)
        except Error as error:
            not_there("no Chromium that starts", str(error).splitlines()[0])
        yield browser
        await browser.close()


@pytest.fixture
def harness(harness: Harness) -> Harness:
    """With a slot so long ago that it is missed if it has no run."""
    harness.schedule, harness.slot = slot_minutes_ago(10)
    return harness


@pytest.fixture
def history(harness: Harness) -> History:
    return History(harness)


@pytest.fixture
async def function(harness: Harness) -> FunctionProcess:
    """Serves the page; the database knows where it is, and calls it for slices."""
    function = await harness.start_function()
    await harness.project.write_vault_secrets(function.url)
    await harness.project.start_net()
    return function


@pytest.fixture
async def tab(chromium: Browser, harness: Harness, function: FunctionProcess) -> AsyncIterator[Tab]:
    """Opens tabs, each in a context of its own: by default as wide as a laptop's screen and light."""
    opened: list[OperatorPage] = []

    async def open_tab(width: int = 1280, height: int = 900, scheme: ColorScheme = "light") -> OperatorPage:
        context = await chromium.new_context(
            viewport={"width": width, "height": height},
            locale="en-GB",
            timezone_id=TIMEZONE,
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        context.set_default_timeout(TIMEOUT_MS)
        opened.append(OperatorPage(await context.new_page(), harness, function))
        return opened[-1]

    yield open_tab
    for operator in opened:
        await operator.page.context.close()
    assert [complaint for operator in opened for complaint in operator.complaints] == []


@pytest.fixture
async def operator(tab: Tab) -> OperatorPage:
    return await tab()
