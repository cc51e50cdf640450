"""A release as it is kept: which migrations it had, what stood in its tables, and what its API said of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

FOLDER = Path(__file__).parent

Row = dict[str, Any]


@dataclass
class Release:
    """What a release left.

    Args:
        version: its number.
        migrations: the files that it had applied, each with its SHA-256 once they may not change any more.
        rows: all rows, by table.
        told: each invocation as it was told to callers, by its id.
        mentors: whom it knew.
    """

    version: str
    migrations: dict[str, str | None]
    rows: dict[str, list[Row]]
    told: dict[str, Row]
    mentors: list[str]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads one."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def save(self, folder: Path = FOLDER) -> Path:
        """Writes it to where `all_releases` finds it."""
        path = folder / f"{self.version}.json"
        path.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return path

    def freeze(self, migrations: Path) -> None:
        """Notes how its migrations are."""
        self.migrations = {name: _digest(migrations / name) for name in self.migrations}

    def changes(self, migrations: Path) -> list[str]:
        """What is wrong with the migrations of a release: one is missing, or was changed after it was frozen."""
        return [
            f"{name} was {'changed' if (migrations / name).exists() else 'removed'} after release {self.version}: "
            "put it back, and write a new migration with a later number"
            for name, digest in self.migrations.items()
            if not (migrations / name).exists() or digest not in (None, _digest(migrations / name))
        ]


def all_releases() -> Iterator[Path]:
    """The file of each release, the oldest first."""
    yield from sorted(FOLDER.glob("*.json"), key=lambda path: [int(part) for part in path.stem.split(".")])


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
