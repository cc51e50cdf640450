"""scheduler.forget_user: one person's id is replaced everywhere, and nothing else is changed."""

from __future__ import annotations

import asyncio
import json
import os
import re
from random import Random
from uuid import UUID

import psycopg
import pytest

from tests.emulator.postgres import PostgresBinaries
from tests.emulator.project import ProjectFactory
from tests.emulator.staging import ROOT

from .requests import Unfinished, all_unfinished, ask, listed, opened, refusal
from .sql_core import Json, Pairs, Session, SqlCore, Worker, assert_counts_add_up, mentor, pairs, pairs_of

TYPES = ("milestone", "contact_lapsed")
ROOM = 1 << 40
BUDGET_SECONDS = 25
COUNTS = ("scheduler_invocations", "scheduler_invocation_batches", "scheduler_evaluations")
ID = r"[0-9a-fA-F-]{36}"
ANYWHERE = """
select format('select %L from %s as t where t::text ~* $1', c.oid::regclass, c.oid::regclass)
  from pg_class as c
 where c.relkind = 'r' and c.relnamespace::regnamespace::text in ('public', 'scheduler', 'pgmq', 'net', 'cron', 'vault')
"""


def apart(number: int) -> int:
    """A mentor's number, with letters in the id."""
    return number * ROOM + 0xABC


def person(number: int) -> str:
    """A user id; ids sort as their numbers do, and there is room between two."""
    return mentor(apart(number))


def pairs_apart(*numbers: int) -> Pairs:
    return pairs(map(apart, numbers), TYPES)


async def forget(core: SqlCore, number: int, session: Session | None = None) -> tuple[int, ...]:
    """Return how many rows were changed, in the order of COUNTS."""
    session = session or await core.session_under_safeupdate()
    changed = await session.value("select scheduler.forget_user(%s)", person(number))
    assert set(changed) == {*COUNTS, "scheduler_audit"}
    return tuple(changed[name] for name in COUNTS)


async def found_in(core: SqlCore, user_id: str) -> set[str]:
    """Return the tables of the database that hold an id anywhere, as whatever text."""
    found: set[str] = set()
    for query in await core.owner.column(ANYWHERE):
        found.update(await core.owner.column(query.replace("$1", "%s"), user_id))
    return found


async def is_long_over(core: SqlCore, run: str) -> None:
    await core.change(run, "finished_at = now() - interval '1 hour'")


async def cancelled(core: SqlCore, worker: Worker, run: str) -> str:
    assert await worker.cancel(run)
    await is_long_over(core, run)
    return run


async def ids_of(core: SqlCore, run: str) -> list[str]:
    """Return the users of a run, in the order of its batches and their pairs."""
    frozen = await core.owner.column(
        "select pairs from public.scheduler_invocation_batches where invocation_id = %s order by batch_no", run
    )
    return [user_id for group in frozen for user_id, scenario_type in pairs_of(group) if scenario_type == TYPES[0]]


async def everything_as_text(core: SqlCore) -> str:
    """Return all that is kept of runs, but what goes with a person's id."""
    return json.dumps(
        [
            await core.owner.column(
                "select to_jsonb(i) - 'request_hash' from public.scheduler_invocations as i order by i.id"
            ),
            await core.owner.column(
                "select to_jsonb(b) from public.scheduler_invocation_batches as b order by invocation_id, batch_no"
            ),
            await core.owner.column(
                "select to_jsonb(e) - 'error_code' - 'error_message' - 'notification_id'"
                " from public.scheduler_evaluations as e order by invocation_id, user_id, scenario_type"
            ),
            await core.messages(),
        ],
        default=str,
    )


