"""The account that PostgreSQL runs as, since it refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import EmulatorError

# Debian's account that owns nothing.
UNPRIVILEGED_UID = 65534


@dataclass(frozen=True)
class Account:
    """A system account to become; `None` ids: stay the current user."""

    name: str | None = None
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def for_postgres(cls) -> Account:
        """Debian's `postgres` where it exists, else the account without rights; without root, the current user."""
        if os.geteuid() != 0:
            return cls()
        fit = [entry for entry in pwd.getpwall() if entry.pw_name == "postgres" or entry.pw_uid == UNPRIVILEGED_UID]
        if not fit:
            raise EmulatorError("no account `postgres` to run PostgreSQL as: run the emulator without root")
        chosen = max(fit, key=lambda entry: entry.pw_name == "postgres")
        return cls(chosen.pw_name, chosen.pw_uid, chosen.pw_gid)

    @property
    def popen_options(self) -> dict[str, Any]:
        """Options for subprocess to start a process as this account, without the groups of root."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can_use(self, path: Path) -> bool:
        """Returns whether this account may execute or enter it: every folder above it counts, not its mode alone."""
        if self.uid is None:
            return os.access(path, os.X_OK)
        test = subprocess.run(["/bin/sh", "-c", 'test -x "$1"', "sh", path], cwd="/", **self.popen_options)
        return test.returncode == 0

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)
