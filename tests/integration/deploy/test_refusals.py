"""What deploy.sh says when something is wrong, and that it has done nothing by then; or goes on where it broke off."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.emulator.staging import ROOT
from tests.integration.deploy.deployer import FUNCTION, Deployer
from tests.integration.deploy.pretend_cloud import RefusedError

DEPLOY = ROOT / "deploy.sh"


async def untouched(deployer: Deployer) -> bool:
    migrated = await deployer.rows("select to_regnamespace('scheduler') is not null")
    return deployer.cloud.changes == [] and migrated == [(False,)]


async def test_everything_that_is_missing_or_wrong_is_named_at_once(deployer: Deployer) -> None:
    deployer.write_settings(
        SUPABASE_SECRET_KEY=None,
        GOOGLE_CLOUD_REGION=None,
        DATABASE_URL="postgresql://postgres@127.0.0.1/postgres",
        SCHEDULER_ADMIN_TOKENS="short",
        EVALUATION_SCHEDULE="at night",
        EVALUATION_SHEDULE="0 2 * * *",
        SCENARIO_ENGINE_URL="https://engine.example.org",
    )
    refused = await deployer.run()
    assert refused.code == 1
    for problem in (
        "SUPABASE_SECRET_KEY: missing",
        "GOOGLE_CLOUD_REGION: missing",
        "DATABASE_URL: expected a postgresql:// URL",
        "SCHEDULER_ADMIN_TOKENS, entry 1: expected 32 to 256 printable ASCII characters",
        "EVALUATION_SCHEDULE: expected a cron expression",
        "EVALUATION_SHEDULE is no setting",
        "SCENARIO_ENGINE_URL: still what .env.example holds",
    ):
        assert problem in refused.output, problem
    assert refused.steps() == ["Check prerequisites and settings"]
    assert deployer.cloud.commands == []
    assert await untouched(deployer)


async def test_missing_programs_are_named_with_the_settings(deployer: Deployer) -> None:
    deployer.write_settings(DATABASE_URL=None)
    refused = await deployer.run(env={"PATH": "/usr/bin:/bin"})
    assert refused.code == 1
    assert "supabase: not installed" in refused.output
    assert "nothing was done" in refused.output
    assert "DATABASE_URL: missing" in refused.output


async def test_wrong_credentials_are_named_at_once_before_anything_is_done(deployer: Deployer) -> None:
    deployer.write_settings(
        DATABASE_URL=deployer.project.database_url.replace("@", "x@"),
        SUPABASE_SECRET_KEY=deployer.project.secret_key[:-4] + "zzzz",
        GOOGLE_CLOUD_PROJECT="somebody-elses",
    )
    refused = await deployer.run()
    assert refused.code == 1
    assert "SUPABASE_SECRET_KEY: refused by" in refused.output
    assert "DATABASE_URL:" in refused.output
    assert "password authentication failed" in refused.output
    assert "gcloud: ERROR" in refused.output
    assert refused.steps() == ["Check prerequisites and settings", "Check credentials"]
    assert await untouched(deployer)


async def test_a_database_and_a_project_that_cannot_be_reached_are_named(deployer: Deployer) -> None:
    deployer.write_settings(
        DATABASE_URL="postgresql://postgres:pass%3Aword-1234@127.0.0.1:9/postgres", SUPABASE_URL="http://127.0.0.1:9"
    )
    refused = await deployer.run()
    assert refused.code == 1
    assert "Connection refused" in refused.output
    assert "SUPABASE_URL: http://127.0.0.1:9 does not answer" in refused.output
    assert await untouched(deployer)


async def test_the_functions_error_is_shown_with_code_and_detail(deployer: Deployer) -> None:
    await deployer.succeed()
    refusal = "500 database_refused: the Data API refused a call (42501); the log has it under trace id "
    for refused, said in (
        ("public.active_peer_mentors", "/active-peer-mentors?limit=10: expected an answer, found "),
        ("function public.scheduler_open_slot", "the database's call was answered: "),
    ):
        await deployer.rows(f"revoke all on {refused} from service_role")
        stopped = await deployer.run()
        assert stopped.code == 1
        assert said + refusal in stopped.output


async def test_a_deployment_that_broke_off_is_taken_up_wherever_that_was(deployer: Deployer) -> None:
    """In a project whose application has migrations of its own, older and younger than ours."""
    await deployer.rows("create schema supabase_migrations")
    await deployer.rows(
        "create table supabase_migrations.schema_migrations (version text primary key, statements text[], name text)"
    )
    await deployer.rows(
        "insert into supabase_migrations.schema_migrations (version, name)"
        " values ('20240101000000', 'of_the_application'), ('20991231000000', 'of_the_application_too')"
    )
    broken_at = {
        f"gcloud secrets versions add {FUNCTION}-SCHEDULER": "Prepare Google Cloud: services, account, secrets",
        "gcloud run deploy": "Deploy the function to Cloud Run",
    }
    for deployer.cloud.refuse, step in broken_at.items():
        broken = await deployer.run()
        assert broken.code == 1
        assert broken.steps()[-1] == step
        assert f'stopped at "{step}"' in broken.output
        assert "PERMISSION_DENIED" in broken.output
    deployer.cloud.refuse = None

    async def falls_over(*_: object) -> None:
        raise RefusedError("the new revision does not start")

    # Its labels are there by then, it itself is not ready.
    deployer.cloud.before_revision = falls_over
    assert (await deployer.run()).steps()[-1] == "Deploy the function to Cloud Run"
    deployer.cloud.before_revision = None
    deployer.cloud.forget_commands()

    await deployer.succeed()

    assert deployer.cloud.changes == [f"gcloud run deploy {FUNCTION}"], "all else was there"
    assert all(len(stored.enabled) == 1 for stored in deployer.cloud.secrets.values())
    assert len(await deployer.vault()) == 2


async def test_a_view_with_wrong_columns_stops_the_deployment(
    deployer: Deployer,
) -> None:
    wrong = "create view public.active_peer_mentors as select gen_random_uuid() as user_id, ''::text as segments"
    fault = "public.active_peer_mentors, column segments: expected text[], found text"
    await deployer.rows(wrong)
    refused = await deployer.run()
    assert (refused.code, refused.steps()[-1]) == (1, "Migrate the database")
    assert fault in refused.output
    assert await untouched(deployer)

    await deployer.rows("drop view public.active_peer_mentors")
    await deployer.rows(wrong.replace("''::text ", "'{}'::text[] "))
    await deployer.succeed()
    deployer.cloud.forget_commands()
    await deployer.rows("drop view public.active_peer_mentors")
    await deployer.rows(wrong)
    for arguments in ((), ("--dry-run",)):
        refused = await deployer.run(*arguments)
        assert (refused.code, refused.steps()[-1]) == (1, "Check the view of the mentors")
        assert fault in refused.output
    assert deployer.cloud.changes == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--target", "moon"], "expected cloud-run or container, found moon"),
        (["--target"], "--target: expected a value"),
        (["--yes"], "go with --uninstall"),
        (["--frobnicate"], "found --frobnicate"),
        (["--env-file", "/nowhere"], "/nowhere cannot be read"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: list[str], told: str) -> None:
    refused = subprocess.run([DEPLOY, *arguments], capture_output=True, text=True)
    assert refused.returncode == 1
    assert told in refused.stderr
    assert "==" not in refused.stdout


def test_help_names_every_option() -> None:
    told = subprocess.run([DEPLOY, "--help"], capture_output=True, text=True, check=True).stdout
    parsed = DEPLOY.read_text().partition("while (($#))")[2].partition("*) usage")[0]
    options = set(re.findall(r"--[a-z-]+(?=[ )|])", parsed))
    assert len(options) == 8
    assert {option for option in options if option not in told} == set()
