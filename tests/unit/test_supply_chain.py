"""What is deployed is pinned, hashed and licensed, and it is what the tests run with; the version is in one place.

So is what CI runs. No file of settings can be committed by mistake.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys

import pytest
import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shared.version import VERSION
from tests import licences
from tests.emulator.staging import ROOT

LOCK = licences.LOCK.read_text(encoding="utf-8")
PINNED = licences.pinned(LOCK)
STACK = "tests/emulator/requirements.txt"
IMPORTED = """
import json, sys
before = set(sys.modules)
import tests.emulator.cli, tests.emulator.reference_engine.app, tests.engine_conformance.__main__
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules.keys() - before})))
"""
# Data, not code: the newest is the right one, and its versions are years.
UNBOUNDED = {"tzdata"}


def requirements(*files: str) -> list[Requirement]:
    lines = [line.partition("#")[0].strip() for file in files for line in (ROOT / file).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-r ")]


def test_the_lock_pins_what_is_required_and_installed_with_hashes() -> None:
    for requirement in requirements("requirements.txt"):
        assert requirement.specifier.contains(PINNED[canonicalize_name(requirement.name)]), f"{requirement}: make lock"
    for name, version in PINNED.items():
        assert importlib.metadata.version(name) == version, f"{name}: make install"
    for package in re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", package), package[:60]
    assert "://" not in LOCK, "each installation has an index of its own"
    # uvicorn takes httptools wherever it is installed, which lets a request's head grow without end.
    assert "h11" in PINNED
    assert "httptools" not in PINNED


def test_every_requirement_is_bounded_and_holds_here() -> None:
    found = requirements("requirements.txt", "requirements-dev.txt", STACK)
    for requirement in found:
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == ({">="} if requirement.name in UNBOUNDED else {"~="}), requirement
        assert requirement.specifier.contains(importlib.metadata.version(requirement.name)), requirement
    assert len({requirement.name.lower() for requirement in found}) == len(found)


def with_what_they_need(wanted: list[Requirement]) -> set[str]:
    """The names of distributions, and of those that they require in turn."""
    names: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        extras = [{"extra": extra} for extra in ("", *requirement.extras)]
        if name not in names or requirement.extras:
            names.add(name)
            needed = map(Requirement, importlib.metadata.requires(name) or ())
            wanted += [one for one in needed if one.marker is None or any(map(one.marker.evaluate, extras))]
    return names


def test_the_local_stack_needs_only_what_make_run_installs() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, capture_output=True, text=True, check=True)
    belong_to = importlib.metadata.packages_distributions()
    imported = {canonicalize_name(name) for module in json.loads(done.stdout) for name in belong_to.get(module, ())}
    assert "rich" in imported
    assert imported - PINNED.keys() - with_what_they_need(requirements(STACK)) == set()


def test_the_list_of_licences_is_that_of_what_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert licences.DOCUMENT.read_text(encoding="utf-8") == licences.document(LOCK), "make lock"
    monkeypatch.setattr(licences, "READ_IN_THEIR_FILES", {"tenacity": "MIT AND AGPL-3.0-only"})
    with pytest.raises(ValueError, match=r"tenacity: expected one of .* found MIT AND AGPL-3\.0-only"):
        licences.document("tenacity==9.2.1 \\\n")


def test_the_version_stands_in_one_place_and_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d[^]]*)\] - (?:\d{4}-\d\d-\d\d|unreleased)$", changelog, re.MULTILINE)[0] == VERSION
    files = [path for folder in ("functions", "shared", "supabase") for path in (ROOT / folder).rglob("*.*")]
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in files if path.suffix in {".py", ".sql"}}
    assert [path for path, text in sources.items() if f'"{VERSION}"' in text] == ["shared/version.py"]


def test_ci_runs_the_local_commands_pinned_and_without_rights() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    # YAML 1.1, which PyYAML reads, takes the key `on` for true; GitHub does not.
    assert workflow.pop(True).keys() >= {"push", "pull_request", "schedule"}
    assert workflow["permissions"] == {"contents": "read"}
    checks, dependencies = workflow["jobs"]["checks"], workflow["jobs"]["dependencies"]
    assert checks["strategy"]["matrix"]["python"][0] == "3.11"
    steps = [*checks["steps"], *dependencies["steps"]]
    assert [step["run"] for step in steps if not step.get("run", "git").startswith("git")] == [
        "bash .ci/run",
        "make lint AUDIT=--required",
    ]
    for action in [step["uses"] for step in steps if "uses" in step]:
        assert re.fullmatch(r"actions/checkout@[0-9a-f]{40}", action), action


def test_git_ignores_every_file_of_settings_but_the_example() -> None:
    files = [".env", ".env.production", ".env.container", ".env.example"]
    command = ["git", "check-ignore", "--no-index", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == files[:-1]
