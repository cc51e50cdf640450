"""The search of a project's logs for secrets finds what was planted there, in whichever log it is."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.emulator.project import Project, ProjectFactory
from tests.integration.project_logs import check_project, project_without_leaks
from tests.log_schema import UndocumentedLineError
from tests.secret_scan import SecretLeakedError

from .looking import rows, until

TALKATIVE_FUNCTION = """
import os
from starlette.responses import JSONResponse

print("line one")
print(os.environ.get("SAYS", "nothing"), flush=True)

async def handle_scheduled_invocation(request):
    return JSONResponse({"status": "idle"})
"""


@pytest.fixture
def talkative_function(idle_function: Path) -> Path:
    """A project root whose function says at its start what SAYS holds."""
    (idle_function / "functions" / "main.py").write_text(TALKATIVE_FUNCTION)
    return idle_function


async def test_each_secret_in_a_functions_log_is_found_and_not_repeated(
    projects: ProjectFactory, talkative_function: Path
) -> None:
    async with projects.project() as project:
        secrets = {
            "the secret key": project.secret_key,
            "the service_role JWT": project.service_role_jwt,
            "the invoke token": project.invoke_token,
            "the admin token": project.admin_token,
            "the engine token": project.engine_token,
        }
        function = await project.start_function({"SAYS": "\n".join(secrets.values())}, root=talkative_function)
        with pytest.raises(SecretLeakedError) as caught:
            check_project(project)
    for line, (called, secret) in enumerate(secrets.items(), start=2):
        assert f"{function.log_path}:{line}: {called}" in str(caught.value)
        assert secret not in str(caught.value)


async def test_what_a_killed_function_said_before_is_found(projects: ProjectFactory, talkative_function: Path) -> None:
    async with projects.project() as project:
        function = await project.start_function({"SAYS": project.admin_token}, root=talkative_function)
        await function.kill()
        await function.until_ready()
        with pytest.raises(SecretLeakedError) as caught:
            check_project(project)
    assert f"{function.log_path}:2: the admin token" in str(caught.value)
    assert f"{function.log_path}:4: the admin token" in str(caught.value)


async def test_a_token_that_only_one_instance_was_told_is_looked_for_too(
    projects: ProjectFactory, talkative_function: Path
) -> None:
    token = "a-token-that-is-not-the-projects-own"
    async with projects.project() as project:
        await project.start_function(root=talkative_function)
        second = await project.start_function({"SAYS": token, "SCENARIO_ENGINE_TOKEN": token}, root=talkative_function)
        with pytest.raises(SecretLeakedError, match="log:2: SCENARIO_ENGINE_TOKEN 1 of function") as caught:
            check_project(project)
    assert str(second.log_path) in str(caught.value)


async def test_a_secret_in_the_databases_log_is_found(projects: ProjectFactory) -> None:
    async with projects.project() as project, project.connect() as database:
        with pytest.raises(psycopg.errors.UndefinedTable):
            await database.execute(f"select '{project.invoke_token}' from nowhere".encode())
        with pytest.raises(SecretLeakedError, match=r"postgres\.log:\d+: the invoke token"):
            check_project(project)


async def test_a_project_that_leaked_fails_at_its_end(projects: ProjectFactory, talkative_function: Path) -> None:
    async def leak() -> None:
        async with project_without_leaks(projects) as project:
            await project.start_function({"SAYS": project.secret_key}, root=talkative_function)

    with pytest.raises(SecretLeakedError, match="log:2: the secret key"):
        await leak()


async def test_a_secret_that_is_a_parameter_is_in_no_log_of_the_database(project: Project) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        await rows(project, "select %s from nowhere", project.invoke_token)
    log = project.server.log_path.read_text()
    assert 'relation "nowhere" does not exist' in log
    assert project.invoke_token not in log


async def test_the_gateway_logs_a_failure_without_the_key_that_came_with_it(
    project: Project, http: httpx.AsyncClient
) -> None:
    await project.postgrest.stop()
    key = project.service_role_jwt
    answer = await http.get(
        f"{project.rest_url}/peer_mentors", headers={"apikey": key, "authorization": f"Bearer {key}"}
    )
    assert answer.status_code == 502

    async def failure_is_logged() -> bool:
        return "/rest/v1/peer_mentors" in project.gateway.log_path.read_text()

    await until(failure_is_logged)
    assert check_project(project, server_log_from=project.server.log_path.stat().st_size) > 0


async def test_a_line_of_the_function_that_nobody_documented_fails_the_test_that_wrote_it(
    projects: ProjectFactory,
) -> None:
    line = {"time": "2026-11-23T02:00:00.000+00:00", "severity": "INFO", "event": "caller_left", "message": "m"}

    async def project_that_logs() -> None:
        async with project_without_leaks(projects) as project:
            function = await project.start_function()
            with function.log_path.open("a") as log:
                log.write(json.dumps(line | {"who": 1}) + "\n")

    with pytest.raises(UndocumentedLineError, match=r"function-project_\d+\.log:1: .*who"):
        await project_that_logs()


async def test_another_function_in_the_place_of_ours_logs_as_it_likes(
    projects: ProjectFactory, talkative_function: Path
) -> None:
    async with project_without_leaks(projects) as project:
        await project.start_function(root=talkative_function)
