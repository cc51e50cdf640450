"""docs/adapting.md, followed to the letter on a schema that looks nothing like the sample."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.emulator.migrations import apply_migrations, run_script
from tests.emulator.project import MIGRATIONS, Project, ProjectFactory
from tests.emulator.staging import ROOT
from tests.integration.database.sql_core import Session
from tests.integration.database.walk import grants
from tests.integration.manual.caller import Caller
from tests.integration.project_logs import project_without_leaks
from tests.integration.scheduled_runs.harness import Harness
from tests.integration.scheduled_runs.harness import harness as a_scheduled_run

from .conftest import EMPTY

PAGE = (ROOT / "docs" / "adapting.md").read_text(encoding="utf-8")
SQL, DOTENV = [re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for kind in ("sql", "dotenv")]
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


@pytest.mark.parametrize("first", ["view", "sample"])
async def test_a_run_works_on_a_schema_unlike_the_sample(
    projects: ProjectFactory, tmp_path: Path, http: httpx.AsyncClient, first: str
) -> None:
    tables, view, _ = SQL
    theirs, seam = tmp_path / "theirs.sql", tmp_path / "view.sql"
    theirs.write_text(tables + THEIR_ROWS + (THEIR_PEER_MENTORS if first == "view" else ""))
    # The file runs in a transaction already.
    seam.write_text(view.replace("begin;\n", "", 1).replace("commit;\n", "", 1))
    async with project_without_leaks(projects, EMPTY) as project:
        await run_script(project.database_url, theirs)
        if first == "view":
            await run_script(project.database_url, seam)
        await apply_migrations(project.database_url, MIGRATIONS)
        async with project.connect() as connection:
            if first == "sample":
                await run_script(project.database_url, seam)
                await connection.execute(b"drop table public.peer_mentors")
            await connection.execute(b"notify pgrst, 'reload schema'")
        async with a_scheduled_run(project, http) as harness:
            await dry_and_real_run(harness)
        await check_view(project)


async def dry_and_real_run(harness: Harness) -> None:
    scenarios, engine = [dict(line.split("=", 1) for line in block.splitlines()) for block in DOTENV]
    assert engine.keys() == {"SCENARIO_ENGINE_URL", "SCENARIO_ENGINE_TOKEN"}
    function = await harness.start_function(scenarios)
    assert (await Caller(harness, function).run({"dry_run": True}))["counts"]["mentors"] == len(EXPECTED)
    assert harness.engine.acts == {}

    run = await harness.run(function)
    assert run["status"] == "success"
    expected = [(f"00000000-0000-4000-8000-{no:012x}", kind) for no, kinds in EXPECTED.items() for kind in kinds]
    assert await harness.recorded_pairs(run["id"]) == {
        pair: harness.engine.expected_outcome(*pair) for pair in expected
    }
    people = await harness.rows(b"select distinct crew.person_no_of(user_id) from public.scheduler_evaluations")
    assert people
    assert {person for (person,) in people} <= EXPECTED.keys()


async def check_view(project: Project) -> None:
    """Only the function reads it, as the page says how to see."""
    select = SQL[2].split("set local role service_role;\n")[1].split("rollback;")[0]
    async with project.connect() as connection:
        seam = {grant for grant in await grants(Session(connection)) if grant.name == "public.active_peer_mentors"}
        assert {(grant.role, grant.privilege) for grant in seam} == {("service_role", "SELECT")}
        async with connection.transaction(force_rollback=True):
            await connection.execute(b"set local role service_role")
            ((mentors, segments, open_to_anon),) = await (await connection.execute(select.encode())).fetchall()
        assert (mentors, open_to_anon) == (len(EXPECTED), False)
        assert set(segments) == {"driver", "telephone", "depot:harbour", "depot:hills"}
