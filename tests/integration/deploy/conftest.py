"""A project as Supabase makes it, with nothing of ours in it, and all that deploying into it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.emulator.project import ProjectFactory
from tests.integration.deploy.deployer import Deployer
from tests.integration.deploy.fake_cloud import PROJECT, FakeCloud
from tests.integration.project_logs import project_without_leaks
from tests.scripted_engine import ScriptedEngine


@pytest.fixture
async def deployer(projects: ProjectFactory, tmp_path: Path) -> AsyncIterator[Deployer]:
    async with (
        project_without_leaks(projects, "postgres") as project,
        ScriptedEngine(token=project.engine_token) as engine,
        FakeCloud(tmp_path / "cloud", project.data_dir, project.database, project.database_url) as cloud,
    ):
        deployer = Deployer(project, cloud, engine, tmp_path)
        deployer.write_settings(
            DATABASE_URL=project.database_url,
            SUPABASE_URL=project.supabase_url,
            SUPABASE_SECRET_KEY=project.secret_key,
            SCENARIO_ENGINE_URL=engine.url,
            SCENARIO_ENGINE_TOKEN=project.engine_token,
            SCHEDULER_INVOKE_TOKENS=project.invoke_token,
            SCHEDULER_ADMIN_TOKENS=project.admin_token,
            GOOGLE_CLOUD_PROJECT=PROJECT,
            GOOGLE_CLOUD_REGION="europe-north1",
            EVALUATION_BATCH_SIZE="50",
        )
        await project.start_net()
        yield deployer
