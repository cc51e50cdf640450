"""The night that every test here works with, as the nightly ones do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.emulator.project import Project
from tests.integration.nightly.night import Night
from tests.integration.nightly.night import night as a_night


@pytest.fixture
async def night(project: Project, http: httpx.AsyncClient) -> AsyncIterator[Night]:
    async with a_night(project, http) as prepared:
        yield prepared
