"""The dashboard in a real browser, and what an operator does with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import ConsoleMessage, Locator, Page, Request, expect

from tests.emulator.function import FunctionProcess
from tests.integration.scheduled_runs.harness import Harness

# What Chromium says of every answer that is no success; the page has to say it in words of its own.
_FAILED_LOAD = re.compile(r"^Failed to load resource: ")
# Real work is done behind the page, by processes that share a machine with other tests.
TIMEOUT_MS = 30_000
expect.set_options(timeout=TIMEOUT_MS)


class OperatorPage:
    """A tab with the dashboard that a function serves, and a record of what the browser complained of."""

    def __init__(self, page: Page, harness: Harness, function: FunctionProcess) -> None:
        self.page = page
        self.harness = harness
        self.function = function
        self.complaints: list[str] = []
        self.asked: list[Request] = []
        self.called: list[str] = []  # where else it may call
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", self._asked)

    async def open(self, place: str = "", *, token: str | None = None) -> None:
        """Opens a place within the page, signed in with the admin token, another one, or ("") none."""
        token = self.harness.project.admin_token if token is None else token
        await self.page.goto(f"{self.function.url}/dashboard{place}")
        if token:
            await self.sign_in(token)

    async def sign_in(self, token: str) -> None:
        await self.page.get_by_label("Admin token").fill(token)
        await self.page.get_by_role("button", name="Sign in").click()

    def button(self, name: str) -> Locator:
        """A button outside of dialogs."""
        return self.page.locator("main").get_by_role("button", name=name, exact=True)

    async def press(self, name: str, confirm: str, fields: Mapping[str, str] | None = None) -> Locator:
        """Presses a button, fills in its dialog and confirms it; returns the dialog."""
        await self.button(name).click()
        dialog = self.page.get_by_role("dialog")
        for label, text in (fields or {}).items():
            await dialog.get_by_label(label).fill(text)
        await dialog.get_by_role("button", name=confirm, exact=True).click()
        return dialog

    def text(self, text: str) -> Locator:
        return self.page.get_by_text(text)

    def heading(self, text: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("heading", name=text)

    def status(self) -> Locator:
        """The status of the run that is shown."""
        return self.page.locator(".place-heading .badge").first

    def runs(self) -> Locator:
        """The rows of the list of runs."""
        return self.page.locator(".runs tbody tr")

    async def axe_violations(self) -> list[str]:
        """What axe calls serious or critical in what is shown."""
        found: dict[str, Any] = (await Axe().run(self.page, options={"resultTypes": ["violations"]})).response
        serious = [violation for violation in found["violations"] if violation["impact"] in ("serious", "critical")]
        return [f"{one['id']}: {node['html'][:200]}" for one in serious for node in one["nodes"]]

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not _FAILED_LOAD.match(message.text):
            self.complaints.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        self.asked.append(request)
        if not request.url.startswith((f"{self.function.url}/", "data:", *self.called)):
            self.complaints.append(f"asked for {request.url}")
