"""What a test session says of what it did not run: tests that the system cannot, and paths that are not there."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.emulator.staging import ROOT
from tests.faults import system_packages
from tests.faults.system_packages import Requirement, main, not_there, summary


def skipped(reason: str) -> pytest.TestReport:
    longrepr = ("tests/test_it.py", 1, f"Skipped: {reason}")
    return pytest.TestReport("test_it", ("tests/test_it.py", 1, "test_it"), {}, "skipped", longrepr, "setup")


def test_what_is_missing_is_one_line_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    reports = [skipped("of another reason")]
    assert summary(reports) is None
    for what in ("no C compiler", "no Chromium", "no Chromium"):
        with pytest.raises(pytest.skip.Exception) as missing:
            not_there(what, "install it")
        reports.append(skipped(str(missing.value)))

    line = summary(reports)
    assert line is not None
    assert line.startswith("3 skipped, because this system has no C compiler, no Chromium. ")
    assert "\n" not in line


def test_what_is_missing_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no C compiler"):
        not_there("no C compiler", "install it")


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_preparing_the_tests_fails_only_in_ci(monkeypatch: pytest.MonkeyPatch, ci: str, code: int) -> None:
    absent = Requirement("no such thing", ("no-such-package",), lambda: False)
    monkeypatch.setattr(system_packages, "REQUIREMENTS", (absent,))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(system_packages, "_download_chromium", lambda: None)
    monkeypatch.setenv("CI", ci)
    assert main() == code


def test_a_path_that_is_not_there_is_said() -> None:
    path = "tests/unti"
    arguments = ("-q", "-p", "no:cacheprovider", "-n", "1", path, "tests/unit/test_imports.py")
    said = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in said.stdout.splitlines() if line.startswith("ERROR: ")]
    assert [error for error in errors if error.endswith(path)], said.stdout
