"""public.scheduler_audit: who did what, however it was done, and nothing that the scheduler does by itself."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable
from typing import Any

from functions.http.schemas import AuditQuery
from shared.database import MAX_ANSWER_BYTES

from .requests import ask, opened
from .sql_core import SCENARIO, Json, SqlCore, Worker, mentor, pairs

RUNS, CONFIG = "public.scheduler_invocations", "public.scenario_evaluation_config"
NOTHING: list[Any] = []
# The actor of what is done in SQL.
OWNER = "postgres"
TIME = "a time"
CHOSEN = {"user_ids": [mentor(1), mentor(2)], "scenario_types": [SCENARIO], "include_unknown": False}


def changed(before: Json | None, after: Json | None, actor: str, action: str, of: str | None = None) -> tuple[Any, ...]:
    """An entry; `of`: the run or the scenario type."""
    return actor, action, of, before, after


def timeless(members: Json | None) -> Json | None:
    """Replaces times, which a test cannot know."""
    is_time = re.compile(r"\d{4}-\d\d-\d\dT.*").fullmatch
    return members and {k: TIME if isinstance(v, str) and is_time(v) else v for k, v in members.items()}


async def page(worker: Worker, *, limit: int = 1000, **given: Any) -> list[Json]:
    filters: Json = dict.fromkeys(("invocation_id", "actor", "action", "after_at", "after_id"))
    entries: list[Json] = await worker.call("audit_page", **filters | given, limit=limit)
    return entries


async def pause(core: SqlCore, columns: str, actor: str = "") -> None:
    """Changes the settings, by default as in Studio."""
    async with core.owner.transaction():
        await core.owner.run("select set_config('scheduler.actor', %s, true)", actor)
        await core.change_settings(columns)


async def evaluate(core: SqlCore, worker: Worker) -> str:
    """A scheduled run, from its slot to its end."""
    run = (await worker.open_slot(*await core.slots()))["invocation"]["id"]
    assert await worker.enqueue(run, [pairs([1])], done=True)
    await worker.complete(await worker.claim_one(), "failed")
    await worker.end_slice(progressed=True, engine_error="engine_rejected", engine_message="no")
    assert (await worker.finish(run))["ended_now"]
    return str(run)


async def test_the_audit_of_one_day(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    await core.owner.run(f"grant select, insert on {CONFIG} to service_role")
    seen = 0

    async def check(step: Awaitable[Any], *expected: tuple[Any, ...]) -> Any:
        nonlocal seen
        result = await step
        entries = list(reversed(await page(worker)))[seen:]
        found = [
            (
                e["actor"],
                e["action"],
                e["invocation_id"] or e["scenario_type"],
                timeless(e["before"]),
                timeless(e["after"]),
            )
            for e in entries
        ]
        assert found == list(expected)
        seen += len(found)
        return result

    async def studio(sql: str, *expected: tuple[Any, ...]) -> None:
        await check(core.owner.run(sql), *expected)

    # A person opens runs and ends them.
    scheduled = await check(evaluate(core, worker))
    run = "00000000-0000-4000-8000-0000000000aa"
    request: Json = {"invocation_id": run, "triggered_by": "anna", "request": CHOSEN, "key": "k"}
    request |= {"note": "n", "reason": "why"}
    is_asked = {"dry_run": False, "reason": "why", "note": "n", "scenario_types": [SCENARIO], "users": 2}
    await check(ask(worker, **request), changed(None, is_asked, "anna", "run", run))
    await check(ask(worker, **request))
    await check(worker.enqueue(run, [pairs([1])], done=True))
    cancel = {"status": "cancelled", "set_note": True, "note": "wrong day", "actor": "berit"}
    await check(
        worker.update(run, **cancel),
        changed({"status": "running"}, {"status": "cancelled"}, "berit", "cancel", run),
        changed({"note": "n"}, {"note": "wrong day"}, "berit", "note", run),
    )
    await check(worker.update(run, **cancel))
    retry = "00000000-0000-4000-8000-0000000000bb"
    await check(
        ask(worker, invocation_id=retry, triggered_by="anna", retry_of=run, dry_run=True),
        changed(None, {"dry_run": True, "retry_of": run}, "anna", "retry", retry),
    )
    await check(
        worker.update(retry, status="failed", error_message="broken", actor="carl"),
        changed(
            {"status": "pending", "error_message": None},
            {"status": "failed", "error_message": "broken"},
            "carl",
            "fail",
            retry,
        ),
    )
    await check(
        worker.delete(retry, actor="anna"), changed({"deleted_at": None}, {"deleted_at": TIME}, "anna", "delete", retry)
    )
    overdue = await opened(worker)
    seen += 1
    await check(core.expire(overdue))

    # The same in Studio.
    await studio(
        f"update {RUNS} set deleted_at = null where deleted_at is not null",
        changed({"deleted_at": TIME}, {"deleted_at": None}, OWNER, "restore", retry),
    )
    await studio(
        f"update {RUNS} set status = 'success' where id = '{scheduled}'",
        changed({"status": "failed"}, {"status": "success"}, OWNER, "status_change", scheduled),
    )
    by_hand = await opened(worker)
    seen += 1
    await studio(
        f"update {RUNS} set status = 'failed', finished_at = now() where id = '{by_hand}'",
        changed({"status": "pending"}, {"status": "failed"}, OWNER, "fail", by_hand),
    )
    shown = {"trigger": "manual", "triggered_by": "admin", "scheduled_for": TIME, "status": "failed", "dry_run": False}
    await studio(f"delete from {RUNS} where id = '{by_hand}'", changed(shown, None, OWNER, "delete", by_hand))

    # Scenario types.
    configured = {"scenario_type": SCENARIO, "organization": "north", "updated_by": "anna"}
    row = {"scenario_type": SCENARIO, "organization": "north", "enabled": False}
    await check(
        worker.call("configure_scenario", **configured, changes={"enabled": False}),
        changed(None, row, "anna", "scenario_change", SCENARIO),
    )
    await check(worker.call("configure_scenario", **configured, changes={"enabled": False}))
    await studio(
        f"update {CONFIG} set segments = array['new']",
        changed(
            {"organization": "north", "segments": None},
            {"organization": "north", "segments": ["new"]},
            OWNER,
            "scenario_change",
            SCENARIO,
        ),
    )
    await studio(f"update {CONFIG} set due_after = now()")
    await studio(
        f"delete from {CONFIG}", changed(row | {"segments": ["new"]}, None, OWNER, "scenario_change", SCENARIO)
    )
    await check(
        worker.run(f"insert into {CONFIG} (scenario_type) values ('a')"),
        changed(None, {"scenario_type": "a"}, "service_role", "scenario_change", "a"),
    )
    await studio(
        f"truncate {CONFIG}", changed({"all_of": "scenario_evaluation_config"}, None, OWNER, "scenario_change")
    )

    # The schedule's pause and the engine's. One that is over ends by itself.
    paused = {"paused_at": TIME, "pause_reason": "holidays"}
    await check(
        pause(core, "paused_at = now(), pause_reason = 'holidays', paused_by = 'anna'", "anna"),
        changed({"paused_at": None, "pause_reason": None}, paused, "anna", "pause"),
    )
    await check(
        pause(core, "paused_until = now() + interval '1 day'"),
        changed({"paused_until": None}, {"paused_until": TIME}, OWNER, "pause"),
    )
    none = dict.fromkeys(("paused_at", "paused_until", "pause_reason"))
    ended_now = ", ".join(f"{name} = null" for name in (*none, "paused_by"))
    await check(pause(core, ended_now, "berit"), changed(paused | {"paused_until": TIME}, none, "berit", "resume"))
    off: Json = {"paused_at": None}
    on: Json = {"paused_at": TIME}
    for _ in range(2):
        await check(worker.call("schedule", changes={"paused": True}, actor="anna"), changed(off, on, "anna", "pause"))
        await check(
            worker.call("schedule", changes={"paused": False}, actor="berit"), changed(on, off, "berit", "resume")
        )
    await check(
        pause(core, "paused_at = now(), paused_by = 'anna', paused_until = now() - interval '1 minute'", "anna"),
        changed({"paused_at": None, "paused_until": None}, {"paused_at": TIME, "paused_until": TIME}, "anna", "pause"),
    )
    await check(pause(core, ended_now))
    engine = "engine_paused_until = "
    retried = changed({"engine_paused_until": TIME}, None, OWNER, "engine_retry")
    await check(pause(core, engine + "now() + interval '1 minute'"))
    await check(pause(core, engine + "null"), retried)
    await check(pause(core, engine + "now() - interval '1 minute'"))
    await check(worker.end_slice(engine_answers=True))

    # What retention removes has no entry; what a person removes at once has.
    old = "finished_at = now() - interval '1 year'"
    await core.change(overdue, old)
    await check(core.owner.run("call scheduler.prune()"))
    assert await core.owner.value(f"select count(*) from {RUNS} where id = %s", overdue) == 0
    await studio(f"truncate {RUNS} cascade", changed({"all_of": "scheduler_invocations"}, None, OWNER, "delete"))

    everything = await page(worker)
    by_pages: list[Json] = []
    while len(by_pages) < len(everything):
        last: Json = {f"after_{name}": by_pages[-1][name] for name in ("at", "id")} if by_pages else {}
        by_pages += await page(worker, limit=2, **last)
    assert by_pages == everything
    for name, value in {"invocation_id": run, "actor": "anna", "action": "cancel"}.items():
        given: Json = {name: value}
        assert await page(worker, **given) == [entry for entry in everything if entry[name] == value] != []


async def test_the_longest_entries_fit_in_an_answer(core: SqlCore, worker: Worker) -> None:
    """Of all that an entry holds, a row's segments take the most bytes."""
    await core.owner.run(f"insert into {CONFIG} (scenario_type, segments) values ('a', array[repeat(chr(1), 4000)])")
    await core.owner.run(f"update {CONFIG} set segments = array[repeat(chr(2), 4000)]")
    (longest,) = await page(worker, limit=1)
    most = AuditQuery.model_json_schema()["properties"]["limit"]["maximum"]
    # one more, to learn whether another page follows
    assert len(json.dumps(longest)) * (most + 1) < MAX_ANSWER_BYTES
