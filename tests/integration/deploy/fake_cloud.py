"""Programs `gcloud` and `docker` that keep what is created, and start what is deployed as the platform would.

Beside them a `supabase` that applies migrations at once: the real CLI takes a second, and one test has it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.emulator.data_dir import DataDir
from tests.emulator.migrations import apply_migrations
from tests.emulator.ports import LOCALHOST, free_port
from tests.emulator.processes import ChildProcess, http_status

PROJECT = "peer-mentors-1"
LOOKING = {"list", "describe", "access"}
# In bash, which starts in a tenth of Python's time: a deployment calls gcloud thirty times.
PROGRAM = """\
#!/bin/bash
exec 3<>/dev/tcp/{host}/{port}
if [[ " $* " == *' --data-file=- '* ]]; then given=$(cat; echo .); fi
printf '%s\\0' "${{0##*/}}" "$@" "=${{given%.}}" '' >&3
read -r code <&3
if [[ $code == 0 ]]; then cat <&3; else cat <&3 >&2; fi
exit "$code"
"""


class RefusedError(Exception):
    """The command fails; the text goes to standard error."""


@dataclass
class Service:
    """What runs: its staged folder, its environment, the options that it was deployed with, and where.

    A service whose traffic is `pinned` goes on running as it was, until the traffic is sent to the latest revision.
    """

    port: int
    source: Path | None = None
    env: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    is_ready: bool = False
    pinned: bool = False
    latest_env: dict[str, str] = field(default_factory=dict)
    process: ChildProcess | None = None

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.port}"


@dataclass
class FakeCloud:
    """`async with`: the programs in `bin` and `cli` work inside the block; what begins with `refuse` is refused.

    `changes` are the commands that changed something, `argv` the arguments of all. `secrets` are versions by number.
    """

    folder: Path
    data_dir: DataDir
    name: str
    database_url: str
    changes: list[str] = field(default_factory=list)
    argv: list[str] = field(default_factory=list)
    enabled: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    secrets: dict[str, dict[int, str]] = field(default_factory=dict)
    readers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    services: dict[str, Service] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)
    pushed: list[str] = field(default_factory=list)
    refuse: str | None = None
    before_revision: Callable[[Service, dict[str, str]], Awaitable[None]] | None = None

    async def __aenter__(self) -> Self:
        self.bin, self.cli = self.folder / "bin", self.folder / "cli"
        port = free_port()
        for program in (self.bin / "gcloud", self.bin / "docker", self.cli / "supabase"):
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(PROGRAM.format(host=LOCALHOST, port=port))
            program.chmod(0o755)
        self._server = await asyncio.start_server(self._serve, LOCALHOST, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for service in self.services.values():
            await self._end(service)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        program, *argv, given = (await reader.readuntil(b"\0\0")).decode()[:-2].split("\0")
        words = [program, *(word for word in argv if not word.startswith("--"))]
        options = {word[2:].partition("=")[0]: word.partition("=")[2] for word in argv if word.startswith("--")}
        command = " ".join(words)
        self.argv += argv
        if program != "supabase" and not LOOKING & set(words):
            self.changes.append(command)
        try:
            if self.refuse is not None and command.startswith(self.refuse):
                raise RefusedError("PERMISSION_DENIED: the caller does not have permission")
            if program == "gcloud" and options.get("project") != PROJECT:
                raise RefusedError("the project is not there")
            answer = "0\n" + "\n".join(await self._carry_out(words, options, given[1:]))
        except (RefusedError, KeyError) as error:
            answer = f"1\nERROR: ({command}) {error}\n"
        writer.write(answer.encode())
        await writer.drain()
        writer.close()

    async def _carry_out(self, words: list[str], options: Mapping[str, str], given: str) -> Iterable[str]:
        """Returns the lines that are printed, the last one without its end: a secret is printed exactly as it is."""
        match words:
            case ["gcloud", "projects", "describe", _]:
                return []
            case ["gcloud", "services", "list"]:
                return sorted(self.enabled)
            case ["gcloud", "services", "enable", *names]:
                self.enabled.update(names)
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
            case ["gcloud", "secrets", "describe", name] if name in self.secrets:
                return [name]
            case ["gcloud", "secrets", "create", name] if name not in self.secrets:
                self.secrets[name] = {}
            case ["gcloud", "secrets", "delete", name]:
                del self.secrets[name]
            case ["gcloud", "secrets", "versions", "list", name]:
                return [str(number) for number in sorted(self.secrets[name], reverse=True)]
            case ["gcloud", "secrets", "versions", "add", name]:
                number = max(self.secrets[name], default=0) + 1
                self.secrets[name][number] = given
                return [str(number)]
            case ["gcloud", "secrets", "versions", "access", number]:
                return [self.secrets[options["secret"]][int(number)]]
            case ["gcloud", "secrets", "versions", "destroy", number]:
                del self.secrets[options["secret"]][int(number)]
            case ["gcloud", "secrets", "add-iam-policy-binding", name] if (
                options["role"] == "roles/secretmanager.secretAccessor"
                and options["member"].removeprefix("serviceAccount:") in self.accounts
            ):
                self.readers[name].add(options["member"])
            case ["gcloud", "run", "services", "list"]:
                return sorted(self.services)
            case ["gcloud", "run", "services", "describe", name]:
                service = self.services[name]
                labels = dict(label.split("=") for label in service.options["update-labels"].split(","))
                state = f"{labels['source_digest']}|{labels['options_digest']}|r|{'r' if service.is_ready else ''}"
                return [service.url if options["format"] == "value(status.url)" else state]
            case ["gcloud", "run", "deploy", name] if "run.googleapis.com" in self.enabled:
                service = self.services.setdefault(name, Service(free_port()))
                service.source = self._build(options["source"])
                await self._new_revision(service, options)
            case ["gcloud", "run", "services", "update", name]:
                await self._new_revision(self.services[name], options)
            case ["gcloud", "run", "services", "update-traffic", name] if "to-latest" in options:
                self.services[name].pinned = False
                await self.serve(self.services[name], self.services[name].latest_env)
            case ["gcloud", "run", "services", "delete", name]:
                await self._end(self.services.pop(name))
            case ["supabase", "db", "push"] if "dry-run" not in options:
                return await apply_migrations(self.database_url, Path(options["workdir"]) / "supabase" / "migrations")
            case ["supabase", "db", "push"]:
                pass
            case ["docker", "build", image, folder]:
                self.images[image] = self._build(folder)
            case ["docker", "push", image] if image in self.images:
                self.pushed.append(image)
            case _:
                raise RefusedError("Invalid choice")
        return []

    def _build(self, folder: str) -> Path:
        return Path(shutil.copytree(folder, self.folder / f"copy-of-{Path(folder).parent.name}"))

    async def _new_revision(self, service: Service, options: Mapping[str, str]) -> None:
        account = options["service-account"]
        env = json.loads(await asyncio.to_thread(Path(options["env-vars-file"]).read_text))
        for mapping in options["set-secrets"].split(","):
            name, _, place = mapping.partition("=")
            secret, _, version = place.partition(":")
            if f"serviceAccount:{account}" not in self.readers[secret]:
                raise RefusedError(f"{account} may not read {secret}")
            env[name] = self.secrets[secret][int(version)]
        service.options |= options
        service.is_ready = False
        if self.before_revision is not None:
            await self.before_revision(service, env)
        service.latest_env = env
        if not service.pinned:
            await self.serve(service, env)
        service.is_ready = True

    async def serve(
        self,
        service: Service,
        env: dict[str, str],
        argv: Sequence[str] = (sys.executable, "-m", "functions_framework", "--host", LOCALHOST),
    ) -> None:
        """Starts what is in the folder with this environment, and ends what ran there before."""
        assert service.source is not None
        await self._end(service)
        service.env = env
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
