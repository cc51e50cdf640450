"""Debian's Chromium, started once, and the dashboard of a project in a fresh context for each test."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright

from tests.integration.nightly.night import Night

from .desk import Desk

ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--font-render-hinting=none"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the README's picture goes."""
    parser.addoption("--screenshot", metavar="PATH", help="write the dashboard's picture for the README there")


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The browser; it is an error, and nothing to skip, when there is none."""
    path = shutil.which("chromium")
    assert path, "expected chromium on the PATH, found none: apt-get install chromium"
    async with async_playwright() as playwright:
        # As root a sandbox of Chromium's own cannot be had; the page is ours.
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
async def desk(browser: Browser, night: Night) -> AsyncIterator[Desk]:
    """An operator's desk: the function serves, the database can call it, and the page is open."""
    async with Desk.at(browser, night) as desk:
        yield desk
