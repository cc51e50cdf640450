"""--target container: an image from the same staged folder, which runs with nothing but what is locked."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import httpx

from shared.version import VERSION
from tests.emulator.ports import free_port
from tests.emulator.staging import LOCK, ROOT, stage
from tests.integration.deploy.deployer import Deployer
from tests.integration.deploy.pretend_cloud import Service

IMAGE = f"scenario-evaluation-scheduler:{VERSION}"
DOCKERFILE = (ROOT / "shared" / "deployment" / "Dockerfile").read_text()


async def run(*argv: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output


async def install(requirements: Path, venv: Path) -> Path:
    """A new environment with what these requirements pin, each with its hash; answers its `bin`."""
    uv = Path(sys.executable).parent / "uv"
    await run(uv, "venv", "--quiet", "--python", sys.executable, venv)
    python = venv / "bin" / "python"
    await run(uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", requirements)
    return venv / "bin"


async def test_the_image_runs_as_its_command_says_and_is_connected_once_it_has_an_address(
    deployer: Deployer, tmp_path: Path, http: httpx.AsyncClient
) -> None:
    deployer.write_settings(GOOGLE_CLOUD_PROJECT=None, GOOGLE_CLOUD_REGION=None)
    built = await deployer.succeed("--target", "container")
    assert built.steps()[-1] == "Build the image"
    assert "then set FUNCTION_URL" in built.output
    assert await deployer.vault() == {}, "nobody is called who is not there"
    assert deployer.cloud.pushed == []

    check_is_what_the_tests_run(deployer.cloud.images[IMAGE], tmp_path / "tested")

    # As the Dockerfile has it: what is locked is installed, and its command is run in the folder.
    context = deployer.cloud.images[IMAGE]
    programs = await install(context / "requirements.txt", tmp_path / "venv")
    command = json.loads(re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE)[0])
    container = Service(free_port(), source=context)
    deployer.cloud.services["container"] = container
    env = {name: value for name, value in deployer.settings.items() if name not in ("DATABASE_URL", "FUNCTION_URL")}
    await deployer.cloud.serve(container, env, [str(programs / command[0]), *command[1:]])
    await deployer.add_mentors(10)
    deployer.write_settings(FUNCTION_URL=f"{container.url}/", IMAGE="registry.example.org/scheduler:1")

    connected = await deployer.succeed("--target", "container")

    assert connected.steps()[-1] == "State"
    assert set(deployer.cloud.images) == {IMAGE, "registry.example.org/scheduler:1"}
    assert deployer.cloud.pushed == ["registry.example.org/scheduler:1"]
    assert "a dry run of 10 mentors succeeded" in connected.output
    assert (await deployer.vault())["scheduler_function_url"] == f"{container.url}/"

    # Its tokens rotate in two halves, since somebody else starts it.
    old = deployer.settings["SCHEDULER_INVOKE_TOKENS"]
    await deployer.succeed("--target", "container", "--rotate-tokens")
    assert deployer.settings["SCHEDULER_INVOKE_TOKENS"].endswith(f",{old}")
    early = await deployer.run("--target", "container", "--rotate-tokens")
    assert early.code == 1
    assert "does not know the new tokens yet" in early.output
    assert (await deployer.vault())["scheduler_invoke_token"] == old
    await deployer.cloud.serve(container, env | deployer.settings, [str(programs / command[0]), *command[1:]])
    await deployer.succeed("--target", "container", "--rotate-tokens")
    assert deployer.settings["SCHEDULER_INVOKE_TOKENS"] == (await deployer.vault())["scheduler_invoke_token"] != old


def check_is_what_the_tests_run(staged: Path, tested: Path) -> None:
    """Byte for byte, but for what is only there."""
    stage(tested)
    only_staged = {"Dockerfile"}
    assert {name: text for name, text in files(staged).items() if name not in only_staged} == files(tested)
    assert (staged / "requirements.txt").read_text() == (ROOT / LOCK).read_text()
    assert not list(staged.rglob("__pycache__"))


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_image_runs_as_somebody_without_rights() -> None:
    lines = DOCKERFILE.splitlines()
    assert "USER scheduler" in lines[: [line[:3] for line in lines].index("CMD")]
    assert "--require-hashes -r requirements.txt" in DOCKERFILE
