"""`ScenarioEvaluationConfig`: the only reader of the environment.

Read once at start-up. `.env.example` explains every key; the defaults stand here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from shared.auth import MAXIMUM_TOKEN_LENGTH
from shared.errors import ConfigError
from shared.slots import Schedule

# What the reference engine knows. A team with other scenarios names its own in SCENARIO_TYPES.
DEFAULT_SCENARIO_TYPES = """[
  {"type": "inactivity_30_days", "segments": ["established"]},
  {"type": "milestone_reached"},
  {"type": "onboarding_incomplete", "segments": ["onboarding"]}
]"""

MINIMUM_TOKEN_LENGTH = 32
# A slice needs this long after its time budget to record what it has and to answer.
RECORDING_MARGIN_SECONDS = 10


class ScenarioType(BaseModel):
    """One scenario and whom it applies to.

    Args:
        type: its name, as the engine knows it.
        enabled: whether it is evaluated at all.
        segments: it applies to mentors in at least one of these; empty: to everyone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.-]+$")
    enabled: bool = True
    segments: frozenset[str] = frozenset()

    def applies_to(self, segments: Iterable[str]) -> bool:
        """Whether a mentor in `segments` is to be evaluated for it."""
        return self.enabled and (not self.segments or not self.segments.isdisjoint(segments))


def _check_http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", url):
        raise ValueError("expected a URL such as https://host.example")
    return url.rstrip("/")


def _check_secret(secret: SecretStr) -> SecretStr:
    """A header has to be able to carry it."""
    if not re.fullmatch(r"[!-~]+", secret.get_secret_value()):
        raise ValueError("expected printable ASCII characters without spaces")
    return secret


def _split_tokens(tokens: object) -> object:
    return [token.strip() for token in tokens.split(",") if token.strip()] if isinstance(tokens, str) else tokens


def _check_tokens(tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not tokens:
        raise ValueError("expected at least one token")
    for token in tokens:
        _check_secret(token)
    lengths = list(enumerate((len(token.get_secret_value()) for token in tokens), 1))
    short = [str(n) for n, length in lengths if length < MINIMUM_TOKEN_LENGTH]
    if short:
        raise ValueError(f"expected at least {MINIMUM_TOKEN_LENGTH} characters, token {', '.join(short)} has fewer")
    long = [str(n) for n, length in lengths if length > MAXIMUM_TOKEN_LENGTH]
    if long:
        raise ValueError(f"expected at most {MAXIMUM_TOKEN_LENGTH} characters, token {', '.join(long)} has more")
    return tokens


def _load_scenario_types(text: object) -> object:
    if not isinstance(text, str):
        return text
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot read the file {text[1:]}: {error.strerror}") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON or @file: {error}") from error


Url = Annotated[str, AfterValidator(_check_http_url)]
Secret = Annotated[SecretStr, AfterValidator(_check_secret)]
Tokens = Annotated[tuple[SecretStr, ...], BeforeValidator(_split_tokens), AfterValidator(_check_tokens)]
Count = Annotated[int, Field(ge=1)]
Hours = Annotated[int, Field(ge=1, le=24 * 366)]


# For the required keys, while the relations between the others are looked at.
_STAND_INS = {
    "supabase_url": "https://stand.in",
    "supabase_secret_key": "stand-in",
    "scenario_engine_url": "https://stand.in",
    "scenario_engine_token": "stand-in",
    "scheduler_invoke_tokens": "an-invoke-token-that-stands-in-here",
    "scheduler_admin_tokens": "an-admin-token-that-stands-in-here",
}


