"""A process that cannot start says why: in the log as one line, and at a terminal as text."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.emulator.staging import ROOT
from tests.log_schema import REFUSAL, check_lines
from tests.unit.environment import REQUIRED


def run_python(program: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, **REQUIRED, **settings}
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_refused_configuration_is_logged_and_printed() -> None:
    process = run_python("import functions.main", MAX_WORKERS="none", ALERT_PARTIAL_ABOVE="2")
    assert process.returncode == 1
    assert check_lines(process.stdout.splitlines(), "log") == 1
    logged = json.loads(process.stdout)
    assert (logged["event"], logged["severity"]) == ("configuration_refused", "CRITICAL")
    refusal, *named = process.stderr.splitlines()
    assert refusal == REFUSAL
    assert [text.split(":")[0].strip() for text in named] == ["MAX_WORKERS", "ALERT_PARTIAL_ABOVE"]
    assert all(name in logged["message"] for name in ("MAX_WORKERS", "ALERT_PARTIAL_ABOVE"))


def test_telemetry_is_imported_only_where_a_collector_is_named() -> None:
    modules = "'shared.telemetry' in sys.modules, 'opentelemetry.sdk' in sys.modules"
    process = run_python(f"import functions.main, sys; print({modules})")
    assert process.stdout.split() == ["False", "False"], process.stderr
