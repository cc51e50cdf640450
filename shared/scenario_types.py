"""Scenario types: which there are, and whom each applies to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shared.settings import UnusableSettingError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_MEMBERS = ("type", "enabled", "segments")


@dataclass(frozen=True, slots=True)
class ScenarioType:
    """One scenario and whom it applies to.

    Args:
        type: its name, as the engine knows it.
        enabled: whether it is evaluated at all.
        segments: it applies to mentors in at least one of these; empty: to everyone.
    """

    type: str
    enabled: bool = True
    segments: frozenset[str] = frozenset()

    def applies_to(self, segments: Iterable[str]) -> bool:
        """Whether a mentor in `segments` is to be evaluated for it."""
        return self.enabled and (not self.segments or not self.segments.isdisjoint(segments))


# What the reference engine knows. A team with other scenarios names its own in SCENARIO_TYPES.
DEFAULT_SCENARIO_TYPES = (
    ScenarioType("inactivity_30_days", segments=frozenset({"established"})),
    ScenarioType("milestone_reached"),
    ScenarioType("onboarding_incomplete", segments=frozenset({"onboarding"})),
)


def read_scenario_types(text: str) -> tuple[ScenarioType, ...]:
    """Reads scenario types from JSON, or from the file that is named after an `@`.

    Raises:
        UnusableSettingError: they cannot be read, are none, or are not distinct; says which one is at fault.
    """
    listed = _load(text)
    if not isinstance(listed, list) or not listed:
        raise UnusableSettingError("expected a JSON array of at least one scenario type")
    types = tuple(_scenario_type(item, f"[{index}]") for index, item in enumerate(listed))
    names = [scenario.type for scenario in types]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UnusableSettingError(f"expected each type once, found twice: {', '.join(twice)}")
    if not any(scenario.enabled for scenario in types):
        raise UnusableSettingError("expected at least one enabled type, found none")
    return types


def _load(text: str) -> object:
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise UnusableSettingError(f"cannot read the file {text[1:]}: {reason}") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableSettingError(f"expected JSON or @file: {error}") from error


def _scenario_type(item: object, place: str) -> ScenarioType:
    if not isinstance(item, dict):
        raise UnusableSettingError("expected an object with a type", place=place)
    for member in item:
        if member not in _MEMBERS:
            raise UnusableSettingError(
                f"expected no such member, but {', '.join(_MEMBERS)}", place=f"{place}[{member}]"
            )
    name, enabled, segments = item.get("type"), item.get("enabled", True), item.get("segments", [])
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UnusableSettingError("expected a name of 1 to 100 of A-Z a-z 0-9 _ . -", place=f"{place}[type]")
    if not isinstance(enabled, bool):
        raise UnusableSettingError("expected true or false", place=f"{place}[enabled]")
    if not isinstance(segments, list) or not all(isinstance(segment, str) for segment in segments):
        raise UnusableSettingError("expected an array of texts", place=f"{place}[segments]")
    return ScenarioType(name, enabled, frozenset(segments))
