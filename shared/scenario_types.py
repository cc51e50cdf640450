"""Scenario types, and the mentors each applies to."""

from codecs import BOM_UTF8
from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PlainSerializer, StrictBool
from pydantic_core import from_json

# Anything that the database can hold: it takes no NUL.
_Segment = Annotated[str, Field(pattern=r"^[^\x00]*$")]


class ScenarioType(BaseModel, frozen=True, extra="forbid"):
    """One scenario, as the engine names it; it applies to mentors in one of its segments, without any to all."""

    type: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
    enabled: StrictBool = True
    segments: Annotated[frozenset[_Segment], PlainSerializer(sorted, return_type=list[str])] = frozenset()


# The types of the reference engine. A team with other scenarios names its own in SCENARIO_TYPES.
DEFAULT_SCENARIO_TYPES = (
    ScenarioType(type="inactivity", segments=frozenset({"established"})),
    ScenarioType(type="milestone"),
    ScenarioType(type="certification_expiry", segments=frozenset({"certified"})),
)


def load(value: object) -> object:
    """Reads JSON, or the file of JSON that is named after an `@`; returns anything but a text as it is."""
    if not isinstance(value, str):
        return value
    content = value.encode("utf-8", "surrogateescape")
    if value.startswith("@"):
        try:
            content = Path(value[1:]).read_bytes().removeprefix(BOM_UTF8)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read the file: {error}") from error
    try:
        return from_json(content)
    except ValueError as error:
        raise ValueError(f"expected JSON or @file: {error}") from error


def _check(types: tuple[ScenarioType, ...]) -> tuple[ScenarioType, ...]:
    twice = sorted(name for name, count in Counter(scenario.type for scenario in types).items() if count > 1)
    if twice:
        raise ValueError(f"expected each type once, found twice: {', '.join(twice)}")
    if not any(scenario.enabled for scenario in types):
        raise ValueError("expected at least one enabled type, found none")
    return types


ScenarioTypes = Annotated[tuple[ScenarioType, ...], BeforeValidator(load), AfterValidator(_check)]
