"""The running function that every test here calls."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.emulator.project import Project
from tests.integration.api.served import Served, served_by


@pytest.fixture
async def served(project: Project, http: httpx.AsyncClient) -> AsyncIterator[Served]:
    async with served_by(project, http) as function:
        yield function
