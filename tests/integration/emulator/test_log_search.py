"""The search of a project's logs finds a secret in whichever log it is, and a line that is not documented."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from tests.emulator.project import ProjectFactory
from tests.integration.project_logs import check_project, project_without_leaks
from tests.log_schema import LINE, UndocumentedLineError
from tests.secret_scan import SecretLeakedError

TALKATIVE_FUNCTION = """
import os
from starlette.responses import JSONResponse

print(os.environ["SAYS"], flush=True)

async def handle_scheduled_invocation(request):
    return JSONResponse({"status": "idle"})
"""


async def test_a_secret_in_a_function_or_database_log_is_found(projects: ProjectFactory, tmp_path: Path) -> None:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "__init__.py").touch()
    (tmp_path / "functions" / "main.py").write_text(TALKATIVE_FUNCTION)
    async with projects.project() as project, project.connect() as database:
        own = "a-token-that-is-not-the-projects"
        env = {"SAYS": f"{project.secret_key}\n{project.admin_token}\n{own}", "SCENARIO_ENGINE_TOKEN": own}
        function = await project.start_function(env, root=tmp_path)
        await function.kill()
        await function.until_ready()
        with pytest.raises(psycopg.errors.UndefinedTable):
            await database.execute(f"select '{project.invoke_token}' from nowhere".encode())
        with pytest.raises(SecretLeakedError) as caught:
            check_project(project)
    called = ("the secret key", "the admin token", "SCENARIO_ENGINE_TOKEN 1 of function")
    # The second start, after the kill, continued in the same file.
    for line, kind in enumerate((*called, *called), start=1):
        assert f"{function.log_path}:{line}: {kind}" in str(caught.value)
    assert "the invoke token" in str(caught.value)
    assert not [secret for secret in (project.invoke_token, *env["SAYS"].split()) if secret in str(caught.value)]


async def test_an_undocumented_log_line_fails_its_test(projects: ProjectFactory) -> None:

    async def logs_unknown_lines() -> None:
        async with project_without_leaks(projects) as project:
            function = await project.start_function()
            with function.log_path.open("a") as log:
                log.write(json.dumps(LINE | {"who": 1}) + "\n")

    with pytest.raises(UndocumentedLineError, match=r"function-project_\d+\.log:1: .*who"):
        await logs_unknown_lines()
