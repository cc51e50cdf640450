"""What some tests need of the system: how it is installed, and what becomes of the tests where it is missing.

`make test` runs this module first. As root, or with a sudo that asks for no password, it installs what is missing from
the packages of Debian or Ubuntu; without them it gets Playwright's own Chromium. Tests that need what is still missing
are skipped, and one line at the end says how to get it. In CI nothing is skipped: there it is an error.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from tests.emulator.cache import make_once
from tests.emulator.extensions import STAND_INS, copy_missing, extensions_folder
from tests.emulator.postgres import PostgresBinaries

# Hosted projects are on 15 or newer.
OLDEST_SERVER = 15
WALL_CLOCK = Path(__file__).parent / "wall_clock.c"
SKIPPED = "not on this system: "
WHERE_ITS_CHROMIUM_BELONGS = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""
# The package would make a cluster and start a server on it. The tests start servers of their own.
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/tests-make-their-own.conf")


class Requirement(NamedTuple):
    """Something that some tests cannot do without, and Debian's packages of it."""

    name: str
    packages: tuple[str, ...]
    is_there: Callable[[], bool]


def _program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


REQUIREMENTS = (
    Requirement("curl", ("curl",), _program("curl")),
    Requirement("a C compiler", ("gcc", "libc6-dev"), _program("cc")),
    Requirement(
        "PostgreSQL 15 with pg_cron",
        ("postgresql-15", "postgresql-15-cron"),
        Path("/usr/lib/postgresql/15/lib/pg_cron.so").exists,
    ),
    Requirement("pgTAP", ("postgresql-15-pgtap",), Path("/usr/share/postgresql/15/extension/pgtap.control").exists),
    Requirement(
        "PostgreSQL's headers",
        ("postgresql-server-dev-15",),
        Path("/usr/include/postgresql/15/server/postgres.h").exists,
    ),
    # The fonts: without any, a page has no letters. The library: Playwright's driver is a Node.js of its own.
    Requirement("Chromium", ("chromium", "fonts-dejavu-core", "libatomic1"), lambda: find_chromium() is not None),
)


def main() -> int:
    """Install what is missing, if that is possible; the exit code is 1 in CI if something still is."""
    if _missing() and shutil.which("apt-get"):
        if os.geteuid() == 0:
            install_packages()
        elif _sudo_asks_for_no_password():
            install = "from tests.faults.system_packages import install_packages; install_packages()"
            subprocess.run(["sudo", "-n", sys.executable, "-B", "-c", install])
    if find_chromium() is None:
        _download_chromium()
    missing = ", ".join(requirement.name for requirement in _missing())
    if missing and os.environ.get("CI"):
        print(f"CI runs every test, but {missing} could not be installed", file=sys.stderr)
        return 1
    return 0


def install_packages() -> None:
    """Install the packages of what is missing, as root; those that this system has."""
    subprocess.run(["apt-get", "update", "-qq"])
    wanted: list[str] = []
    for requirement in _missing():
        if absent := [package for package in requirement.packages if not _can_be_installed(package)]:
            system = platform.freedesktop_os_release().get("PRETTY_NAME", "this system")
            print(f"the packages of {system} have no {', '.join(absent)}", file=sys.stderr)
        else:
            wanted += requirement.packages
    if not wanted:
        return
    print(f"installing {' '.join(wanted)}", flush=True)
    NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
    NO_CLUSTER.write_text("create_main_cluster = false\n")
    subprocess.run(
        # no-upgrade: a server that is there and may be running is left as it is
        ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "--no-upgrade", *wanted],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    # an account that is not root's may not put them there, and PostgreSQL reads no other folder before 18
    for server in _servers():
        if server.major < 18:
            copy_missing(extensions_folder(), server.extensions)


def server_with_pg_cron() -> PostgresBinaries:
    """The newest PostgreSQL of the system that has the real pg_cron; see `not_there` for where it has none."""
    return _newest_server_with("pg_cron", "the real pg_cron", "postgresql-15 and postgresql-15-cron")


def server_with_pgtap() -> PostgresBinaries:
    """The newest PostgreSQL of the system that has pgTAP; see `not_there` for where it has none."""
    return _newest_server_with("pgtap", "pgTAP", "postgresql-15, postgresql-15-cron and postgresql-15-pgtap")


