"""The seed plants a programme that looks real, the same one everywhere; the view shows who is active."""

from __future__ import annotations

from typing import Any, LiteralString

from tests.emulator.connections import Connection, connect
from tests.emulator.migrations import run_script
from tests.emulator.project import SEED, Project, ProjectFactory

from .programme import ESTABLISHED, Programme

WITHOUT_TIMES: LiteralString = "select user_id, status, segments, contacts_logged from public.peer_mentors order by 1"


async def rows(database: Connection, query: LiteralString) -> list[tuple[Any, ...]]:
    return await (await database.execute(query)).fetchall()


async def number(database: Connection, query: LiteralString) -> Any:
    return (await rows(database, query))[0][0]


async def test_plants_500_mentors_unless_told_otherwise_and_the_same_everywhere(
    projects: ProjectFactory,
) -> None:
    planted = []
    for settings in ({}, {"seed.mentors": ""}, {"seed.mentors": "500"}):
        async with projects.database() as name, connect(projects.server.url(name)) as database:
            await run_script(projects.server.url(name), SEED, settings)
            planted.append(await rows(database, WITHOUT_TIMES))
    assert planted[0] == planted[1] == planted[2]
    assert len(planted[0]) == 500


async def test_planting_again_changes_nobody_and_a_larger_number_adds_the_missing(
    projects: ProjectFactory,
) -> None:
    async with projects.database() as name, connect(projects.server.url(name)) as database:
        url = projects.server.url(name)
        await run_script(url, SEED, {"seed.mentors": "100"})
        before = await rows(database, "select * from public.peer_mentors order by user_id")
        await run_script(url, SEED, {"seed.mentors": "150"})
        after = await rows(database, "select * from public.peer_mentors order by user_id")
        assert len(after) == 150
        assert set(map(str, before)) <= set(map(str, after))


async def test_the_planted_programme_has_the_shares_of_a_real_one(projects: ProjectFactory) -> None:
    async with projects.database() as name, connect(projects.server.url(name)) as database:
        await run_script(projects.server.url(name), SEED, {"seed.mentors": "20000"})

        async def share(condition: LiteralString, among: LiteralString = "true") -> float:
            query: LiteralString = "select avg((" + condition + ")::int) from public.peer_mentors where " + among
            return float(await number(database, query))

        assert 0.84 < await share("status = 'active'") < 0.86
        assert 0.09 < await share("status = 'paused'") < 0.11
        assert 0.04 < await share("status = 'left'") < 0.06
        assert 0.11 < await share("onboarding_completed_at is null") < 0.13
        late: LiteralString = "joined_at < now() - interval '14 days'"
        assert 0.45 < await share(late, "onboarding_completed_at is null") < 0.58
        silent: LiteralString = "coalesce(last_contact_at, joined_at) < now() - interval '30 days'"
        assert 0.15 < await share(silent, "onboarding_completed_at is not null") < 0.20
        milestones: LiteralString = "contacts_logged in (1, 10, 25, 50, 100, 250)"
        assert 0.05 < await share(milestones, "onboarding_completed_at is not null") < 0.15
        assert 0.1 < await share("coalesce(paused_until <= now(), false)", "status = 'paused'") < 0.4
        impossible: LiteralString = (
            "last_contact_at not between joined_at and now() or onboarding_completed_at not between joined_at and now()"
        )
        assert await number(database, "select count(*) from public.peer_mentors where " + impossible) == 0


async def test_pages_of_active_mentors_are_read_from_the_index_of_those_present(
    projects: ProjectFactory,
) -> None:
    async with projects.database() as name, connect(projects.server.url(name)) as database:
        await run_script(projects.server.url(name), SEED, {"seed.mentors": "20000"})
        plan = await rows(
            database,
            "explain select user_id, segments from public.active_peer_mentors"
            " where user_id > '80000000-0000-0000-0000-000000000000' order by user_id limit 1000",
        )
        assert "Index Scan using peer_mentors_present_by_user_id" in str(plan)
        assert "Sort" not in str(plan)
        indexed = await number(
            database, "select reltuples::int from pg_class where relname = 'peer_mentors_present_by_user_id'"
        )
        assert indexed == await number(database, "select count(*) from public.peer_mentors where status <> 'left'")


async def shown(project: Project, programme: Programme, columns: dict[str, LiteralString]) -> list[str] | None:
    """What the view shows of such a mentor."""
    user_id = await programme.mentor(columns)
    async with project.connect() as database:
        cursor = await database.execute(
            b"select segments from public.active_peer_mentors where user_id = %s", (user_id,)
        )
        found = await cursor.fetchone()
    return None if found is None else list(found[0])


async def test_the_view_shows_the_active_and_those_whose_pause_has_run_out(
    engine_project: Project, programme: Programme
) -> None:
    paused: dict[str, LiteralString] = ESTABLISHED | {"status": "'paused'"}
    assert await shown(engine_project, programme, ESTABLISHED) is not None
    assert await shown(engine_project, programme, paused | {"paused_until": "now()"}) is not None
    assert await shown(engine_project, programme, paused | {"paused_until": "now() + interval '1 hour'"}) is None
    assert await shown(engine_project, programme, paused) is None
    assert await shown(engine_project, programme, ESTABLISHED | {"status": "'left'"}) is None


async def test_the_view_derives_the_stage_and_keeps_the_programmes_own_segments(
    engine_project: Project, programme: Programme
) -> None:
    own: dict[str, LiteralString] = {"segments": "'{region:north,weekend}'"}
    assert await shown(engine_project, programme, own) == ["onboarding", "region:north", "weekend"]
    assert await shown(engine_project, programme, ESTABLISHED | own) == ["established", "region:north", "weekend"]
    assert await shown(engine_project, programme, ESTABLISHED) == ["established"]


async def test_the_view_has_two_columns(engine_project: Project) -> None:
    async with engine_project.connect() as database:
        columns = await rows(
            database,
            "select attname, format_type(atttypid, atttypmod) from pg_attribute"
            " where attrelid = 'public.active_peer_mentors'::regclass and attnum > 0 order by attnum",
        )
    assert columns == [("user_id", "uuid"), ("segments", "text[]")]
