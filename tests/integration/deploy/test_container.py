"""--target container: an image from the same staged folder, which runs with nothing but what is locked."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

from shared.version import VERSION
from tests.emulator.ports import free_port
from tests.emulator.staging import LOCK, ROOT, stage
from tests.integration.deploy.deployer import Deployer, steps
from tests.integration.deploy.fake_cloud import Service

IMAGE = f"scenario-evaluation-scheduler:{VERSION}"
DOCKERFILE = (ROOT / "shared" / "deployment" / "Dockerfile").read_text()


async def run(*argv: str | Path) -> None:
    await asyncio.to_thread(subprocess.run, argv, check=True)


def environment(path: Path) -> dict[str, str]:
    """What docker reads of an environment file: all behind the first `=` of a line."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


async def test_the_image_runs_and_is_connected_by_its_address(deployer: Deployer, tmp_path: Path) -> None:
    deployer.write_settings(GOOGLE_CLOUD_PROJECT=None, GOOGLE_CLOUD_REGION=None, OTEL_SERVICE_NAME='"two\\nlines"')
    said = await deployer.refused("--target", "container", step="Check prerequisites and settings")
    assert "OTEL_SERVICE_NAME: expected one line" in said
    deployer.write_settings(OTEL_SERVICE_NAME='"its name"')
    built = await deployer.succeed("--target", "container")
    assert steps(built)[-1] == "Build the image"
    given = deployer.folder / "settings.env.container"
    assert f"docker run --rm --env-file={given} --publish=8080:8080 {IMAGE}" in built.partition("set FUNCTION_URL")[2]
    assert "Done." not in built
    assert (await deployer.vault(), deployer.cloud.pushed) == ({}, [])
    # It is what all other tests run, byte for byte.
    context = deployer.cloud.images[IMAGE]
    stage(tmp_path / "tested")
    await run("diff", "--recursive", "--exclude=__pycache__", "--exclude=Dockerfile", tmp_path / "tested", context)
    assert (context / "requirements.txt").read_text() == (ROOT / LOCK).read_text()

    # As the Dockerfile has it: what is locked is installed, and its command is run in the folder, without rights.
    assert "--require-hashes -r requirements.txt" in DOCKERFILE.partition("\nUSER scheduler\n")[0]
    command = json.loads(re.findall(r"^CMD (.+)$", DOCKERFILE.partition("\nUSER scheduler\n")[2], re.MULTILINE)[0])
    uv, venv = Path(sys.executable).parent / "uv", tmp_path / "venv"
    await run(uv, "venv", "--quiet", "--python", sys.executable, venv)
    install = ("pip", "install", "--quiet", "--python", venv / "bin" / "python", "--require-hashes")
    await run(uv, *install, "-r", context / "requirements.txt")
    argv = [str(venv / "bin" / command[0]), *command[1:]]
    container = Service(free_port(), source=context)
    deployer.cloud.services["container"] = container
    assert given.stat().st_mode & 0o777 == 0o600
    assert environment(given) == {name: text for name, text in deployer.settings.items() if name != "DATABASE_URL"}
    await deployer.cloud.serve(container, environment(given), argv)
    await deployer.add_mentors(10)
    deployer.write_settings(FUNCTION_URL=f"{container.url}/", IMAGE="registry.example.org/scheduler:1")

    connected = await deployer.succeed("--target", "container")

    assert steps(connected)[-1] == "State"
    assert deployer.cloud.pushed == ["registry.example.org/scheduler:1"]
    assert "a dry run of 10 mentors succeeded" in connected
    assert (await deployer.vault())["scheduler_function_url"] == f"{container.url}/"

    # While its tokens rotate it is restarted twice, by another hand: here too late, so that the next run continues.
    old = deployer.settings["SCHEDULER_INVOKE_TOKENS"]
    deployer.write_settings(SCHEDULER_INVOKE_TOKENS=f"{old},{'s' * 40}", FUNCTION_START_SECONDS="1")
    early = await deployer.refused("--target", "container", "--rotate-tokens", step="Try the function")
    assert f"still in service is the old one; change that: docker run --rm --env-file={given}" in early
    assert deployer.settings["SCHEDULER_INVOKE_TOKENS"].endswith(f",{old},{'s' * 40}")
    assert (await deployer.vault())["scheduler_invoke_token"] == old
    await deployer.cloud.serve(container, environment(given), argv)
    late = await deployer.refused("--target", "container", "--rotate-tokens", step="Try the function")
    assert "./deploy.sh continues where this stops" in late
    assert environment(given)["SCHEDULER_INVOKE_TOKENS"] == deployer.settings["SCHEDULER_INVOKE_TOKENS"]
    assert deployer.settings["SCHEDULER_INVOKE_TOKENS"] == (await deployer.vault())["scheduler_invoke_token"] != old
