"""What comes after the first deployment: other settings, new tokens, and taking it all away again."""

from __future__ import annotations

import asyncio
import re
import subprocess

import httpx

from tests.integration.deploy.deployer import CHECK, FUNCTION, Deployer
from tests.integration.deploy.fake_cloud import PROJECT, Service
from tests.integration.scheduled_runs.harness import slot_minutes_ago

TOKENS = ("SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS")


async def test_settings_change_tokens_rotate_and_all_is_removed(deployer: Deployer, http: httpx.AsyncClient) -> None:
    await deployer.succeed()
    await deployer.add_mentors(10)
    await change_settings(deployer)
    await rotate_tokens(deployer, http)
    await break_the_database(deployer)
    await uninstall(deployer)


async def change_settings(deployer: Deployer) -> None:
    """They are announced, refused while the old ones answer, then deployed alone."""
    # Deployed for days, and now scheduled for an hour ago: no mentor is evaluated twice on that day.
    schedule, _ = slot_minutes_ago(60)
    await deployer.rows("update scheduler.settings set slot_high_water_mark = now() - interval '10 hours'")
    deployer.engine.token = "another-token-of-the-engine"
    deployer.write_settings(
        EVALUATION_SCHEDULE=schedule,
        EVALUATION_BATCH_SIZE="20",
        SCENARIO_ENGINE_TOKEN=deployer.engine.token,
        FUNCTION_START_SECONDS="1",
        FUNCTION_MAX_INSTANCES="3",
    )
    settings, before = deployer.env_file.read_text(), await deployer.snapshot()
    deployer.cloud.changes.clear()
    for arguments in (["--rotate-tokens"], ["--uninstall", "--delete-data"]):
        assert "would " in await deployer.succeed("--dry-run", *arguments)
        assert (deployer.cloud.changes, await deployer.snapshot()) == ([], before)
        assert deployer.env_file.read_text() == settings

    deployer.service.pinned = True
    said = await deployer.refused(step="Try the function")
    assert "schedule 0 2 * * * UTC: still in service is the old one" in said
    (command,) = re.findall(r"change that: (gcloud .+)", said)
    path = {"PATH": str(deployer.cloud.bin)}
    await asyncio.to_thread(subprocess.run, command.split(), env=path, check=True)

    deployed = await deployer.succeed()

    assert deployer.cloud.changes == [
        f"gcloud secrets versions add {FUNCTION}-SCENARIO_ENGINE_TOKEN",
        f"gcloud run services update {FUNCTION}",
        f"gcloud run services update-traffic {FUNCTION}",
        "gcloud secrets versions destroy 1",
    ], "a new revision without a new build"
    assert (deployer.service.env["EVALUATION_BATCH_SIZE"], deployer.service.options["max-instances"]) == ("20", "3")
    assert "the schedule is new" in deployed
    assert {run["trigger"] for run in await deployer.invocations()} == {"manual"}, "the smoke test"
    assert deployer.engine.acts == {}
    assert await deployer.rows("select next_due_at > now() + interval '22 hours' from scheduler.settings") == [(True,)]


