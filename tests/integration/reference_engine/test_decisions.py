"""Which mentors the reference engine notifies: by the documented rules, once for a key, milestone and cool-down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from tests.emulator.connections import Connection, connect
from tests.emulator.migrations import run_script
from tests.emulator.project import SEED, ProjectFactory

INACTIVITY, MILESTONE, CERTIFICATION = TYPES = "inactivity", "milestone", "certification_expiry"
SILENT = {"last_contact_at": "now() - interval '31 days'"}
CERTIFIED = {"certification_expires_at": "now() + interval '29 days 23 hours'"}
ESTABLISHED = {
    "joined_at": "now() - interval '300 days'",
    "onboarding_completed_at": "now() - interval '290 days'",
    "last_contact_at": "now() - interval '1 day'",
    "contacts_logged": "12",
}


@pytest.fixture(scope="module")
async def database(projects: ProjectFactory) -> AsyncIterator[Connection]:
    """One for all tests: each makes mentors of its own."""
    async with projects.database() as name, connect(projects.server.url(name)) as database:
        yield database


async def mentor(database: Connection, columns: dict[str, str]) -> str:
    """A new mentor with these columns, each an SQL expression."""
    user_id = str(uuid4())
    row = {"user_id": f"'{user_id}'"} | ESTABLISHED | columns
    statement = f"insert into public.peer_mentors ({', '.join(row)}) values ({', '.join(row.values())})"
    await database.execute(statement.encode())
    return user_id


async def outcome(database: Connection, user_id: str, scenario_type: str, key: str = "slot:a") -> str:
    query = b"select public.evaluate_scenarios(array[%s]::uuid[], array[%s], array[%s]) -> 0 ->> 'outcome'"
    row = await (await database.execute(query, (user_id, scenario_type, f"{key}:{user_id}:{scenario_type}"))).fetchone()
    return str(row and row[0])


@pytest.mark.parametrize(
    ("scenario_type", "columns", "is_due"),
    [
        (INACTIVITY, {"last_contact_at": "now() - interval '30 days 1 minute'"}, True),
        (INACTIVITY, {"last_contact_at": "now() - interval '29 days 23 hours'"}, False),
        (INACTIVITY, {"last_contact_at": "null"}, True),
        (INACTIVITY, {"last_contact_at": "null", "joined_at": "now() - interval '29 days'"}, False),
        (INACTIVITY, {"last_contact_at": "null", "onboarding_completed_at": "null"}, False),
        (INACTIVITY, SILENT | {"status": "'left'"}, False),
        (INACTIVITY, SILENT | {"status": "'paused'", "paused_until": "now() + interval '1 minute'"}, False),
        (INACTIVITY, SILENT | {"status": "'paused'", "paused_until": "now() - interval '1 minute'"}, True),
        *((MILESTONE, {"contacts_logged": contacts}, True) for contacts in ("1", "10", "250", "500", "7000")),
        *((MILESTONE, {"contacts_logged": contacts}, False) for contacts in ("0", "11", "750", "1001")),
        (CERTIFICATION, CERTIFIED, True),
        (CERTIFICATION, CERTIFIED | {"status": "'left'"}, False),
        (CERTIFICATION, {"certification_expires_at": "now() + interval '30 days 1 minute'"}, False),
        (CERTIFICATION, {"certification_expires_at": "now() - interval '1 minute'"}, False),
        (CERTIFICATION, {"certification_expires_at": "null"}, False),
    ],
)
async def test_a_scenario_is_due_on_one_side_of_its_border(
    database: Connection, scenario_type: str, columns: dict[str, str], is_due: bool
) -> None:
    user_id = await mentor(database, columns)
    assert await outcome(database, user_id, scenario_type) == ("triggered" if is_due else "not_triggered")


async def test_cool_downs_last_by_type_and_milestones_a_year(database: Connection) -> None:
    user_id = await mentor(database, SILENT | {"certification_expires_at": "now() + interval '1 day'"})

    async def outcomes(hours: int, key: str, contacts: int = 10, years: int = 0) -> list[str]:
        let_pass = b"update public.engagement_notifications set created_at = created_at - make_interval(hours => %s),"
        await database.execute(let_pass + b" milestone_year = milestone_year - %s", (hours, years))
        await database.execute(b"update public.peer_mentors set contacts_logged = %s", (contacts,))
        return [await outcome(database, user_id, scenario_type, key) for scenario_type in TYPES]

    triggered, suppressed = ["triggered"] * 3, ["suppressed"] * 3
    assert await outcomes(0, "slot:a") == triggered
    assert await outcomes(167, "slot:a") == triggered
    assert await outcomes(0, "slot:b") == suppressed
    # the key is forgotten after a week
    assert await outcomes(2, "slot:a") == ["triggered", "suppressed", "suppressed"]
    assert await outcomes(166, "slot:c") == suppressed
    assert await outcomes(2, "slot:c") == ["triggered", "suppressed", "triggered"]
    assert await outcomes(0, "slot:d", years=1) == ["suppressed", "triggered", "suppressed"]
    assert await outcomes(23, "slot:e", contacts=25) == suppressed
    assert await outcomes(2, "slot:e", contacts=25) == ["suppressed", "triggered", "suppressed"]


async def test_of_simultaneous_calls_under_different_keys_one_notifies(
    projects: ProjectFactory, database: Connection
) -> None:
    user_id = await mentor(database, SILENT)

    async def once(key: str) -> str:
        async with connect(projects.server.url(database.info.dbname)) as own:
            return await outcome(own, user_id, INACTIVITY, key)

    assert sorted(await asyncio.gather(*(once(f"manual:{n}") for n in range(8)))) == ["suppressed"] * 7 + ["triggered"]


async def test_the_seed_plants_the_same_mentors_and_adds_the_missing(projects: ProjectFactory) -> None:
    planted = b"select user_id, status, segments, contacts_logged from public.peer_mentors order by 1"
    due = (
        b"select distinct kind from public.peer_mentors as m, unnest(%s::text[]) as kind where scenario_is_due(m, kind)"
    )
    async with projects.database() as name, connect(projects.server.url(name)) as database:
        await run_script(projects.server.url(name), SEED)
        first = await (await database.execute(planted)).fetchall()
        await database.execute(b"delete from public.peer_mentors where contacts_logged > 100")
        await run_script(projects.server.url(name), SEED, {"seed.mentors": "500"})
        assert await (await database.execute(planted)).fetchall() == first
        assert len(await (await database.execute(due, (list(TYPES),))).fetchall()) == len(TYPES)
    assert len(first) == 500
