"""deploy.sh from an empty database on: what is there afterwards works, and doing it again changes nothing."""

from __future__ import annotations

from typing import Any

import httpx

from tests.integration.deploy.deployer import FUNCTION, SECRETS, Deployer
from tests.integration.deploy.pretend_cloud import PROJECT, Service
from tests.integration.nightly.night import eventually
from tests.integration.nightly.test_readme import code_block

STEPS = [
    "Check prerequisites and settings",
    "Check credentials",
    "Stage the function",
    "Migrate the database",
    "Check the view of the mentors",
    "Prepare the schedule",
    "Prepare Google Cloud: services, account, secrets",
    "Deploy the function to Cloud Run",
    "Try the function",
    "Connect the database to the function",
    "Have the database call the function",
    "Smoke test",
    "State",
]


async def test_from_an_empty_database_to_the_first_night_by_the_readme_alone(
    deployer: Deployer, http: httpx.AsyncClient
) -> None:
    commands = [line.partition("#")[0].strip() for line in code_block("bash", "./deploy.sh --dry-run").splitlines()]
    assert commands == ["cp .env.example .env", "./deploy.sh --dry-run", "./deploy.sh"]
    deployer.fill_in_example()

    empty = await deployer.snapshot()
    announced = await deployer.succeed("--dry-run")
    assert announced.steps() == STEPS
    assert "20261120000100_create_sample_peer_mentors.sql" in announced.output
    assert f"would run: gcloud --project={PROJECT} --quiet run deploy" in announced.output
    assert (deployer.cloud.changes, await deployer.snapshot()) == ([], empty)

    first = await deployer.succeed()
    assert first.steps() == STEPS
    assert "no mentor is active yet" in first.output
    assert "next slot due" in first.output
    assert deployer.engine.calls == [], "installing notifies nobody"
    await has_as_little_as_it_needs(deployer, deployer.service, http)

    await deployer.add_mentors(60)
    await deployer.make_slot_due()
    await deployer.project.cron_driver().run_all()
    night = await eventually(lambda: ended(deployer))
    assert night is not None
    assert (night["triggered_by"], night["status"]) == ("schedule", "succeeded")
    assert night["counts"]["mentors"] == 60
    await deployer.rows("update scheduler.dispatches set status_code = 200 where status_code is null")

    calls, acts = len(deployer.engine.calls), len(deployer.engine.acts)
    before, revision = await deployer.snapshot(), deployer.service.revision
    deployer.cloud.forget_commands()
    second = await deployer.succeed()
    assert second.steps() == STEPS
    assert deployer.cloud.changes == []
    assert deployer.service.revision == revision
    assert await deployer.snapshot() == before
    assert "a dry run of 10 mentors succeeded: 20 evaluations" in second.output
    assert [call.dry_run for call in deployer.engine.calls[calls:]] == [True], "the smoke test"
    assert len(deployer.engine.acts) == acts
    state = second.output.partition("== State")[2]
    assert ": succeeded" in state
    assert "NOT ACTIVE" not in state


async def ended(deployer: Deployer) -> dict[str, Any] | None:
    return next((run for run in await deployer.invocations() if run["finished_at"] and not run["dry_run"]), None)


async def has_as_little_as_it_needs(deployer: Deployer, service: Service, http: httpx.AsyncClient) -> None:
    """What the function may do, what it is told, and that it knows its callers."""
    account = f"{FUNCTION}@{PROJECT}.iam.gserviceaccount.com"
    assert service.options["service-account"] == account
    assert {name: stored.readers for name, stored in deployer.cloud.secrets.items()} == {
        f"{FUNCTION}-{name}": {f"serviceAccount:{account}"} for name in SECRETS
    }
    assert [service.options[name] for name in ("concurrency", "max-instances", "timeout")] == ["1", "8", "85"]
    assert set(service.env) >= {*SECRETS, "SUPABASE_URL", "SCENARIO_ENGINE_URL", "EVALUATION_BATCH_SIZE"}
    assert service.env["FUNCTION_USE_ASGI"] == "true"
    not_told = {"DATABASE_URL", "FUNCTION_NAME", "FUNCTION_CONCURRENCY"}
    assert not not_told & set(service.env), "neither the database's password nor how it is deployed"
    assert service.source is not None
    assert {path.name for path in service.source.iterdir()} - {"__pycache__"} == {
        "functions",
        "main.py",
        "requirements.txt",
        "shared",
    }
    url = f"{service.url}/api/v1/scheduler-invocations"
    bearer = {"Authorization": f"Bearer {deployer.project.admin_token}"}
    assert (await http.get(url, headers=bearer)).status_code == 200
    assert (await http.get(url)).status_code == 401


async def test_what_is_changed_later_is_announced_then_done_and_nothing_else(deployer: Deployer) -> None:
    deployer.write_settings(SCENARIO_ENGINE_TOKEN="not-the-engines-token")
    await deployer.succeed()  # nobody is there to try it with

    await deployer.add_mentors(10)
    refused = await deployer.run()
    assert refused.code == 1
    assert "the engine turns the function away: look at SCENARIO_ENGINE_URL and SCENARIO_ENGINE_TOKEN" in refused.output
    assert 'stopped at "Smoke test"' in refused.output
    assert [run["status"] for run in await deployer.invocations()] == ["cancelled"], "nothing is left open"

    # It has run for days at two. Now, at noon, it shall be at eleven: nobody is evaluated twice on that day.
    ((minute, hour),) = await deployer.rows(
        "select date_part('minute', past)::integer, date_part('hour', past)::integer"
        " from (select now() at time zone 'UTC' - interval '1 hour') as hour_ago (past)"
    )
    await deployer.rows("update scheduler.settings set slot_high_water_mark = now() - interval '10 hours'")
    deployer.write_settings(
        EVALUATION_SCHEDULE=f"{minute} {hour} * * *",
        EVALUATION_BATCH_SIZE="20",
        SCENARIO_ENGINE_TOKEN=deployer.project.engine_token,
    )
    settings, before = deployer.env_file.read_text(), await deployer.snapshot()
    deployer.cloud.forget_commands()
    announced = [
        await deployer.succeed("--dry-run", *arguments)
        for arguments in ([], ["--rotate-tokens"], ["--uninstall", "--delete-data"])
    ]
    assert all("would " in one.output for one in announced)
    assert (deployer.cloud.changes, await deployer.snapshot()) == ([], before)
    assert deployer.env_file.read_text() == settings

    deployed = await deployer.succeed()
    token = f"{FUNCTION}-SCENARIO_ENGINE_TOKEN"
    assert deployer.cloud.changes == [
        f"gcloud secrets versions add {token}",
        f"gcloud run services update {FUNCTION}",
        "gcloud secrets versions destroy 1",
    ], "a new revision without a new build"
    assert deployer.service.env["EVALUATION_BATCH_SIZE"] == "20"
    assert deployer.cloud.secrets[token].enabled == [2]
    assert "the schedule is new" in deployed.output
    assert "a dry run of 10 mentors succeeded" in deployed.output
    assert {run["triggered_by"] for run in await deployer.invocations()} == {"manual"}, "the smoke tests"
    assert deployer.engine.acts == {}
    assert await deployer.rows("select next_due_at > now() + interval '22 hours' from scheduler.settings") == [(True,)]
