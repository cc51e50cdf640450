"""Google's cloud and a container engine, as far as deploy.sh can tell: programs `gcloud` and `docker` that ask here.

It keeps what was created, can refuse any command, and starts what was deployed as the platform would: from the staged
folder and the environment, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.emulator.data_dir import DataDir
from tests.emulator.ports import LOCALHOST, free_port
from tests.emulator.processes import ChildProcess, http_status

PROJECT = "peer-mentors-1"
LOOKING = {"list", "describe", "access", "get-iam-policy"}
# What stands in front of both names on PATH.
PROGRAM = """\
#!{python} -ISE
import json, os, socket, sys
name = os.path.basename(sys.argv[0])
given = sys.stdin.read() if "--data-file=-" in sys.argv else ""
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect({socket!r})
    words = [os.environ.get("CLOUDSDK_CORE_PROJECT"), name, *sys.argv[1:]]
    asked.sendall(json.dumps(words).encode() + b"\\n" + given.encode())
    asked.shutdown(socket.SHUT_WR)
    answer = json.loads(b"".join(iter(lambda: asked.recv(65536), b"")))
sys.stdout.write(answer["stdout"])
sys.stderr.write(answer["stderr"])
sys.exit(answer["code"])
"""


class RefusedError(Exception):
    """The command fails as the real one would; the text goes to standard error."""


@dataclass
class Service:
    """What runs: its staged folder, its environment, the options that it was deployed with, and where."""

    port: int
    source: Path | None = None
    env: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    revision: int = 0
    ready: int = 0
    process: ChildProcess | None = None

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.port}"


@dataclass
class Stored:
    """A secret: its versions that are left, by number, how many there ever were, and who may read it."""

    versions: dict[int, str] = field(default_factory=dict)
    ever: int = 0
    readers: set[str] = field(default_factory=set)


@dataclass
class FakeCloud:
    """`async with`: the two programs are in `bin` and answer inside the block.

    `changes` are the commands that change something, `argv` the arguments of all. What begins with `refuse` is refused.
    `before_revision` runs before a revision takes over from the one before.
    """

    folder: Path
    data_dir: DataDir
    name: str
    changes: list[str] = field(default_factory=list)
    argv: list[str] = field(default_factory=list)
    enabled: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    secrets: dict[str, Stored] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)
    pushed: list[str] = field(default_factory=list)
    refuse: str | None = None
    before_revision: Callable[[Service, dict[str, str]], Awaitable[None]] | None = None

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    async def __aenter__(self) -> Self:
        self.bin.mkdir(parents=True)
        socket = self.folder / "socket"
        for name in ("gcloud", "docker"):
            (self.bin / name).write_text(PROGRAM.format(python=sys.executable, socket=str(socket)))
            (self.bin / name).chmod(0o755)
        self._server = await asyncio.start_unix_server(self._serve, socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for service in self.services.values():
            await self._end(service)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        project, program, *argv = json.loads(await reader.readline())
        given = (await reader.read()).decode()
        words = [program, *(word for word in argv if not word.startswith("--"))]
        options = {word[2:].partition("=")[0]: word.partition("=")[2] for word in argv if word.startswith("--")}
        self.argv += argv
        if not LOOKING & set(words):
            self.changes.append(" ".join(words))
        answer = {"stdout": "", "stderr": "", "code": 0}
        try:
            if self.refuse is not None and " ".join(words).startswith(self.refuse):
                raise RefusedError("PERMISSION_DENIED: the caller does not have permission")
            if program == "gcloud" and project != PROJECT:
                raise RefusedError(f"the project [{project}] is not there")
            printed = await self._carry_out(words, options, given)
            answer["stdout"] = printed if isinstance(printed, str) else "".join(f"{line}\n" for line in printed)
        except (RefusedError, KeyError) as error:
            answer |= {"stderr": f"ERROR: ({' '.join(words)}) {error}\n", "code": 1}
        writer.write(json.dumps(answer).encode())
        await writer.drain()
        writer.close()

    async def _carry_out(self, words: list[str], options: Mapping[str, str], given: str) -> str | list[str]:
        """What it prints: a text as it stands, or lines."""
        match words:
            case ["gcloud", "projects", "describe", _]:
                return ["123456789012"]
            case ["gcloud", "services", "list"]:
                return sorted(self.enabled)
            case ["gcloud", "services", "enable", *names]:
                self.enabled |= set(names)
            case ["gcloud", "iam", "service-accounts", "list"]:
                return sorted(self.accounts)
            case ["gcloud", "iam", "service-accounts", "describe", account] if account in self.accounts:
                return [account]
            case ["gcloud", "iam", "service-accounts", "create", name]:
                self.accounts.add(f"{name}@{PROJECT}.iam.gserviceaccount.com")
            case ["gcloud", "iam", "service-accounts", "delete", account]:
                self.accounts.remove(account)
            case ["gcloud", "secrets", "list"]:
                return sorted(self.secrets)
            case ["gcloud", "secrets", "create", name] if name not in self.secrets:
                self.secrets[name] = Stored()
            case ["gcloud", "secrets", "delete", name]:
                del self.secrets[name]
            case ["gcloud", "secrets", "versions", "list", name]:
                return [str(number) for number in sorted(self.secrets[name].versions, reverse=True)]
            case ["gcloud", "secrets", "versions", "add", name]:
                stored = self.secrets[name]
                stored.ever += 1
                stored.versions[stored.ever] = given
                return [str(stored.ever)]
            case ["gcloud", "secrets", "versions", "access", number]:
                # Exactly as it was put in, without a line's end.
                return self.secrets[options["secret"]].versions[int(number)]
            case ["gcloud", "secrets", "versions", "destroy", number]:
                del self.secrets[options["secret"]].versions[int(number)]
            case ["gcloud", "secrets", "get-iam-policy", name]:
                return sorted(self.secrets[name].readers)
            case ["gcloud", "secrets", "add-iam-policy-binding", name] if (
                options["role"] == "roles/secretmanager.secretAccessor"
                and options["member"].removeprefix("serviceAccount:") in self.accounts
            ):
                self.secrets[name].readers.add(options["member"])
            case ["gcloud", "run", "services", "list"]:
                return sorted(self.services)
            case ["gcloud", "run", "services", "describe", name]:
                return [self._described(self.services[name], options["format"])]
            case ["gcloud", "run", "deploy", name] if "run.googleapis.com" in self.enabled:
                service = self.services.setdefault(name, Service(free_port()))
                service.source = self._copied(options["source"])
                await self._new_revision(service, options)
            case ["gcloud", "run", "services", "update", name]:
                await self._new_revision(self.services[name], options)
            case ["gcloud", "run", "services", "delete", name]:
                await self._end(self.services.pop(name))
            case ["docker", "build", image, folder]:
                self.images[image] = self._copied(folder)
            case ["docker", "push", image] if image in self.images:
                self.pushed.append(image)
            case _:
                raise RefusedError("Invalid choice")
        return []

    def _copied(self, folder: str) -> Path:
        """A build takes a copy, and the folder is gone soon."""
        return Path(shutil.copytree(folder, self.folder / f"copy-of-{Path(folder).parent.name}"))

    def _described(self, service: Service, wanted: str) -> str:
        if wanted == "value(status.url)":
            return service.url
        labels = dict(label.split("=") for label in service.options.get("update-labels", "").split(",") if label)
        ready = f"revision-{service.ready}" if service.ready else ""
        digests = [labels.get(name, "") for name in ("source_digest", "settings_digest")]
        return "|".join([*digests, f"revision-{service.revision}", ready])

    async def _new_revision(self, service: Service, options: Mapping[str, str]) -> None:
        account = options["service-account"]
        env = json.loads(await asyncio.to_thread(Path(options["env-vars-file"]).read_text))
        for mapping in options["set-secrets"].split(","):
            name, _, place = mapping.partition("=")
            secret, _, version = place.partition(":")
            if f"serviceAccount:{account}" not in self.secrets[secret].readers:
                raise RefusedError(f"{account} may not read {secret}")
            env[name] = self.secrets[secret].versions[int(version)]
        service.revision += 1
        service.options |= options
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
        await self._end(service)
        service.env = env
        # What the platform adds to the environment, and nothing of this one's.
        platform = {"PATH": os.defpath, "HOME": str(self.folder), "PORT": str(service.port)}
        if service.options:
            platform["FUNCTION_TARGET"] = service.options["function"]
        service.process = ChildProcess(
            f"function-{self.name}-deployed", argv, data_dir=self.data_dir, env=platform | env, cwd=service.source
        )
        await service.process.start()

        async def is_up() -> bool:
            return await http_status(service.port, "/health") == 200

        await service.process.until_ready(is_up)

    async def _end(self, service: Service) -> None:
        if service.process is not None and service.process.alive:
            await service.process.kill()
