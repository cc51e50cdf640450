"""The emulator's cache, which several processes fill at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PosixPath

import pytest

from tests.emulator import cache


class _Folder(PosixPath):
    """Lists one entry that another process has removed since."""

    def iterdir(self) -> Iterator[Path]:  # type: ignore[override]  # a generator of the base class
        yield Path(self) / ".kept-meanwhile"


def test_an_entry_that_goes_while_it_is_listed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "cache_folder", lambda: _Folder(tmp_path))
    made = cache.make_once("library", lambda draft: (draft / "made").touch())
    assert (made / "made").exists()