async def a_run_with_every_place(core: SqlCore, worker: Worker) -> str:
    """A cancelled run: persons 1 to 3 were enumerated together and cut apart, 4 alone, 5 to 7 not evaluated."""
    run = await core.open_manual_run(worker, [pairs_apart(1, 2, 3), pairs_apart(4), pairs_apart(5, 6, 7)])
    outcomes = {person(1): "triggered", person(2): "failed", person(3): "suppressed", person(4): "skipped"}
    together, alone, _ = (await worker.claim(3))["batches"]
    assert await worker.complete(together, outcomes=outcomes, remaining=[person(3)]) == "done"
    assert await worker.complete(alone, outcomes=outcomes) == "done"
    assert await worker.complete(await worker.claim_one(), outcomes=outcomes) == "done"
    await core.owner.run(
        "update public.scheduler_evaluations set notification_id = 'of ' || user_id where outcome = 'triggered'"
    )
    return await cancelled(core, worker, run)


async def test_an_id_is_replaced_in_every_place_and_nothing_else_is_changed(core: SqlCore, worker: Worker) -> None:
    """Of all in a run, one after the other: the first and the last of a range too, and one who is alone in it."""
    run = await a_run_with_every_place(core, worker)
    rows = {1: 2, 2: 2, 3: 2, 4: 2}
    for number in (1, 3, 4, 2, 7, 5, 6):
        before, described = await everything_as_text(core), await core.describe(run)
        (history,) = (await listed(worker, user_id=person(number)))["items"]
        left, place = await all_unfinished(worker, run), (await ids_of(core, run)).index(person(number))

        batches = 2 if number in (1, 3) else 1
        assert await forget(core, number) == (0, batches, rows.get(number, 0))

        assert await found_in(core, person(number)) == set()
        replacement = (await ids_of(core, run))[place]
        assert await everything_as_text(core) == before.replace(person(number), replacement)
        afterwards = await core.describe(run)
        assert_counts_add_up(afterwards)
        assert {**afterwards, "failures": None} == {**described, "failures": None}
        assert [cause["count"] for cause in afterwards["failures"]] == [len(TYPES)]
        assert (await listed(worker, user_id=person(number)))["items"] == []
        (renamed,) = (await listed(worker, user_id=replacement))["items"]
        assert [(r["scenario_type"], r["outcome"]) for r in renamed["results"]] == [
            (r["scenario_type"], r["outcome"]) for r in history["results"]
        ]
        # No retry evaluates the replacement: it is not active.
        expected = [Unfinished(u.user_id.replace(person(number), replacement), u.scenario_type, False) for u in left]
        assert await all_unfinished(worker, run) == expected
    users = await ids_of(core, run)
    assert [sorted(users).index(user_id) + 1 for user_id in users] == [1, 2, 4, 5, 6, 7, 3]
    assert await forget(core, 1) == (0, 0, 0)


async def test_what_the_engine_said_of_a_person_goes(core: SqlCore, worker: Worker) -> None:
    """In another's message only the id: they may have shared a call. A replaced person is no canary."""
    await a_run_with_every_place(core, worker)
    await core.owner.run(
        "update public.scheduler_evaluations set error_message = 'unlike ' || upper(%s) where user_id = %s",
        *(person(1), person(2)),
    )
    canary = "select scheduler.canary() ->> 'user_id'"
    assert await core.owner.value(canary) == person(1)
    await forget(core, 1)
    assert await core.owner.value(canary) == person(3)
    await forget(core, 3)
    assert await core.owner.value(canary) is None
    results = (
        "select user_id::text, error_code, error_message, notification_id from public.scheduler_evaluations"
        " order by user_id, scenario_type"
    )
    replaced, _, other, *_ = await core.owner.rows(results)
    assert replaced[1:] == ("forgotten", None, None)
    assert other == (person(2), "engine_error", f"unlike {replaced[0]}", None)
    assert await found_in(core, person(1)) == set()
    await forget(core, 2)
    assert (await core.owner.rows(results))[2][1:] == ("engine_error", None, None)


