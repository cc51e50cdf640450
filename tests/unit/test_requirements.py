"""Every requirement is bounded from both sides, and what is installed is what they ask for."""

from __future__ import annotations

import importlib.metadata

import pytest
from packaging.requirements import Requirement

from tests.emulator.staging import ROOT

# Data, not code: the newest is the right one, and its versions are years.
UNBOUNDED = {"tzdata"}


def requirements() -> list[Requirement]:
    lines = [
        line.partition("#")[0].strip()
        for name in ("requirements.txt", "requirements-dev.txt")
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    ]
    return [Requirement(line) for line in lines if line and not line.startswith("-r ")]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_a_requirement_has_a_lower_and_an_upper_bound_and_holds_here(requirement: Requirement) -> None:
    operators = {specifier.operator for specifier in requirement.specifier}
    assert operators == ({">="} if requirement.name in UNBOUNDED else {"~="})
    assert requirement.specifier.contains(importlib.metadata.version(requirement.name))


def test_no_requirement_is_named_twice() -> None:
    names = [requirement.name.lower() for requirement in requirements()]
    assert len(names) > 15
    assert sorted(set(names)) == sorted(names)


def test_the_server_reads_requests_by_h11_which_bounds_their_heads() -> None:
    """uvicorn takes httptools wherever it is installed, which lets a head grow without end."""
    lock = (ROOT / "shared" / "deployment" / "requirements.lock").read_text(encoding="utf-8")
    locked = {line.partition("==")[0] for line in lock.splitlines() if "==" in line}
    assert "h11" in locked
    assert "httptools" not in locked
