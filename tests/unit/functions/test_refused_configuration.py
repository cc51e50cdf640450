"""A process that cannot start says why: in the log as one line, and at a terminal as text."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.emulator.staging import ROOT
from tests.log_schema import REFUSAL, check_lines
from tests.unit.environment import REQUIRED


def test_a_refused_configuration_is_logged_and_printed() -> None:
    environment = {"PATH": os.defpath, **REQUIRED, "MAX_WORKERS": "none", "ALERT_PARTIAL_ABOVE": "2"}
    program = [sys.executable, "-c", "import functions.main"]
    process = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == 1
    assert check_lines(process.stdout.splitlines(), "log") == 1
    logged = json.loads(process.stdout)
    assert (logged["event"], logged["severity"]) == ("configuration_refused", "CRITICAL")
    refusal, *named = process.stderr.splitlines()
    assert refusal == REFUSAL
    assert [text.split(":")[0].strip() for text in named] == ["MAX_WORKERS", "ALERT_PARTIAL_ABOVE"]
    assert all(name in logged["message"] for name in ("MAX_WORKERS", "ALERT_PARTIAL_ABOVE"))
