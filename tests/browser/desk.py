"""What an operator has before her: the dashboard in a browser, and the project behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from tests.emulator.function import FunctionProcess
from tests.integration.nightly.night import Night

from .history import History

SETTINGS = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "10", "ENGINE_MAX_ATTEMPTS": "2"}
# Two that the browser logs for an answer that the page itself deals with.
ANSWERED = "Failed to load resource"


class Desk:
    """One browser context at one function.

    `said`: what the page wrote to the console, and errors that it did not catch; a refused answer is not among them.
    """

    def __init__(self, context: BrowserContext, page: Page, night: Night, function: FunctionProcess) -> None:
        self.context = context
        self.page = page
        self.night = night
        self.function = function
        self.history = History(night)
        self.said: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.said.append(str(error)))

    @classmethod
    @asynccontextmanager
    async def at(cls, browser: Browser, night: Night, **options: Any) -> AsyncIterator[Self]:
        """Opens one; whatever the page said that it should not have said fails the test."""
        function = await night.start_function(SETTINGS)
        await night.project.write_vault_secrets(function.url)
        await night.project.start_net()
        context = await browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", "timezone_id": "Europe/Oslo"} | options
        )
        context.set_default_timeout(20_000)
        expect.set_options(timeout=20_000)
        desk = cls(context, await context.new_page(), night, function)
        try:
            yield desk
            assert desk.said == []
        finally:
            await context.close()

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(ANSWERED):
            self.said.append(message.text)

    async def open(self, address: str = "") -> None:
        """Goes to the dashboard."""
        await self.page.goto(f"{self.function.url}/dashboard{address}")

    async def sign_in(self, token: str | None = None) -> None:
        """Types a token, the admin's unless another is given, and sends it."""
        await self.page.get_by_label("Admin token").fill(token or self.night.project.admin_token)
        await self.page.get_by_role("button", name="Sign in").click()

    async def enter(self, address: str = "") -> None:
        """Opens the dashboard and signs in."""
        await self.open(address)
        await self.sign_in()
        await expect(self.page.locator("#content h1")).to_be_visible()

    async def confirm(self, button: str, confirmation: str) -> None:
        """Presses a button and confirms in its dialog."""
        await self.page.get_by_role("button", name=button, exact=True).click()
        dialog = self.page.get_by_role("dialog")
        await dialog.get_by_role("button", name=confirmation, exact=True).click()
        await expect(dialog).to_have_count(0)

    async def violations(self) -> list[str]:
        """What axe finds that keeps somebody out."""
        found = await Axe().run(self.page)
        return [
            f"{violation['id']}: {node['html'][:200]} {node.get('failureSummary', '')}"
            for violation in found.response["violations"]
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]