async def test_a_run_and_its_retries_get_one_id_and_other_runs_others(core: SqlCore, worker: Worker) -> None:
    """Positions in a retry are places among its source's ids; a deleted run still has its rows."""
    source = await core.open_manual_run(worker, [pairs_apart(1, 2, 3)], following=person(3), done=False)
    await cancelled(core, worker, source)
    retry = await opened(worker, retry_of=source)
    assert await worker.enqueue(retry, [pairs_apart(1, 2, 3)], following=person(3))
    await cancelled(core, worker, retry)
    second = await opened(worker, retry_of=retry)
    assert await worker.enqueue(second, [pairs_apart(1, 2, 3)], following=f"remaining:remaining:{person(3)}")
    await cancelled(core, worker, second)
    other = await core.open_manual_run(worker, [pairs_apart(2, 3, 4)])
    await cancelled(core, worker, other)
    await worker.delete(other)

    assert await forget(core, 3) == (3, 4, 0)
    assert await found_in(core, person(3)) == set()
    replaced = [(await ids_of(core, run))[-1] for run in (source, retry, second)]
    assert len({*replaced, (await ids_of(core, other))[1]}) == 2
    positions = (
        "select enumeration_cursor from public.scheduler_invocations where id = any(%s::uuid[]) order by invoked_at"
    )
    assert await core.owner.column(positions, [source, retry, second]) == [
        replaced[0],
        replaced[0],
        f"remaining:remaining:{replaced[0]}",
    ]


async def test_what_a_run_was_requested_with_is_replaced(core: SqlCore, worker: Worker) -> None:
    """The key of such a request stands for another one from then on: its digest is gone."""
    request = {"user_ids": [person(number) for number in (1, 2, 3)], "scenario_types": None}
    texts = {"reason": f"for {person(2).upper()}", "note": f"{person(2)}!", "requested_by": person(2)}
    texts["triggered_by"] = person(2)  # signed in with Supabase Auth
    run = await opened(worker, key="once", request=request, **texts)
    await cancelled(core, worker, run)
    for note in (f"by {person(2)}", texts["note"]):
        await worker.update(run, set_note=True, note=note, actor=person(2))
    entries = "select actor, concat_ws(' ', before, after) from public.scheduler_audit where actor <> 'admin'"
    noted = await core.owner.rows(entries)
    named = await opened(worker, key=f"again {person(2)}", request={"user_ids": None, "scenario_types": None})
    await cancelled(core, worker, named)
    assert await forget(core, 2) == (2, 0, 0)
    assert await found_in(core, person(2)) == set()
    (row,) = await core.owner.rows(
        "select request -> 'user_ids', reason, note, requested_by, triggered_by from public.scheduler_invocations"
        " where id = %s",
        run,
    )
    user_ids, replacement = row[0], row[0][1]
    assert user_ids == [person(1), replacement, person(3)] == sorted(user_ids)
    assert row[1:] == (f"for {replacement}", f"{replacement}!", replacement, replacement)
    assert await refusal(worker, key="once", request=request, **texts) == "other_request"
    replaced = await core.owner.rows(entries)
    assert len({actor for actor, *_ in replaced}) == 1
    assert [[re.sub(ID, "ID", text) for text in row] for row in replaced] == [
        [re.sub(ID, "ID", text) for text in row] for row in noted
    ]


# What stands in the way

ALL: Json = {"user_ids": None}


@pytest.mark.parametrize(
    ("request_of", "numbers", "cursor", "done", "refused"),
    [
        (ALL, [3], None, True, True),
        (ALL, [4], None, True, False),
        (ALL, [], None, False, True),
        (ALL, [1], person(2), False, True),
        (ALL, [1], person(3), False, True),
        (ALL, [1], person(4), False, False),
        (ALL, [], f"remaining:{person(2)}", False, True),
        (ALL, [], f"remaining:{person(4)}", False, False),
        ({"user_ids": [person(2), person(3)]}, [], None, False, True),
        ({"user_ids": [person(2), person(4)]}, [], None, False, False),
    ],
)
async def test_an_open_run_that_may_hold_the_person_refuses(
    core: SqlCore, worker: Worker, request_of: Json, numbers: list[int], cursor: str | None, done: bool, refused: bool
) -> None:
    ended = await core.open_manual_run(worker, [pairs_apart(3)])
    await cancelled(core, worker, ended)
    run = await core.open_run(worker, [pairs_apart(number) for number in numbers], following=cursor, done=done)
    await core.owner.run(
        "update public.scheduler_invocations set request = %s::jsonb where id = %s", json.dumps(request_of), run
    )
    before = await everything_as_text(core)
    if refused:
        with pytest.raises(psycopg.errors.ObjectInUse, match=f"found 1, the first of them {run}"):
            await forget(core, 3)
        assert await everything_as_text(core) == before
        await cancelled(core, worker, run)
    assert (await forget(core, 3))[1] == 1 + numbers.count(3)
    assert await found_in(core, person(3)) == set()


