"""A process that cannot start says why: in the log as one line, and at a terminal as text."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.emulator.staging import ROOT
from tests.log_schema import REFUSAL, check_lines
from tests.unit.environment import REQUIRED


def test_a_configuration_that_is_refused_is_one_line_in_the_log_and_readable_at_a_terminal() -> None:
    environment = {"PATH": os.defpath, **REQUIRED, "MAX_WORKERS": "none", "ALERT_PARTIAL_ABOVE": "2"}
    process = subprocess.run(
        [sys.executable, "-c", "import functions.main"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 1
    (line,) = process.stdout.splitlines()
    assert check_lines([line], "log") == 1
    logged = json.loads(line)
    assert (logged["event"], logged["severity"]) == ("configuration_refused", "CRITICAL")
    assert "MAX_WORKERS" in logged["message"]
    assert "ALERT_PARTIAL_ABOVE" in logged["message"]
    refusal, *named = process.stderr.splitlines()
    assert refusal == REFUSAL
    assert [text.split(":")[0].strip() for text in named] == ["MAX_WORKERS", "ALERT_PARTIAL_ABOVE"]


def test_what_measures_is_imported_only_where_a_collector_is_named() -> None:
    program = "import functions.main, sys; print('shared.telemetry' in sys.modules, 'opentelemetry.sdk' in sys.modules)"
    environment = {"PATH": os.defpath, **REQUIRED}
    process = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.stdout.split() == ["False", "False"], process.stderr
