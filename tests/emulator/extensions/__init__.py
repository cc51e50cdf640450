"""The extensions that Supabase's servers have and a plain PostgreSQL has not, as files that PostgreSQL reads."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from pathlib import Path

from ..cache import make_once
from ..errors import EmulatorError

STAND_INS = ("pg_net", "supabase_vault", "pg_cron")

PGMQ_CONTROL = """\
comment = 'A lightweight message queue, from the SQL in the pgmq wheel'
default_version = '{version}'
relocatable = false
schema = pgmq
superuser = false
"""


def extensions_folder() -> Path:
    """Returns a folder with `extension/*.control` and their SQL for `extension_control_path`, made once per content."""
    files = _files()
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]

    def write(folder: Path) -> None:
        (folder / "extension").mkdir(mode=0o755)
        for name, text in files.items():
            path = folder / "extension" / name
            path.write_text(text)
            path.chmod(0o644)

    return make_once(f"extensions-{digest}", write)


def copy_missing(folder: Path, target: Path) -> None:
    """Copies the files beside the server's own: before PostgreSQL 18 it reads no other folder."""
    for control in (folder / "extension").glob("*.control"):
        if (target / control.name).exists() and not _is_ours(target / control.name):
            continue
        try:
            for file in (folder / "extension").glob(f"{control.stem}*"):
                _copy_whole(file, target / file.name)
        except OSError as error:
            raise EmulatorError(
                f"cannot add the extension {control.stem} to {target} ({error.strerror}): "
                "make that folder writable, or unset EMULATOR_POSTGRES_BIN to use the PostgreSQL 18 of the wheel"
            ) from error


def _copy_whole(source: Path, target: Path) -> None:
    """Copies in one step unless it is there: another server may be reading the file just now."""
    if target.exists() and target.read_bytes() == source.read_bytes():
        return
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy(source, draft)
    draft.replace(target)


def _is_ours(control: Path) -> bool:
    text = control.read_text()
    return "Stand-in for" in text or "from the SQL in the pgmq wheel" in text


def _files() -> dict[str, str]:
    here = Path(__file__).parent
    files = {
        path.name: path.read_text() for name in STAND_INS for path in sorted(here.glob(f"{name}*")) if path.is_file()
    }
    # found, not imported: that would cost half a second for a client that is not used here
    pgmq = importlib.util.find_spec("pgmq")
    if pgmq is None or pgmq.origin is None:
        raise EmulatorError("the wheel `pgmq` is not installed: run `make install`")
    sql = Path(pgmq.origin).parent / "sql" / "pgmq.sql"
    version = sql.with_suffix(".sql.version").read_text().strip()
    files["pgmq.control"] = PGMQ_CONTROL.format(version=version)
    files[f"pgmq--{version}.sql"] = sql.read_text()
    return files