async def test_a_run_that_ended_early_refuses_until_no_worker_records(core: SqlCore, worker: Worker) -> None:
    run = await core.open_manual_run(worker, [pairs_apart(1), pairs_apart(2)])
    first = await worker.claim_one()
    await worker.cancel(run)
    await core.change(run, f"finished_at = clock_timestamp() - interval '{BUDGET_SECONDS} seconds'")
    with pytest.raises(psycopg.errors.ObjectInUse, match=f"within the last {BUDGET_SECONDS + 10} seconds"):
        await forget(core, 1)
    assert await worker.complete(first) == "done"
    await core.change(run, f"finished_at = clock_timestamp() - interval '{BUDGET_SECONDS + 10} seconds'")
    assert await forget(core, 1) == (0, 1, 2)


async def test_an_active_mentor_is_not_forgotten(core: SqlCore, worker: Worker) -> None:
    run = await core.open_manual_run(worker, [pairs_apart(1)])
    await cancelled(core, worker, run)
    await core.owner.run("insert into public.peer_mentors (user_id) values (%s)", person(1))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="person is still in public"):
        await forget(core, 1)
    await core.owner.run("update public.peer_mentors set status = 'left' where user_id = %s", person(1))
    assert await forget(core, 1) == (0, 1, 0)


@pytest.mark.parametrize("beside", ["in the run", "among the mentors"])
async def test_consecutive_ids_leave_no_room(core: SqlCore, worker: Worker, beside: str) -> None:
    """What is between two such ids is another person's, and its place says whose it was."""
    spare = await core.open_manual_run(worker, [pairs_apart(1)])
    await cancelled(core, worker, spare)
    neighbours = [apart(1) - 1, apart(1) + 1]
    run = await core.open_manual_run(
        worker, [pairs([apart(1), *(neighbours if beside == "in the run" else [])], TYPES)]
    )
    if beside == "among the mentors":
        await core.owner.run(
            "insert into public.peer_mentors (user_id) select unnest(%s::uuid[])", [mentor(n) for n in neighbours]
        )
    await cancelled(core, worker, run)
    before = await everything_as_text(core)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="leave no room for another"):
        await forget(core, 1)
    assert await everything_as_text(core) == before


async def test_without_room_before_an_id_its_replacement_comes_after(core: SqlCore, worker: Worker) -> None:
    following = apart(1) + (1 << 33)
    run = await core.open_manual_run(worker, [pairs([apart(1) - 1, apart(1)], TYPES), pairs([following], TYPES)])
    await cancelled(core, worker, run)
    assert await forget(core, 1) == (0, 1, 0)
    _, replacement, _ = await ids_of(core, run)
    assert person(1) < replacement < mentor(following)


async def test_an_id_between_is_random_and_between(core: SqlCore) -> None:
    """Of any two ids with room for 2^32 between them, and of no others."""
    random = Random(25)
    needed = 1 << 32
    bounds = [(0, 1), (0, needed), (0, needed + 1), ((1 << 128) - needed - 2, (1 << 128) - 1)]
    for _ in range(300):
        room = needed + random.randrange(-2, 3) if random.random() < 0.3 else random.getrandbits(random.randint(1, 127))
        after = random.getrandbits(random.randint(1, 128)) % ((1 << 128) - room - 1)
        bounds.append((after, after + room + 1))
    found = await core.owner.rows(
        "select scheduler.id_between(after, before), scheduler.id_between(after, before)"
        " from unnest(%s::uuid[], %s::uuid[]) with ordinality as bounds (after, before, n) order by n",
        *([UUID(int=bound) for bound in ends] for ends in zip(*bounds, strict=True)),
    )
    for (after, before), (one, another) in zip(bounds, found, strict=True):
        if before - after - 1 < needed:
            assert one is another is None
        else:
            assert after < one.int < before
            assert after < another.int < before
            assert one != another
    assert await core.owner.value("select scheduler.id_between(null, null) is not null")


