"""One project with the engine on it for all tests here: they do not meet, because each makes mentors of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.emulator.project import Project, ProjectFactory
from tests.integration.project_logs import project_without_leaks

from .programme import Programme


@pytest.fixture(scope="session")
async def engine_project(projects: ProjectFactory) -> AsyncIterator[Project]:
    async with project_without_leaks(projects) as project:
        await project.start_engine()
        yield project


@pytest.fixture
async def programme(engine_project: Project) -> AsyncIterator[Programme]:
    async with engine_project.connect() as database, Programme.of(engine_project, database) as programme:
        yield programme