async def rotate_tokens(deployer: Deployer, http: httpx.AsyncClient) -> None:
    """No caller is refused in between, and what was interrupted continues."""
    log, log_from = deployer.project.server.log_path, deployer.project.server.log_path.stat().st_size
    async with deployer.project.connect(superuser=True) as superuser:
        logs_all = f"alter role postgres in database {deployer.project.database} set log_statement = 'all'"
        await superuser.execute(logs_all.encode())
    old = {name: deployer.settings[name] for name in TOKENS}
    elsewhere = {"SCHEDULER_ADMIN_TOKENS": deployer.project.admin_token}
    said = await deployer.refused("--rotate-tokens", step=CHECK, **elsewhere)
    assert "expected both lists of tokens in a file of settings, and none in the environment" in said
    assert {name: deployer.settings[name] for name in TOKENS} == old
    known: list[int] = []

    async def database_is_known(service: Service, env: dict[str, str]) -> None:
        token = (await deployer.vault())["scheduler_invoke_token"]
        lists = [each["SCHEDULER_INVOKE_TOKENS"].split(",") for each in (service.env, env)]
        assert all(token in tokens for tokens in lists)
        known.append(len(lists[1]))

    deployer.cloud.before_revision = database_is_known
    deployer.cloud.refuse = "gcloud run services update"
    await deployer.refused("--rotate-tokens", step="Deploy the function to Cloud Run")
    assert deployer.settings["SCHEDULER_INVOKE_TOKENS"].split(",")[1:] == [old["SCHEDULER_INVOKE_TOKENS"]]
    assert (await deployer.vault())["scheduler_invoke_token"] == old["SCHEDULER_INVOKE_TOKENS"]
    deployer.cloud.refuse = None

    await deployer.succeed("--rotate-tokens")

    deployer.cloud.before_revision = None
    new = {name: deployer.settings[name] for name in TOKENS}
    assert known == [2, 1], "first both, then the newer alone"
    assert not set(new.values()) & set(old.values())
    assert (await deployer.vault())["scheduler_invoke_token"] == new["SCHEDULER_INVOKE_TOKENS"]
    bearer = {"Authorization": f"Bearer {old['SCHEDULER_ADMIN_TOKENS']}"}
    answer = await http.get(f"{deployer.service.url}/api/v1/scheduler-invocations", headers=bearer)
    assert answer.status_code == 401
    assert all(len(versions) == 1 for versions in deployer.cloud.secrets.values())
    logged = log.read_bytes()[log_from:].decode()
    assert "select scheduler.connect(" in logged
    assert not any(secret in logged for secret in deployer.secrets if secret)


async def break_the_database(deployer: Deployer) -> None:
    """What the function answers the database is shown; over a view that was changed nothing is deployed."""
    await deployer.rows("revoke all on function public.scheduler_open_slot from service_role")
    said = await deployer.refused(step="Connect the database to the function")
    refusal = "500 database_refused: the Data API refused a call (42501); the log has it under trace id "
    assert f"the database's call was answered: {refusal}" in said

    await deployer.rows("drop view public.active_peer_mentors")
    await deployer.rows("create view public.active_peer_mentors as select gen_random_uuid() as user_id, '' as segments")
    deployer.cloud.changes.clear()
    said = await deployer.refused(step=CHECK)
    assert "public.active_peer_mentors, column segments: expected text[], found text" in said
    assert deployer.cloud.changes == []


async def uninstall(deployer: Deployer) -> None:
    """Records are kept unless they are to be deleted."""
    await deployer.rows(
        "insert into public.scheduler_invocations"
        " (idempotency_key, trigger, triggered_by, status, scheduled_for, finished_at, expires_at, engine_scope)"
        " values ('slot:old', 'schedule', 'pg_cron', 'success', now(), now(), now(), 'slot:old')"
    )
    await deployer.project.cron_driver().run_all()
    recorded, installed = await deployer.invocations(), await deployer.snapshot()
    kept = ("cron.job_run_details", "net.http_request_queue", "net._http_response")
    assert await deployer.rows(f"select where exists (select from {kept[0]}) and exists (select from {kept[2]})")
    deployer.cloud.changes.clear()

    code, asked = await deployer.run("--uninstall", answer="yes\n")
    assert f"{FUNCTION} in {PROJECT}" in asked.partition("This ends the scheduled runs there")[0]
    assert (code, deployer.cloud.changes, await deployer.snapshot()) == (1, [], installed)

    uninstalled = await deployer.succeed("--uninstall", answer="uninstall\n")
    for table in kept:
        assert await deployer.rows(f"select from {table}") == [], table
    listed = uninstalled.partition("== What is left")[2]
    for word in ("schema scheduler", "active_peer_mentors", "pg_cron", "pg_stat_statements", "Google Cloud"):
        assert word in listed, word
    assert (deployer.cloud.services, deployer.cloud.secrets, deployer.cloud.accounts) == ({}, {}, set())
    assert (await deployer.vault(), await deployer.rows("select from cron.job")) == ({}, [])
    assert await deployer.invocations() == recorded

    deleted = await deployer.succeed("--uninstall", "--delete-data", answer="uninstall\n")
    assert "NOTICE" not in deleted
    assert "schema scheduler" not in deleted.partition("== What is left")[2]
    assert await deployer.rows(
        "select to_regnamespace('scheduler'), version, (select count(*) from public.peer_mentors)"
        "  from supabase_migrations.schema_migrations"
    ) == [(None, "20261120000100", 10)], "only the mentors' migration is left"
