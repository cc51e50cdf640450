"""Google's cloud and a container engine, as far as deploy.sh can tell: programs `gcloud` and `docker` that ask here.

It keeps what was created, records every command with what came in on its standard input, can refuse any of them, and
starts what was deployed as the platform would: from the staged folder and the environment, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.emulator.data_dir import DataDir
from tests.emulator.ports import LOCALHOST, free_port
from tests.emulator.processes import ChildProcess, http_status

PROJECT = "peer-mentors-1"
# What stands in front of both names on PATH.
PROGRAM = """\
#!{python} -ISE
import json, os, socket, sys
name = os.path.basename(sys.argv[0])
given = sys.stdin.read() if "--data-file=-" in sys.argv else ""
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect({socket!r})
    asked.sendall(json.dumps([name, *sys.argv[1:]]).encode() + b"\\n" + given.encode())
    asked.shutdown(socket.SHUT_WR)
    answer = json.loads(b"".join(iter(lambda: asked.recv(65536), b"")))
sys.stdout.write(answer["stdout"])
sys.stderr.write(answer["stderr"])
sys.exit(answer["code"])
"""


class RefusedError(Exception):
    """The command fails as the real one would; the text goes to standard error."""


@dataclass
class Command:
    """One command as it was given: the words that are no options, and the options."""

    program: str
    argv: list[str]
    given: str
    words: list[str] = field(init=False)
    options: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.words = [word for word in self.argv if not word.startswith("--")]
        named = [word[2:].partition("=") for word in self.argv if word.startswith("--")]
        self.options = {name: value for name, _, value in named}

    @property
    def text(self) -> str:
        return " ".join([self.program, *self.words])


@dataclass
class Service:
    """What runs: its staged folder, its environment, and where."""

    port: int
    source: Path | None = None
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    revision: int = 0
    ready: int = 0
    process: ChildProcess | None = None

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.port}"


@dataclass
class Stored:
    """A secret: its versions, None for one that was destroyed, and who may read it."""

    versions: list[str | None] = field(default_factory=list)
    readers: set[str] = field(default_factory=set)

    @property
    def enabled(self) -> list[int]:
        """The numbers of the versions that are left, the newest first."""
        return [number for number, value in reversed(list(enumerate(self.versions, 1))) if value is not None]


class PretendCloud:
    """`async with`: the two programs are in `bin` and answer inside the block.

    Args:
        folder: a folder of its own.
        data_dir: where the processes and their logs are kept.
        name: what the processes' logs begin with.
    """

    def __init__(self, folder: Path, data_dir: DataDir, name: str) -> None:
        self.bin = folder / "bin"
        self.commands: list[Command] = []
        self.enabled: set[str] = set()
        self.accounts: set[str] = set()
        self.secrets: dict[str, Stored] = {}
        self.services: dict[str, Service] = {}
        self.images: dict[str, Path] = {}
        self.pushed: list[str] = []
        # Words with which a command begins that is refused from now on.
        self.refuse: str | None = None
        # Runs before a revision takes over from the one before.
        self.before_revision: Callable[[Service, dict[str, str]], Awaitable[None]] | None = None
        self._folder = folder
        self._data_dir = data_dir
        self._name = name
        self._builds = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self.bin.mkdir(parents=True)
        socket = self._folder / "socket"
        for name in ("gcloud", "docker"):
            program = self.bin / name
            program.write_text(PROGRAM.format(python=sys.executable, socket=str(socket)))
            program.chmod(0o755)
        self._server = await asyncio.start_unix_server(self._serve, socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for service in self.services.values():
            if service.process is not None and service.process.alive:
                await service.process.kill()

    @property
    def changes(self) -> list[str]:
        """The commands that change something, in their order."""
        looking = {"list", "describe", "access", "get-iam-policy"}
        return [command.text for command in self.commands if not looking & set(command.words)]

    def forget_commands(self) -> None:
        self.commands.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        argv = json.loads(await reader.readline())
        command = Command(argv[0], argv[1:], (await reader.read()).decode())
        self.commands.append(command)
        answer = {"stdout": "", "stderr": "", "code": 0}
        try:
            if self.refuse is not None and command.text.startswith(self.refuse):
                raise RefusedError("PERMISSION_DENIED: the caller does not have permission")
            printed = await self._carry_out(command)
            answer["stdout"] = printed if isinstance(printed, str) else "".join(f"{line}\n" for line in printed)
        except RefusedError as error:
            answer |= {"stderr": f"ERROR: ({command.text}) {error}\n", "code": 1}
        writer.write(json.dumps(answer).encode())
        await writer.drain()
        writer.close()

    async def _carry_out(self, command: Command) -> str | list[str]:
        """What it prints: a text as it stands, or lines."""
        if command.program == "gcloud" and command.options.get("project") != PROJECT:
            raise RefusedError(f"the project [{command.options.get('project')}] is not there")
        method = getattr(self, "_" + "_".join(_verb(command)).replace("-", "_"), None)
        if method is None:
            raise RefusedError("Invalid choice")
        found: Any = method(command)
        if isinstance(found, Awaitable):
            found = await found
        return found or []

    # --- gcloud ---

    def _projects_describe(self, _: Command) -> list[str]:
        return ["123456789012"]

    def _services_list(self, _: Command) -> list[str]:
        return sorted(self.enabled)

    def _services_enable(self, command: Command) -> None:
        self.enabled |= set(command.words[2:])

    def _iam_service_accounts_list(self, _: Command) -> list[str]:
        return sorted(self.accounts)

    def _iam_service_accounts_create(self, command: Command) -> None:
        self.accounts.add(f"{command.words[3]}@{PROJECT}.iam.gserviceaccount.com")

    def _iam_service_accounts_delete(self, command: Command) -> None:
        self.accounts.remove(command.words[3])

    def _secrets_list(self, command: Command) -> list[str]:
        return _named(command, [f"projects/1/secrets/{name}" for name in sorted(self.secrets)])

    def _secrets_create(self, command: Command) -> None:
        if command.words[2] in self.secrets:
            raise RefusedError("ALREADY_EXISTS")
        self.secrets[command.words[2]] = Stored()

    def _secrets_delete(self, command: Command) -> None:
        del self.secrets[command.words[2]]

    def _secrets_versions_list(self, command: Command) -> list[str]:
        name = command.words[3]
        numbers = self._stored(name).enabled[: int(command.options.get("limit", 1000))]
        return _named(command, [f"projects/1/secrets/{name}/versions/{number}" for number in numbers])

    def _secrets_versions_access(self, command: Command) -> str:
        # Exactly as it was put in, without a line's end.
        value = self._stored(command.options["secret"]).versions[int(command.words[3]) - 1]
        if value is None:
            raise RefusedError("FAILED_PRECONDITION: destroyed")
        return value

    def _secrets_versions_add(self, command: Command) -> list[str]:
        name = command.words[3]
        self._stored(name).versions.append(command.given)
        return _named(command, [f"projects/1/secrets/{name}/versions/{len(self._stored(name).versions)}"])

    def _secrets_versions_destroy(self, command: Command) -> None:
        self._stored(command.options["secret"]).versions[int(command.words[3]) - 1] = None

    def _secrets_get_iam_policy(self, command: Command) -> list[str]:
        return sorted(self._stored(command.words[2]).readers)

    def _secrets_add_iam_policy_binding(self, command: Command) -> None:
        if command.options["role"] != "roles/secretmanager.secretAccessor":
            raise RefusedError("another role than expected")
        if command.options["member"].removeprefix("serviceAccount:") not in self.accounts:
            raise RefusedError("the service account does not exist")
        self._stored(command.words[2]).readers.add(command.options["member"])

    def _run_services_list(self, _: Command) -> list[str]:
        return sorted(self.services)

    def _run_services_describe(self, command: Command) -> list[str]:
        service = self.services.get(command.words[3])
        if service is None:
            raise RefusedError("Cannot find service")
        if command.options["format"] == "value(status.url)":
            return [service.url]
        names = (f"revision-{service.revision}", f"revision-{service.ready}" if service.ready else "")
        return ["|".join([service.labels.get("source_digest", ""), service.labels.get("settings_digest", ""), *names])]

    async def _run_deploy(self, command: Command) -> None:
        needed = {"services": {"run.googleapis.com", "cloudbuild.googleapis.com"} - self.enabled}
        if any(needed.values()):
            raise RefusedError(f"{needed} not enabled")
        service = self.services.setdefault(command.words[2], Service(free_port()))
        # A build takes a copy, and the folder is gone soon.
        self._builds += 1
        service.source = self._folder / f"source-{self._builds}"
        shutil.copytree(command.options["source"], service.source)
        await self._new_revision(service, command)

    async def _run_services_update(self, command: Command) -> None:
        await self._new_revision(self.services[command.words[3]], command)

    async def _run_services_delete(self, command: Command) -> None:
        process = self.services.pop(command.words[3]).process
        if process is not None:
            await process.kill()

    # --- docker ---

    def _docker_build(self, command: Command) -> None:
        # --tag NAME FOLDER: the option's value stands alone here.
        _, image, folder = command.words
        self.images[image] = self._folder / f"image-{len(self.images)}"
        shutil.copytree(folder, self.images[image])

    def _docker_push(self, command: Command) -> None:
        if command.words[1] not in self.images:
            raise RefusedError("An image does not exist locally with this tag")
        self.pushed.append(command.words[1])

    # --- what runs ---

    async def _new_revision(self, service: Service, command: Command) -> None:
        options = command.options
        account = options["service-account"]
        env = json.loads(await asyncio.to_thread(Path(options["env-vars-file"]).read_text))
        for told in options["set-secrets"].split(","):
            name, _, place = told.partition("=")
            secret, _, version = place.partition(":")
            value = self._stored(secret).versions[int(version) - 1]
            if value is None or f"serviceAccount:{account}" not in self._stored(secret).readers:
                raise RefusedError(f"{account} may not read {secret}")
            env[name] = value
        service.revision += 1
        service.options |= options
        service.labels |= dict(label.split("=") for label in options["update-labels"].split(","))
        if self.before_revision is not None:
            await self.before_revision(service, env)
        await self.serve(service, env)
        service.ready = service.revision

    async def serve(
        self,
        service: Service,
        env: dict[str, str],
        argv: Sequence[str] = (sys.executable, "-m", "functions_framework", "--host", LOCALHOST),
    ) -> None:
        """Starts what is in the folder with this environment; what ran there before ends."""
        assert service.source is not None
        service.env = env
        if service.process is not None and service.process.alive:
            await service.process.kill()
        process = ChildProcess(
            f"function-{self._name}-deployed",
            argv,
            data_dir=self._data_dir,
            # What the platform adds to the environment, and nothing of this one's.
            env={
                "PATH": os.defpath,
                "HOME": str(self._folder),
                "PORT": str(service.port),
                **({"FUNCTION_TARGET": service.options["function"]} if service.options else {}),
                **env,
            },
            cwd=service.source,
        )
        service.process = process
        await process.start()

        async def is_up() -> bool:
            return await http_status(service.port, "/health") == 200

        await process.until_ready(is_up)

    def _stored(self, name: str) -> Stored:
        if name not in self.secrets:
            raise RefusedError(f"NOT_FOUND: Secret [{name}]")
        return self.secrets[name]


def _verb(command: Command) -> list[str]:
    """The words that say what to do."""
    words = command.words
    if command.program == "docker":
        return ["docker", words[0]]
    if words[0] in ("run", "iam") and words[1] in ("services", "service-accounts"):
        return words[:3]
    return words[:3] if words[:2] == ["secrets", "versions"] else words[:2]


def _named(command: Command, names: list[str]) -> list[str]:
    """Names as `value(name)` prints them, or only their ends."""
    return [name.rpartition("/")[2] for name in names] if "basename()" in command.options["format"] else names
