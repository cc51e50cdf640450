"""A run and its clock, for every test here; on a PostgreSQL of its own where a test stops the server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.emulator.project import ProjectFactory
from tests.faults.time_control import TimeControl
from tests.integration.project_logs import project_without_leaks
from tests.integration.scheduled_runs.harness import Harness
from tests.integration.scheduled_runs.harness import harness as a_scheduled_run

# What is committed survives a crash of the server; that of the machine is not tested here.
DURABLE = {"synchronous_commit": "on", "full_page_writes": "on"}


@pytest.fixture
async def time_control(harness: Harness) -> TimeControl:
    return TimeControl(harness)


@pytest.fixture
async def own_server(http: httpx.AsyncClient) -> AsyncIterator[Harness]:
    """Its database server may be stopped, and crashed: nothing else is on it."""
    async with (
        ProjectFactory(settings=DURABLE, forked=True) as factory,
        project_without_leaks(factory) as project,
        a_scheduled_run(project, http) as prepared,
    ):
        yield prepared
