"""What is deployed is pinned, hashed and licensed, and it is what the tests run with; the version is in one place."""

from __future__ import annotations

import importlib.metadata
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shared.version import VERSION
from tests import licences
from tests.emulator.staging import ROOT

LOCK = licences.LOCK.read_text(encoding="utf-8")
PINNED = licences.pinned(LOCK)


def required() -> dict[str, Requirement]:
    """Everything that requirements.txt needs here, with all that it brings along, by name."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    waiting = [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]
    found: dict[str, Requirement] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        asked = (name, frozenset(requirement.extras))
        if asked in done or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        done.add(asked)
        found[name] = requirement
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            extras = ["", *requirement.extras]
            if not needed.marker or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                needed.marker = None
                waiting.append(needed)
    return found


def test_the_lock_pins_all_that_is_needed_and_nothing_else() -> None:
    assert sorted(PINNED) == sorted(required()), "make lock"


@pytest.mark.parametrize("name", sorted(PINNED))
def test_what_is_tested_is_the_version_that_is_deployed(name: str) -> None:
    assert importlib.metadata.version(name) == PINNED[name], "make install"


@pytest.mark.parametrize("name", sorted(PINNED))
def test_a_pinned_version_is_one_that_is_asked_for(name: str) -> None:
    assert required()[name].specifier.contains(PINNED[name], prereleases=True), "make lock"


def test_every_pinned_package_can_only_be_what_it_was() -> None:
    packages = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(packages) >= len(PINNED)
    for package in packages:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", package), package[:60]


def test_the_lock_names_no_host() -> None:
    """Whoever installs it does so from wherever packages come from there."""
    assert "://" not in LOCK
    assert "index" not in LOCK


def test_the_list_of_licences_is_that_of_what_is_pinned() -> None:
    assert licences.DOCUMENT.read_text(encoding="utf-8") == licences.document(LOCK), "make lock"


@pytest.mark.parametrize("expression", ["GPL-3.0-only", "MIT AND AGPL-3.0-only"])
def test_a_licence_that_asks_for_more_is_refused(monkeypatch: pytest.MonkeyPatch, expression: str) -> None:
    monkeypatch.setattr(licences, "READ_IN_THEIR_FILES", {"tenacity": expression})
    with pytest.raises(ValueError, match=f"tenacity: expected one of .* found {expression}"):
        licences.document("tenacity==9.2.1 \\\n")


def test_a_licence_that_nobody_has_looked_at_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licences, "SPDX", {})
    with pytest.raises(ValueError, match="cronsim: expected a licence that is known here"):
        licences.licence("cronsim")


def test_the_newest_release_in_the_changelog_is_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d[^]]*)\] - \d{4}-\d\d-\d\d$", changelog, re.MULTILINE)[0] == VERSION


def test_the_version_stands_in_one_place() -> None:
    named = [
        str(path.relative_to(ROOT))
        for folder in ("functions", "shared", "supabase")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".py", ".sql", ".toml"} and f'"{VERSION}"' in path.read_text(encoding="utf-8")
    ]
    assert [*named, *(["pyproject.toml"] if VERSION in (ROOT / "pyproject.toml").read_text() else [])] == [
        "shared/version.py"
    ]
