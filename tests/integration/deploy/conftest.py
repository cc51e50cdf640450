"""A project as Supabase makes it, with nothing of ours in it, and somebody who wants to change that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.emulator.project import ProjectFactory
from tests.integration.deploy.deployer import Deployer
from tests.integration.deploy.deployer import deployer as somebody
from tests.integration.project_logs import project_without_leaks

EMPTY = "postgres"


@pytest.fixture
async def deployer(projects: ProjectFactory, tmp_path: Path) -> AsyncIterator[Deployer]:
    async with project_without_leaks(projects, EMPTY) as project, somebody(project, tmp_path) as deployer:
        yield deployer
