"""What deploy.sh reports when something is wrong, and that it has done nothing by then."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from shared.deployment.__main__ import main
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
    ):
        assert problem in said

    url, key = right["DATABASE_URL"].replace("@", "x@"), right["SUPABASE_SECRET_KEY"][:-4] + "zzzz"
    wrong = {"DATABASE_URL": url, "SUPABASE_SECRET_KEY": key, "GOOGLE_CLOUD_PROJECT": "that-of-another"}
    deployer.write_settings(EVALUATION_SHEDULE=None, **right | wrong)
    said = await deployer.refused(step=CHECK)
    for problem in (
        "SUPABASE_SECRET_KEY: http",
        "password authentication failed",
        "gcloud projects describe that-of-another: failed",
    ):
        assert problem in said
    # The password is read as it is written.
    password, role = "p@s/s#w%rd?", f"deployer_of_{deployer.project.database}"
    deployer.secrets.add(password)
    async with deployer.project.connect(superuser=True) as superuser:
        await superuser.execute(f"create role {role} login password '{password}' in role postgres".encode())
    place = right["DATABASE_URL"].partition("@")[2]
    deployer.write_settings(**right | {"DATABASE_URL": f"postgresql://{role}:{password}@{place}"})
    said = await deployer.refused(step=CHECK, SUPABASE_URL="http://127.0.0.1:9", HOSTNAME="one-that-no-setting-has")
    assert f"settings from {deployer.env_file}, and from the environment: SUPABASE_URL\n" in said
    assert f"database {role}@{place}\n   project  http://127.0.0.1:9\n" in said
    assert "SUPABASE_SECRET_KEY: http://127.0.0.1:9/rest/v1/: no answer ([Errno 111] Connection refused)" in said
    assert said.count("failed") == 0, "nothing else is wrong"
    deployer.write_settings(DATABASE_URL=f"postgresql://{role}:p%40s/s#w%rd?@{place}")
    said = await deployer.refused(step="Check prerequisites and settings")
    assert "DATABASE_URL: the password can be read in two ways" in said
    assert not re.search("s#w|rd[?]|p%40s", said)
    assert deployer.cloud.changes == []


async def test_an_unusable_view_of_the_mentors_is_named_first(deployer: Deployer) -> None:
    for made, fault, arguments in (
        ("table public.peer_mentors (mentor_no bigint)", "peer_mentors is a table of your own (mentor_no bigint)", []),
        (
            "view public.active_peer_mentors as select '' as user_id, '{}'::text[] as segments",
            "user_id: expected uuid",
            ["--dry-run"],
        ),
    ):
        await deployer.rows(f"create {made}")
        before = await deployer.snapshot()
        said = await deployer.refused(*arguments, step=CHECK)
        assert f"{fault}" in said
        assert "docs/adapting.md" in said
        assert "create " not in said
        assert (deployer.cloud.changes, await deployer.snapshot()) == ([], before)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--target", "moon"], "argument --target: invalid choice: 'moon' (choose from 'cloud-run', 'container')"),
        (["--target"], "argument --target: expected one argument"),
        (["--delete-data"], "--delete-data goes with --uninstall"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_invalid_arguments_are_refused(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["/", *arguments])
    assert refused.value.code == 2
    assert f"deploy.sh: error: {problem}" in capsys.readouterr().err


def test_paths_are_those_of_the_caller(tmp_path: Path) -> None:
    argv: list[str | Path] = [ROOT / "deploy.sh", "--env-file", "nowhere"]
    refused = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert f"{tmp_path}/nowhere: cannot be read" in refused.stderr
    helped = subprocess.run([ROOT / "deploy.sh", "--help"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "--rotate-tokens      replace the callers' tokens" in helped.stdout