class ScenarioEvaluationConfig(BaseModel):
    """Everything that can be set; each field is the environment variable of the same name in capitals."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    supabase_url: Url
    supabase_secret_key: Secret
    scenario_engine_url: Url
    scenario_engine_token: Secret
    scheduler_invoke_tokens: Tokens
    scheduler_admin_tokens: Tokens
    scenario_types: Annotated[
        tuple[ScenarioType, ...], BeforeValidator(_load_scenario_types), Field(min_length=1, validate_default=True)
    ] = DEFAULT_SCENARIO_TYPES  # type: ignore[assignment]  # the validator parses the default as it parses the variable
    evaluation_schedule: str = "0 2 * * *"
    evaluation_timezone: str = "UTC"
    evaluation_batch_size: Annotated[int, Field(ge=1, le=1000)] = 100
    engine_users_per_call: Annotated[int, Field(ge=1, le=1000)] = 100
    engine_types_per_call: Annotated[int, Field(ge=1, le=1000)] | None = None
    engine_max_concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    engine_max_concurrency_total: Annotated[int, Field(ge=1, le=100_000)] | None = None
    engine_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 10
    engine_max_attempts: Annotated[int, Field(ge=1, le=20)] = 5
    engine_key_ttl_hours: Hours = 168
    time_budget_seconds: Annotated[int, Field(ge=1, le=3500)] = 25
    batch_visibility_seconds: Count = 60
    max_batch_deliveries: Annotated[int, Field(ge=3, le=100)] = 5
    invocation_expires_after_hours: Hours = 20
    missed_slot_max_gap_hours: Hours = 24
    max_workers: Annotated[int, Field(ge=1, le=100)] = 4
    retention_days: Count = 90
    trusted_proxy_count: Annotated[int, Field(ge=0, le=10)] = 0
    log_level: Annotated[str, Field(pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"

    @field_validator("evaluation_timezone")
    @classmethod
    def _timezone_is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"expected an IANA time zone such as Europe/Oslo, found {name!r}") from error
        return name

    @field_validator("evaluation_schedule")
    @classmethod
    def _schedule_is_cron(cls, expression: str) -> str:
        if len(expression.split()) != 5:
            raise ValueError(f"expected a cron expression of five fields, found {expression!r}")
        try:
            Schedule(expression, ZoneInfo("UTC"))
        except CronSimError as error:
            raise ValueError(f"expected a cron expression, found {expression!r}: {error}") from error
        return expression

    @field_validator("scenario_types")
    @classmethod
    def _types_are_distinct(cls, types: tuple[ScenarioType, ...]) -> tuple[ScenarioType, ...]:
        names = [scenario.type for scenario in types]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected each type once, found twice: {', '.join(twice)}")
        if not any(scenario.enabled for scenario in types):
            raise ValueError("expected at least one enabled type, found none")
        return types

    @model_validator(mode="after")
    def _relations_hold(self) -> Self:
        """The relations between settings, all of them at once."""
        broken = [
            text
            for holds, text in (
                (
                    self.batch_visibility_seconds > self.time_budget_seconds + RECORDING_MARGIN_SECONDS,
                    f"BATCH_VISIBILITY_SECONDS: expected more than TIME_BUDGET_SECONDS + {RECORDING_MARGIN_SECONDS} "
                    f"({self.time_budget_seconds + RECORDING_MARGIN_SECONDS}), found {self.batch_visibility_seconds}: "
                    "a batch must not become visible to others while its worker is still at it",
                ),
                (
                    self.engine_timeout_seconds < self.time_budget_seconds,
                    f"ENGINE_TIMEOUT_SECONDS: expected less than TIME_BUDGET_SECONDS ({self.time_budget_seconds}), "
                    f"found {self.engine_timeout_seconds:g}",
                ),
                (
                    self.engine_max_concurrency_total is None or self.engine_max_concurrency_total >= self.max_workers,
                    f"ENGINE_MAX_CONCURRENCY_TOTAL: expected at least MAX_WORKERS ({self.max_workers}), "
                    f"found {self.engine_max_concurrency_total}: a worker without a call could do nothing",
                ),
                (
                    self.invocation_expires_after_hours <= self.engine_key_ttl_hours,
                    f"INVOCATION_EXPIRES_AFTER_HOURS: expected at most ENGINE_KEY_TTL_HOURS "
                    f"({self.engine_key_ttl_hours}), found {self.invocation_expires_after_hours}: the engine would "
                    "forget keys of a run that is still open, and notify twice",
                ),
                (
                    {t.get_secret_value() for t in self.scheduler_invoke_tokens}.isdisjoint(
                        t.get_secret_value() for t in self.scheduler_admin_tokens
                    ),
                    "SCHEDULER_ADMIN_TOKENS: expected no token that is also in SCHEDULER_INVOKE_TOKENS",
                ),
            )
            if not holds
        ]
        if broken:
            raise ValueError("\n".join(broken))
        return self

    @property
    def schedule(self) -> Schedule:
        """The schedule in its time zone."""
        return Schedule(self.evaluation_schedule, ZoneInfo(self.evaluation_timezone))

    def scenario_types_for(self, segments: Iterable[str], chosen: frozenset[str] | None = None) -> tuple[str, ...]:
        """The scenario types that apply to a mentor in `segments`, in the configured order, of the chosen ones."""
        segments = frozenset(segments)
        return tuple(
            scenario.type
            for scenario in self.scenario_types
            if scenario.applies_to(segments) and (chosen is None or scenario.type in chosen)
        )

    def enabled_types(self, chosen: frozenset[str] | None = None) -> tuple[str, ...]:
        """The enabled scenario types, in the configured order; of the chosen ones, if any."""
        return tuple(
            scenario.type
            for scenario in self.scenario_types
            if scenario.enabled and (chosen is None or scenario.type in chosen)
        )

    def in_force(self) -> dict[str, Any]:
        """What is recorded with an invocation: everything but URLs and secrets."""
        recorded = self.model_dump(
            mode="json",
            exclude={
                "supabase_url",
                "supabase_secret_key",
                "scenario_engine_url",
                "scenario_engine_token",
                "scheduler_invoke_tokens",
                "scheduler_admin_tokens",
            },
        )
        for scenario in recorded["scenario_types"]:
            scenario["segments"].sort()
        return recorded

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Reads and validates the environment.

        Args:
            environment: names and values, such as `os.environ`; an empty value counts as not set.

        Raises:
            ConfigError: names every missing or bad key at once, and no secret's value.
        """
        given = {
            name: environment[name.upper()].strip()
            for name in cls.model_fields
            if environment.get(name.upper(), "").strip()
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            problems = _explain(error)
            bad = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
        # pydantic looks at relations only when every key is good by itself; here the others' are told as well.
        if bad:
            problems += cls._broken_relations({name: value for name, value in given.items() if name not in bad}, bad)
        raise ConfigError("\n".join(["The configuration is not usable:", *problems]))

    @classmethod
    def _broken_relations(cls, good: dict[str, str], bad: set[str]) -> list[str]:
        """The broken relations between good keys; the bad ones are taken to be as they are by default."""
        try:
            cls.model_validate(_STAND_INS | good)
        except ValidationError as error:
            return [line for line in _explain(error) if not any(name.upper() in line for name in bad)]
        return []


def _explain(error: ValidationError) -> list[str]:
    lines: list[str] = []
    for problem in error.errors(include_input=False, include_url=False):
        text = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            lines.extend(f"  {line}" for line in text.splitlines())
            continue
        key, *inner = problem["loc"]
        where = str(key).upper() + "".join(f"[{part}]" for part in inner)
        lines.append(f"  {where}: {'missing' if problem['type'] == 'missing' else text}")
    return lines
