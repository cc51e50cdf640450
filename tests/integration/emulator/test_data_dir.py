"""Temporary data directories: private, gone at the end, and swept up where that end did not come."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulator.data_dir import DataDir
from tests.emulator.errors import EmulatorError
from tests.emulator.staging import ROOT

LEAVE_ONE_BEHIND = """
import os
from tests.emulator.data_dir import DataDir
print(DataDir.new_temporary(in_memory={in_memory}).path, flush=True)
os._exit(1)
"""


@pytest.mark.parametrize("in_memory", [False, True])
def test_what_a_killed_emulator_left_is_removed_by_the_next(in_memory: bool) -> None:
    script = LEAVE_ONE_BEHIND.format(in_memory=in_memory)
    said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    left = Path(said.stdout.strip())
    assert left.is_absolute()

    DataDir.new_temporary().close()

    assert not left.exists()


@pytest.mark.parametrize("in_memory", [False, True])
def test_one_in_use_is_left_alone_and_one_that_is_closed_is_gone(in_memory: bool) -> None:
    used = DataDir.new_temporary(in_memory=in_memory)
    DataDir.new_temporary().close()
    assert used.path.stat().st_mode & 0o777 == 0o711
    used.close()
    assert not used.path.exists()


def test_one_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(EmulatorError, match="holds files of something else"):
        DataDir.kept(tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
