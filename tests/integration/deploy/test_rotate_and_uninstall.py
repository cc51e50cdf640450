"""New tokens without a moment in which a caller is refused; and taking it all away again."""

from __future__ import annotations

import httpx

from tests.emulator.migrations import apply_migrations
from tests.emulator.project import MIGRATIONS
from tests.integration.deploy.deployer import Deployer
from tests.integration.deploy.pretend_cloud import Service

TOKENS = ("SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS")


async def watch_callers(deployer: Deployer) -> list[int]:
    """Checks at each new revision that the database's token is known before and after; answers how often it did."""
    seen: list[int] = []

    async def check(service: Service, env: dict[str, str]) -> None:
        token = (await deployer.vault())["scheduler_invoke_token"]
        assert token in env["SCHEDULER_INVOKE_TOKENS"].split(",")
        assert token in service.env["SCHEDULER_INVOKE_TOKENS"].split(",")
        seen.append(len(env["SCHEDULER_INVOKE_TOKENS"].split(",")))

    deployer.cloud.before_revision = check
    return seen


async def status(http: httpx.AsyncClient, deployer: Deployer, token: str) -> int:
    answer = await http.get(
        f"{deployer.service.url}/api/v1/scheduler-invocations", headers={"Authorization": f"Bearer {token}"}
    )
    return answer.status_code


async def test_tokens_are_rotated_without_a_caller_being_refused_also_when_it_breaks_off(
    deployer: Deployer, http: httpx.AsyncClient
) -> None:
    await deployer.succeed()
    log, log_from = deployer.project.server.log_path, deployer.project.server.log_path.stat().st_size
    async with deployer.project.connect(superuser=True) as superuser:
        logs_all = f"alter role postgres in database {deployer.project.database} set log_statement = 'all'"
        await superuser.execute(logs_all.encode())
    old = {name: deployer.settings[name] for name in TOKENS}
    elsewhere = await deployer.run("--rotate-tokens", env={"SCHEDULER_ADMIN_TOKENS": deployer.project.admin_token})
    assert elsewhere.code == 1
    assert "the environment has the last word" in elsewhere.output
    assert {name: deployer.settings[name] for name in TOKENS} == old
    revisions = await watch_callers(deployer)
    deployer.cloud.refuse = "gcloud run services update"
    assert (await deployer.run("--rotate-tokens")).code == 1
    assert deployer.settings["SCHEDULER_INVOKE_TOKENS"].split(",")[1:] == [old["SCHEDULER_INVOKE_TOKENS"]]
    assert (await deployer.vault())["scheduler_invoke_token"] == old["SCHEDULER_INVOKE_TOKENS"]
    deployer.cloud.refuse = None

    await deployer.succeed("--rotate-tokens")

    new = {name: deployer.settings[name] for name in TOKENS}
    assert revisions == [3, 1], "first all of them, then the newest alone"
    assert all("," not in token and len(token) == 43 for token in new.values())
    assert not set(new.values()) & set(old.values())
    assert deployer.env_file.stat().st_mode & 0o777 == 0o600
    assert (await deployer.vault())["scheduler_invoke_token"] == new["SCHEDULER_INVOKE_TOKENS"]
    assert await status(http, deployer, new["SCHEDULER_ADMIN_TOKENS"]) == 200
    assert await status(http, deployer, old["SCHEDULER_ADMIN_TOKENS"]) == 401
    assert all(len(stored.enabled) == 1 for stored in deployer.cloud.secrets.values())
    logged = log.read_bytes()[log_from:].decode()
    assert "select scheduler.connect(" in logged
    assert [name for name, secret in deployer.secrets.items() if secret in logged] == []


async def test_uninstalling_asks_keeps_what_was_recorded_and_is_undone_by_deploying(deployer: Deployer) -> None:
    empty = await deployer.snapshot()
    await deployer.succeed()
    await deployer.add_mentors(10)
    await deployer.rows(
        "insert into public.scheduler_invocations"
        " (idempotency_key, triggered_by, status, scheduled_for, finished_at, expires_at, config, engine_scope)"
        " values ('slot:old', 'schedule', 'succeeded', now(), now(), now(), '{}', 'slot:old')"
    )
    await deployer.project.cron_driver().run_all()
    recorded, installed = await deployer.invocations(), await deployer.snapshot()
    kept = ("cron.job_run_details", "net.http_request_queue", "net._http_response")
    assert await deployer.rows(f"select count(*) > 0 from {kept[0]}") == [(True,)]
    assert await deployer.rows(f"select count(*) > 0 from {kept[2]}") == [(True,)]
    deployer.cloud.forget_commands()

    refused = await deployer.run("--uninstall", answer="yes\n")
    assert (refused.code, deployer.cloud.changes, await deployer.snapshot()) == (1, [], installed)

    uninstalled = await deployer.succeed("--uninstall", answer="uninstall\n")
    for table in kept:
        assert await deployer.rows(f"select from {table}") == [], table
    listed = uninstalled.output.partition("== What is left")[2]
    for word in ("schema scheduler", "active_peer_mentors", "pg_cron", "pg_stat_statements", "Google Cloud"):
        assert word in listed, word
    assert (deployer.cloud.services, deployer.cloud.secrets, deployer.cloud.accounts) == ({}, {}, set())
    assert await deployer.vault() == {}
    assert await deployer.rows("select jobname from cron.job") == []
    assert await deployer.invocations() == recorded

    # Days later somebody wants it back, and the night that was not is not made up for.
    await deployer.rows("update scheduler.settings set slot_high_water_mark = now() - interval '3 days'")
    await deployer.succeed()
    assert (await deployer.invocations())[0] == recorded[0]
    assert [run["dry_run"] for run in (await deployer.invocations())[1:]] == [True], "the smoke test"
    assert await deployer.rows("select jobname from cron.job order by jobname") == [
        ("scheduler-dispatch",),
        ("scheduler-prune",),
    ]

    deleted = await deployer.succeed("--uninstall", "--delete-data", "--yes")
    assert "NOTICE" not in deleted.output
    assert "schema scheduler" not in deleted.output.partition("== What is left")[2]
    for table in kept:
        assert await deployer.rows(f"select from {table}") == [], table
    left = set(await deployer.snapshot()) - set(empty)
    ours = {name for schema, name in left if schema in ("public", "scheduler") or "scenario_evaluation" in name}
    assert {name for name in ours if not name.startswith("peer_mentors_")} == {"peer_mentors", "active_peer_mentors"}
    assert await deployer.rows("select proname from pg_proc where proname like 'scheduler%'") == []
    assert await deployer.rows("select count(*) from public.peer_mentors") == [(10,)]
    # Nothing is in the way of the migrations but what is the application's.
    await deployer.succeed("--dry-run")
    assert (
        await apply_migrations(deployer.project.database_url, MIGRATIONS)
        == [path.name.partition("_")[0] for path in sorted(MIGRATIONS.glob("*.sql"))][1:]
    )