# Beside others


async def test_a_retry_being_opened_is_seen(core: SqlCore, worker: Worker) -> None:
    source = await core.open_manual_run(worker, [pairs_apart(1)])
    await cancelled(core, worker, source)
    forgetter = await core.session()

    async def refused() -> str:
        with pytest.raises(psycopg.errors.ObjectInUse) as error:
            await forget(core, 1, forgetter)
        return str(error.value)

    retry, said = await core.race(worker, opened(worker, retry_of=source), forgetter, refused())
    assert retry in said


async def test_a_retry_waits_until_the_person_is_forgotten(core: SqlCore) -> None:
    """What is open meanwhile goes on: batches are claimed and recorded."""
    worker, opener = await core.workers(2)
    forgetter = await core.session()
    source = await core.open_manual_run(worker, [pairs_apart(1)])
    await cancelled(core, worker, source)
    await core.open_manual_run(worker, [pairs_apart(2)])
    await worker.run("set lock_timeout = '10s'")
    async with forgetter.transaction():
        assert await forget(core, 1, forgetter) == (0, 1, 0)
        assert await worker.complete(await worker.claim_one()) == "done"
        asking = asyncio.create_task(ask(opener, retry_of=source))
        await core.until_waiting_for_a_lock(opener, or_done=asking)
        assert not asking.done()
    assert (await asking)["outcome"] == "opened"
    assert person(1) not in {pair.user_id for pair in await all_unfinished(worker, source)}


async def test_forgetting_beside_pruning_cannot_deadlock(core: SqlCore, worker: Worker) -> None:
    """The index has a person's rows in another order than the table, in which they are deleted."""
    forgetter, pruner, gate = await core.session(), await core.session(), await core.session()
    run = await core.open_manual_run(worker, [pairs_apart(1, 2)])
    await worker.complete(await worker.claim_one())
    await worker.finish(run)
    await worker.delete(run)
    await core.owner.run(
        "create function public.stop() returns trigger language plpgsql as"
        " 'begin perform pg_advisory_xact_lock(1); return new; end';"
        "create trigger stop before update on public.scheduler_evaluations for each row execute function public.stop()"
    )
    first = "select from public.scheduler_evaluations where scenario_type = %s and user_id = %s for update"
    async with gate.transaction():
        await gate.run("select pg_advisory_xact_lock(1)")
        async with core.owner.transaction():
            await core.owner.run(first, TYPES[0], person(1))
            pruning = asyncio.create_task(pruner.run("call scheduler.prune()"))
            await core.until_waiting_for_a_lock(pruner)
            forgetting = asyncio.create_task(forget(core, 2, forgetter))
            await core.until_waiting_for_a_lock(forgetter)
        await core.until_waiting_for_a_lock(pruner)
    assert await forgetting == (0, 1, 2)
    await pruning
    assert await found_in(core, run) == {"scheduler_audit"}, "an entry outlives its run"


# The document


async def test_the_documents_commands_forget_a_person(projects: ProjectFactory) -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"## Erasing a person\n.*?^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    async with projects.database() as name, SqlCore(projects.server.url(name)) as core:
        worker = await core.worker()
        await a_run_with_every_place(core, worker)
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", commands),
            env={
                "PATH": f"{PostgresBinaries.find().bin}:{os.environ['PATH']}",
                "DATABASE_URL": projects.server.url(name),
                "MENTOR": person(2),
            },
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await process.communicate())[0].decode()
        assert process.returncode == 0, said
        assert '"scheduler_evaluations": 2' in said
        assert await found_in(core, person(2)) == set()
