"""A night with its clockwork, for every test here; on a PostgreSQL of its own where a test stops the server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.emulator.project import ProjectFactory
from tests.faults.clockwork import Clockwork
from tests.integration.nightly.night import Night
from tests.integration.nightly.night import night as a_night
from tests.integration.project_logs import project_without_leaks

# What is committed survives a crash of the server; that of the machine is not tested here.
DURABLE = {"synchronous_commit": "on", "full_page_writes": "on"}


@pytest.fixture
async def clockwork(night: Night) -> Clockwork:
    return Clockwork(night)


@pytest.fixture
async def own_night(http: httpx.AsyncClient) -> AsyncIterator[Night]:
    """Its database server may be stopped, and crashed: nothing else is on it."""
    async with (
        ProjectFactory(settings=DURABLE) as factory,
        project_without_leaks(factory) as project,
        a_night(project, http) as prepared,
    ):
        yield prepared
