"""Every SQL function runs on the oldest PostgreSQL of hosted projects; what they do is tested on the newest."""

from __future__ import annotations

from tests.emulator.project import ProjectFactory
from tests.integration.database.requests import add_mentors, ask, evaluations, listed, seen, unfinished
from tests.integration.database.sql_core import SCENARIO, SqlCore, mentor, pairs

FUNCTIONS = "select substr(proname, 11) from pg_proc where oid::regprocedure::text ~ '^scheduler_'"
ALERTS = """config = config || '{"alerts": true, "alert_partial_above": 0, "alert_late_above_minutes": 9}'"""


async def test_every_function_runs_on_the_oldest_postgres(projects_on_oldest: ProjectFactory) -> None:
    async with projects_on_oldest.database() as name, SqlCore(projects_on_oldest.server.url(name)) as core:
        worker = await core.worker()
        await core.install_long_ago()
        await core.make_callable()
        await add_mentors(core, [1, 2, 3])
        run = (await worker.open_slot(*await core.slots()))["invocation"]["id"]
        configured = {"changes": {"schedule": "0 2 * * 0"}, "updated_by": "test"}
        table = await worker.call("configure_scenario", scenario_type=SCENARIO, organization=None, **configured)
        assert await worker.call("scenario_config", known_version="") == table
        await core.owner.run("delete from public.scenario_evaluation_config where true")
        await core.change(run, ALERTS)
        assert await worker.call("active_mentors_page", after=None, rows=9)
        assert await worker.call("active_mentors", user_ids=[mentor(1)])
        assert await worker.call("mentors_without_user_id") == 0
        assert await worker.call("mentors_view_fault") is None
        await worker.call("check_mentors_view")
        assert await worker.enqueue(run, [pairs([1]), pairs([2, 3])], done=True)
        assert await worker.take_permit(run)
        first, second = (await worker.claim())["batches"]
        assert await worker.release(first)
        assert await worker.split(first)
        assert await worker.complete(second, "failed", remaining=[mentor(3)]) == "done"
        assert await core.owner.value("select scheduler.dispatch()") == 2
        for _ in range(2):
            (batch,) = (await worker.claim(poison="last"))["batches"]
            assert await worker.complete(batch) == "done"
        assert (await worker.finish(run))["invocation"]["status"] == "partial"
        await worker.end_slice(progressed=True, engine_answers=True, engine_permit_id=run)
        assert (await worker.call("claim_alert"))["reason"] == "partial"
        await worker.call("settle_alert", invocation_id=run, error=None)
        assert (await listed(worker, user_id=mentor(2)))["items"]
        assert (await seen(worker, run))["failures"]
        assert (await evaluations(worker, run, outcomes=["failed"]))["items"]
        assert (await unfinished(worker, run))["mentors"]
        assert (await worker.call("last_success"))["run"]
        assert (await worker.call("schedule", changes={"paused": True}, actor="test"))["pause"]
        assert await worker.call("used_slots", **{"from": "2000-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"})
        retry = (await ask(worker, retry_of=run))["invocation"]["id"]
        assert (await worker.cancel(retry))["status"] == "cancelled"
        assert await worker.delete(retry) == "deleted"
        asked = dict.fromkeys(("invocation_id", "actor", "action", "after_at", "after_id"))
        assert [entry["action"] for entry in await worker.call("audit_page", **asked, limit=2)] == ["delete", "cancel"]
        await core.owner.run("delete from public.peer_mentors where user_id = %s", mentor(1))
        assert (await core.owner.value("select scheduler.forget_user(%s)", mentor(1)))["scheduler_evaluations"]
        await core.owner.run("call scheduler.prune()")
        assert set(await core.owner.column(FUNCTIONS)) == worker.called
