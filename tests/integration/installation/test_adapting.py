"""docs/adapting.md, followed to the letter on a schema that looks nothing like the sample: a night runs on it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.emulator.migrations import apply_migrations, run_script
from tests.emulator.project import MIGRATIONS, Project, ProjectFactory
from tests.emulator.staging import ROOT
from tests.faults.system_packages import require_curl
from tests.integration.database.sql_core import Session
from tests.integration.database.walk import grants
from tests.integration.nightly.night import Night
from tests.integration.nightly.night import night as a_night
from tests.integration.project_logs import check_project, size_of

from .conftest import EMPTY

ADAPTING = (ROOT / "docs" / "adapting.md").read_text(encoding="utf-8")

# A table of theirs that has the sample's name and nothing else of it.
THEIR_PEER_MENTORS = "create table public.peer_mentors (id bigint primary key, buddy_of bigint);\n"
THEIR_ROWS = """
insert into crew.people (full_name, archived_at)
values ('drives', null), ('telephones', null), ('does both', null), ('office only', null), ('is on leave', null),
       ('will be on leave', null), ('is gone', now()), ('drove once', null), ('telephones at the harbour', null);
insert into crew.duties (person_no, duty, since, until)
values (1, 'driver', '2020-01-01', null), (2, 'telephone', '2020-01-01', null), (3, 'driver', '2020-01-01', null),
       (3, 'telephone', '2021-01-01', '2999-12-31'), (4, 'office', '2020-01-01', null),
       (5, 'driver', '2020-01-01', null), (6, 'driver', '2020-01-01', null), (7, 'driver', '2020-01-01', null),
       (8, 'driver', '2020-01-01', '2020-12-31'), (9, 'telephone', '2020-01-01', null);
insert into crew.leave (person_no, days)
values (5, daterange(current_date - 1, current_date + 1)), (6, daterange(current_date + 30, null));
insert into crew.depot_members (depot, person_no) values ('harbour', 1), ('harbour', 9), ('hills', 2);
"""
EXPECTED = {
    1: {"no_tour_for_14_days", "shift_unconfirmed", "anniversary"},
    2: {"shift_unconfirmed", "anniversary"},
    3: {"no_tour_for_14_days", "shift_unconfirmed", "anniversary"},
    6: {"no_tour_for_14_days", "anniversary"},
    9: {"shift_unconfirmed", "anniversary"},
}


def blocks(language: str) -> list[str]:
    """The page's blocks in this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", ADAPTING, re.DOTALL | re.MULTILINE)


def settings(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines())


def user_id(person_no: int) -> str:
    return f"00000000-0000-4000-8000-{person_no:012x}"


@pytest.fixture(params=["view first", "sample first", "view made anew"])
async def adapted(request: pytest.FixtureRequest, projects: ProjectFactory, tmp_path: Path) -> AsyncIterator[Project]:
    """That company's project: its own peer_mentors and the view first, or the sample first and the view later."""
    written_before = size_of(projects.server.log_path)
    tables, view, _ = blocks("sql")
    theirs, seam = tmp_path / "theirs.sql", tmp_path / "view.sql"
    theirs.write_text(tables + THEIR_ROWS + (THEIR_PEER_MENTORS if request.param == "view first" else ""))
    # The file runs in a transaction already.
    seam.write_text(view.replace("begin;\n", "", 1).replace("commit;\n", "", 1))
    async with projects.database(EMPTY) as name:
        project = Project(projects.server, name, label=f"-{name}")
        await run_script(project.database_url, theirs)
        if request.param == "view first":
            await run_script(project.database_url, seam)
            await apply_migrations(project.database_url, MIGRATIONS)
        else:
            await apply_migrations(project.database_url, MIGRATIONS)
            if request.param == "view made anew":
                async with project.connect() as connection:
                    await connection.execute(b"drop view public.active_peer_mentors")
            await run_script(project.database_url, seam)
            async with project.connect() as connection:
                await connection.execute(b"drop table public.peer_mentors")
        try:
            yield await project.start()
        finally:
            await project.stop()
        check_project(project, server_log_from=written_before)


@pytest.fixture
async def their_night(adapted: Project, http: httpx.AsyncClient) -> AsyncIterator[Night]:
    async with a_night(adapted, http) as night:
        yield night


async def test_a_night_runs_on_a_schema_that_looks_nothing_like_the_sample(their_night: Night) -> None:
    require_curl()
    scenarios, engine = map(settings, blocks("dotenv"))
    assert engine.keys() == {"SCENARIO_ENGINE_URL", "SCENARIO_ENGINE_TOKEN"}
    function = await their_night.start_function(scenarios)

    # Looked at before anybody is notified, with the page's own command.
    (command,) = blocks("bash")
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", command.replace("curl ", "curl -sS ")),
        env={
            "PATH": os.environ["PATH"],
            "FUNCTION_URL": function.url,
            "ADMIN_TOKEN": their_night.project.admin_token,
        },
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert b'"dry_run":true' in output
    assert b'"no_tour_for_14_days"' in output
    assert their_night.engine.acts == {}

    tonight = (await their_night.fire(function)).json()
    assert tonight["status"] == "succeeded"
    assert await their_night.recorded_pairs(tonight["id"]) == {
        (user_id(person), scenario_type): their_night.engine.expected_outcome(user_id(person), scenario_type)
        for person, scenario_types in EXPECTED.items()
        for scenario_type in scenario_types
    }
    people = await their_night.rows(
        b"select distinct crew.person_no_of(user_id) from public.scheduler_evaluations order by 1"
    )
    assert {person for (person,) in people} <= EXPECTED.keys()
    assert people


async def test_the_view_is_open_to_nobody_else_and_the_page_says_how_to_see_that(adapted: Project) -> None:
    *_, look = blocks("sql")
    select = look.split("set local role service_role;\n")[1].split("rollback;")[0]
    async with adapted.connect() as connection:
        seam = {g for g in await grants(Session(connection)) if g.name == "public.active_peer_mentors"}
        assert {(grant.role, grant.privilege) for grant in seam} == {("service_role", "SELECT")}
        async with connection.transaction(force_rollback=True):
            await connection.execute(b"set local role service_role")
            ((mentors, segments, open_to_anon),) = await (await connection.execute(select.encode())).fetchall()
    assert (mentors, open_to_anon) == (len(EXPECTED), False)
    assert set(segments) == {"driver", "telephone", "depot:harbour", "depot:hills"}


async def test_pages_of_the_view_are_read_by_the_index_that_the_page_makes(adapted: Project) -> None:
    """A page reads as many people as it shows, not all: the view is walked in order, and not sorted."""
    async with adapted.connect() as connection:
        await connection.execute(
            b"insert into crew.people (full_name) select 'one of many' from generate_series(1, 5000)"
        )
        await connection.execute(
            b"insert into crew.duties (person_no, duty, since)"
            b" select person_no, 'driver', '2020-01-01' from crew.people where full_name = 'one of many'"
        )
        await connection.execute(b"create index on crew.duties (person_no)")
        await connection.execute(b"analyze crew.people, crew.duties, crew.leave, crew.depot_members")
        plan = await (
            await connection.execute(
                b"explain select user_id, segments from public.active_peer_mentors"
                b" where user_id >= '00000000-0000-4000-8000-000000000010' order by user_id limit 10"
            )
        ).fetchall()
    lines = "\n".join(line for (line,) in plan)
    assert "people_by_user_id" in lines
    assert not re.search(r"Sort Key: .*(user_id|lpad)", lines), lines
