"""deploy.sh from an empty database on: what is there afterwards works, and doing it again changes nothing."""

from __future__ import annotations

import re

import httpx

from tests.emulator.staging import ROOT
from tests.integration.deploy.deployer import FUNCTION, SECRETS, Deployer, steps
from tests.integration.deploy.fake_cloud import PROJECT, RefusedError
from tests.integration.scheduled_runs.harness import eventually

README = (ROOT / "README.md").read_text()
TABLE = (ROOT / "docs" / "deployment.md").read_text().partition("## What deploy.sh does")[2].partition("### ")[0]
STEPS = [step for step in re.findall(r"^\| ([A-Z][^|]+?) \|", TABLE, re.MULTILINE) if step != "Build the image"]


async def test_the_readme_leads_from_empty_database_to_scheduled_run(
    deployer: Deployer, http: httpx.AsyncClient
) -> None:
    """Also where it breaks off, and where the application has older and younger migrations; later lines count."""
    assert re.search(r"^cp \.env\.example \.env .*\n\./deploy\.sh --dry-run .*\n\./deploy\.sh\n", README, re.MULTILINE)
    deployer.has_real_cli = True
    deployer.env_file.write_text((ROOT / ".env.example").read_text() + deployer.env_file.read_text())
    await deployer.rows(
        "create schema supabase_migrations;"
        "create table supabase_migrations.schema_migrations (version text primary key, statements text[], name text);"
        "insert into supabase_migrations.schema_migrations (version, name)"
        " values ('20240101000000', 'of_the_application'), ('20991231000000', 'of_the_application_too')"
    )

    empty = await deployer.snapshot()
    announced = await deployer.succeed("--dry-run")
    assert steps(announced) == STEPS
    assert "20261120000100_create_sample_peer_mentors.sql" in announced
    assert f"would run: gcloud run deploy {FUNCTION}" in announced
    place = deployer.project.database_url.partition("@")[2]
    assert f"settings from {deployer.env_file}" in announced
    assert f"database postgres@{place}" in announced
    assert (deployer.cloud.changes, await deployer.snapshot()) == ([], empty)

    await break_off(deployer)
    first = await deployer.succeed()
    assert steps(first) == STEPS
    assert deployer.cloud.changes == [f"gcloud run deploy {FUNCTION}"], "all else was there"
    assert "no mentor is active yet" in first
    assert "next slot due" in first
    assert deployer.engine.calls == [], "installing notifies no mentor"
    await check_least_rights(deployer, http)

    await deployer.add_mentors(60)
    await deployer.project.make_slot_due()
    await deployer.rows("update scheduler.settings set next_due_at = now()")
    await deployer.project.cron_driver().run_all()
    ended = "select id, trigger, status from public.scheduler_invocations where finished_at is not null and not dry_run"
    ((run, *found),) = await eventually(lambda: deployer.rows(ended))
    mentors = f"select scheduler.describe_invocation('{run}') -> 'counts' -> 'mentors'"
    assert (found, await deployer.rows(mentors)) == (["schedule", "success"], [(60,)])
    await deployer.rows("update scheduler.dispatches set status_code = 200 where status_code is null")

    calls, acts = len(deployer.engine.calls), len(deployer.engine.acts)
    before = await deployer.snapshot()
    deployer.cloud.changes.clear()
    deployer.has_real_cli = True
    second = await deployer.succeed()
    assert steps(second) == STEPS
    assert (deployer.cloud.changes, await deployer.snapshot()) == ([], before)
    assert "a dry run of 10 mentors succeeded: 20 evaluations" in second
    assert [call.dry_run for call in deployer.engine.calls[calls:]] == [True], "the smoke test"
    assert len(deployer.engine.acts) == acts
    state = second.partition("== State")[2]
    assert ": success" in state
    assert "NOT ACTIVE" not in state


async def break_off(deployer: Deployer) -> None:
    """At a secret, and when the new revision does not start: its labels are there by then, it itself is not ready."""

    async def is_waiting() -> bool:
        return "   ... 2 s\n" in deployer.printed.read_text()

    async def falls_over(*_: object) -> None:
        await eventually(is_waiting)
        raise RefusedError("the new revision does not start")

    deployer.cloud.refuse = f"gcloud secrets versions add {FUNCTION}-SCHEDULER"
    output = await deployer.refused(step="Prepare Google Cloud: services, account, secrets")
    assert "PERMISSION_DENIED" in output
    deployer.has_real_cli = False
    deployer.cloud.refuse, deployer.cloud.before_revision = None, falls_over
    assert "   ... 2 s\n" in await deployer.refused(step="Deploy the function to Cloud Run")
    deployer.cloud.before_revision = None
    deployer.cloud.changes.clear()


async def check_least_rights(deployer: Deployer, http: httpx.AsyncClient) -> None:
    """The function's rights, its environment, and that it authenticates its callers."""
    service, account = deployer.service, f"{FUNCTION}@{PROJECT}.iam.gserviceaccount.com"
    assert service.options["service-account"] == account
    assert deployer.cloud.readers == {f"{FUNCTION}-{name}": {f"serviceAccount:{account}"} for name in SECRETS}
    assert all(len(versions) == 1 for versions in deployer.cloud.secrets.values())
    assert [service.options[name] for name in ("concurrency", "max-instances", "timeout")] == ["1", "8", "85"]
    assert set(service.env) >= {*SECRETS, "SUPABASE_URL", "SCENARIO_ENGINE_URL", "EVALUATION_BATCH_SIZE"}
    assert service.env["FUNCTION_USE_ASGI"] == "true"
    left_out = {"DATABASE_URL", "FUNCTION_NAME", "FUNCTION_CONCURRENCY"}
    assert not left_out & set(service.env), "neither the database's password nor how it is deployed"
    url = f"{service.url}/api/v1/scheduler-invocations"
    bearer = {"Authorization": f"Bearer {deployer.project.admin_token}"}
    assert [(await http.get(url, headers=headers)).status_code for headers in (bearer, {})] == [200, 401]
    known, open_to_all = [(await http.get(f"{service.url}/health", headers=each)).json() for each in (bearer, {})]
    assert known["schedule"] == "0 2 * * * UTC"
    assert known.keys() - open_to_all.keys() == {"code_digest", "settings_digest", "schedule"}
