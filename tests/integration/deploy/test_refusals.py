"""What deploy.sh reports when something is wrong, and that it has done nothing by then."""

from __future__ import annotations

import subprocess

from tests.emulator.staging import ROOT
from tests.integration.deploy.deployer import CHECK, Deployer


async def test_wrong_settings_are_named_before_anything_is_changed(deployer: Deployer) -> None:
    right = dict(deployer.settings)
    deployer.write_settings(
        SUPABASE_SECRET_KEY=None,
        DATABASE_URL="postgresql://postgres@127.0.0.1/postgres",
        EVALUATION_SHEDULE="0 2 * * *",
        SCENARIO_ENGINE_URL="https://engine.example.org",
    )
    said = await deployer.refused(step="Check prerequisites and settings", PATH="/usr/bin:/bin")
    for problem in (
        "supabase: not installed",
        "SUPABASE_SECRET_KEY: missing",
        "DATABASE_URL: expected a postgresql:// URL",
        "EVALUATION_SHEDULE is no setting",
        "SCENARIO_ENGINE_URL: still what .env.example holds",
        "nothing was done",
    ):
        assert problem in said

    url, key = right["DATABASE_URL"].replace("@", "x@"), right["SUPABASE_SECRET_KEY"][:-4] + "zzzz"
    wrong = {"DATABASE_URL": url, "SUPABASE_SECRET_KEY": key, "GOOGLE_CLOUD_PROJECT": "that-of-another"}
    deployer.write_settings(EVALUATION_SHEDULE=None, **right | wrong)
    said = await deployer.refused(step=CHECK)
    for problem in ("SUPABASE_SECRET_KEY: refused by", "password authentication failed", "gcloud: ERROR"):
        assert problem in said
    deployer.write_settings(**right | {"SUPABASE_URL": "http://127.0.0.1:9"})
    said = await deployer.refused(step=CHECK)
    assert "SUPABASE_URL: http://127.0.0.1:9/rest/v1/: no answer ([Errno 111] Connection refused)" in said
    deployer.write_settings(**right)

    # The Supabase CLI shows no hint, and the statement that failed below the message: it must not push that away.
    await deployer.rows("create table public.peer_mentors (mentor_no bigint)")
    said = await deployer.refused(step=CHECK)
    assert "public.peer_mentors is a table of your own (mentor_no bigint)" in said
    assert "docs/adapting.md" in said
    assert "create table" not in said
    assert deployer.cloud.changes == []
    assert await deployer.rows("select where to_regnamespace('scheduler') is not null") == []


def test_invalid_arguments_are_refused() -> None:
    for arguments, problem in (
        (["--target", "moon"], "expected cloud-run or container, found moon"),
        (["--target"], "--target: expected a value"),
        (["--yes"], "go with --uninstall"),
        (["--frobnicate"], "found --frobnicate"),
        (["--env-file", "/nowhere"], "/nowhere cannot be read"),
    ):
        refused = subprocess.run([ROOT / "deploy.sh", *arguments], capture_output=True, text=True)
        assert (refused.returncode, refused.stdout.count("==")) == (1, 0)
        assert problem in refused.stderr