def _newest_server_with(extension: str, called: str, packages: str) -> PostgresBinaries:
    fitting = [server for server in _servers() if server.major >= OLDEST_SERVER and server.has_own(extension)]
    if not fitting:
        not_there(f"no PostgreSQL with {called}", f"install the packages {packages}")
    newest = max(fitting, key=lambda server: server.major)
    others = [name for name in ("pgmq", *STAND_INS) if not (newest.extensions / f"{name}.control").exists()]
    if others and newest.major < 18 and not os.access(newest.extensions, os.W_OK):
        not_there(
            f"no right to write to {newest.extensions}",
            f"PostgreSQL {newest.major} reads extensions from there only, and {', '.join(others)} would be put there; "
            "run `make test` once as root",
        )
    return newest


def wall_clock_library() -> Path:
    """wall_clock.c, compiled once; see `not_there` for where the system cannot."""
    compiler = shutil.which("cc")
    if compiler is None:
        not_there("no C compiler", "install the packages gcc and libc6-dev")
    name = WALL_CLOCK.with_suffix(".so").name

    def compile_in(folder: Path) -> None:
        options = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror")
        subprocess.run([compiler, *options, "-o", folder / name, WALL_CLOCK], check=True)

    digest = hashlib.sha256(WALL_CLOCK.read_bytes()).hexdigest()[:16]
    return make_once(f"wall-clock-{digest}", compile_in) / name


def require_curl() -> None:
    """For a test that runs commands of the documents as they stand; see `not_there` for where there is no curl."""
    if shutil.which("curl") is None:
        not_there("no curl", "install the package curl")


def find_chromium() -> Path | None:
    """The system's, else Playwright's own; None where neither is, or Playwright's driver does not run."""
    asked = subprocess.run([sys.executable, "-c", WHERE_ITS_CHROMIUM_BELONGS], capture_output=True, text=True)
    if asked.returncode != 0:
        return None
    found = Path(shutil.which("chromium") or asked.stdout.strip())
    return found if found.exists() else None


def not_there(what: str, remedy: str) -> NoReturn:
    """Fail in CI, where everything has to be there; elsewhere skip, and say what to install."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}: `make test` should have installed it", pytrace=False)
    pytest.skip(f"{SKIPPED}{what}: {remedy}")


def summary(skipped: Sequence[pytest.TestReport]) -> str | None:
    """One line about the tests that were skipped for what the system lacks, and how to get it; None if none was."""
    reasons = [report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple)]
    lacking = [reason.partition(SKIPPED)[2].partition(":")[0] for reason in reasons if SKIPPED in reason]
    if not lacking:
        return None
    packages = " ".join(package for requirement in _missing() for package in requirement.packages)
    return (
        f"{len(lacking)} skipped, because this system has {', '.join(sorted(set(lacking)))}. On Debian and Ubuntu "
        "`make test` installs what is missing if it runs as root, or sudo asks for no password; by hand: "
        f"apt-get install {packages} (apt.postgresql.org has PostgreSQL 15 where the system has not)"
    )


def _missing() -> list[Requirement]:
    return [requirement for requirement in REQUIREMENTS if not requirement.is_there()]


def _servers() -> list[PostgresBinaries]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return [PostgresBinaries.find({"EMULATOR_POSTGRES_BIN": str(path.parent)}) for path in found]


def _can_be_installed(package: str) -> bool:
    if package == "chromium" and platform.freedesktop_os_release().get("ID") == "ubuntu":
        return False  # there the package only installs a snap
    untranslated = os.environ | {"LC_ALL": "C"}
    policy = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True, env=untranslated)
    return "Candidate: " in policy.stdout and "Candidate: (none)" not in policy.stdout


def _sudo_asks_for_no_password() -> bool:
    return bool(shutil.which("sudo")) and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0


def _download_chromium() -> None:
    print("downloading Playwright's Chromium", flush=True)
    with_libraries = shutil.which("apt-get") and (os.geteuid() == 0 or _sudo_asks_for_no_password())
    options = ["--with-deps"] if with_libraries else []
    subprocess.run([sys.executable, "-m", "playwright", "install", *options, "chromium"], stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
