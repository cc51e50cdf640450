"""`ScenarioEvaluationConfig`: the only reader of the environment.

Read once at start-up. `.env.example` explains every key; the defaults stand here. Every number has a limit far below
what its use can hold: PostgreSQL's `integer` and `interval`, and Python's timers.
"""

import base64
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import idna
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from shared.errors import ConfigError
from shared.scenario_types import DEFAULT_SCENARIO_TYPES, ScenarioTypes
from shared.schedule import Schedule, cron_expression

# A slice needs this long after its time budget to record what it has and to answer.
RECORDING_MARGIN_SECONDS = 10
MOST_HOURS = 24 * 366
# From a call's turn until the engine counts it, at most: a connection may have to be made.
ARRIVAL_SECONDS = 2
# What runs show as `triggered_by` where the caller has an invoke token.
INVOKE_CALLERS = frozenset({"pg_cron", "cloud_scheduler", "invoke"})
# By the type of pydantic's error: what is better said in other words than its own.
_EXPECTED = {
    "extra_forbidden": "no such member",
    "float_parsing": "a number",
    "frozen_set_type": "a list",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "model_type": "an object",
    "too_short": "at least one",
    "tuple_type": "a list",
}


class Settings(BaseSettings):
    """Settings that are read from an environment; each field is the variable of the same name in capitals."""

    model_config = SettingsConfigDict(
        alias_generator=str.upper, case_sensitive=True, enable_decoding=False, frozen=True, hide_input_in_errors=True
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Reads and validates the settings; space around a value is no part of it, and an empty one is not set.

        Raises:
            ConfigError: names every missing or bad key at once, and no secret's value.
        """
        source = EnvSettingsSource(cls)
        source.env_vars = {name: text.strip() for name, text in environment.items() if text.strip()}
        try:
            # Of this source alone: no file, and not the process's own environment.
            return cls(_build_sources=((source,), {}))  # type: ignore[call-arg]  # BaseSettings takes it
        except ValidationError as error:
            raise ConfigError([cls._problem(details) for details in error.errors()]) from error

    @classmethod
    def is_secret(cls, name: str) -> bool:
        """Returns whether the field's value must not be shown."""
        return SecretStr.__name__ in repr(cls.model_fields[name].annotation)

    @classmethod
    def _problem(cls, error: ErrorDetails) -> str:
        name, *place = error["loc"]
        field = str(name).lower()
        where = "".join(f", entry {part + 1}" if isinstance(part, int) else f", {part!r:.60}" for part in place)
        if error["type"] == "missing":
            said = "missing"
        elif error["type"] == "value_error":
            said = str(error["ctx"]["error"])
        else:
            words = error["msg"].removeprefix("Input should be ").replace("String should match", "a text that matches")
            words = _EXPECTED.get(error["type"]) or re.sub("^(?=greater|less)", "a number ", words)
            found = "" if cls.is_secret(field) else f", found {error['input']!r:.60}"
            said = f"expected {cls.model_fields[field].description or words}{found}"
        return f"{field.upper()}{where}: {said}"


def _check_url(text: str, *, query: bool) -> None:
    """Refuses what a client would trip over, or leave out; shows nothing of the URL, since a part may be secret."""
    example = "expected a URL such as https://host.example"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{example}, with a port from 1 to 65535 if any") from None
    if not text.startswith(("http://", "https://")) or not host or port == 0:
        raise ValueError(example)
    if not text.isprintable() or re.search(r"[\s\\]", text):
        raise ValueError(f"{example}, found one with a space, a backslash or a control character")
    # urlsplit passes over what stands before or behind brackets.
    if not _is_host(host) or not re.fullmatch(r"[^\[\]]+|\[[^\[\]]*:[^\[\]]*\](:\d+)?", parts.netloc):
        raise ValueError(f"{example}, its host an IP address or a name that DNS can carry, found another")
    if "@" in parts.netloc:
        raise ValueError(f"{example}, found one with a user name")
    if "#" in text or ("?" in text and not query):
        raise ValueError(f"{example}, found one with a query or fragment")


def _is_host(host: str) -> bool:
    """Returns whether it is an IP address, or a name that DNS can carry, in either spelling if international."""
    with suppress(ValueError):
        return bool(ip_address(host)) and "%" not in host
    try:
        name = (host if host.isascii() else idna.encode(host).decode()).removesuffix(".")
        labels = name.split(".")
        for label in labels:
            if label.startswith("xn--"):
                idna.ulabel(label)
    except idna.IDNAError:
        return False
    carried = all(re.fullmatch(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", label) for label in labels)
    # What ends in a number is an address to clients.
    return carried and len(name) <= 253 and not re.fullmatch(r"\d+|0x[0-9a-f]*", labels[-1])


def _url(text: str) -> str:
    _check_url(text, query=False)
    return text.rstrip("/")


def _secret_url(secret: SecretStr) -> SecretStr:
    _check_url(secret.get_secret_value(), query=True)
    return secret


def _check_secret(least: int, most: int, secret: SecretStr) -> SecretStr:
    """Refuses what a header cannot carry."""
    if not re.fullmatch(f"[!-~]{{{least},{most}}}", secret.get_secret_value()):
        raise ValueError(f"expected {least} to {most} printable ASCII characters without spaces")
    return secret


def _publishable_key(text: str) -> str:
    """Refuses any other key without showing it: what is set here is served to every browser."""
    if not re.fullmatch(r"sb_publishable_[\w-]{1,256}", text, re.ASCII):
        raise ValueError("expected a publishable key, sb_publishable_…, found another text: it is public, so no secret")
    return text


def split_tokens(text: str) -> list[str]:
    """Returns the tokens of a comma-separated list."""
    return [token.strip() for token in text.split(",") if token.strip()]


def split_name(token: str) -> tuple[str, str]:
    """Returns the name and the token of `name:token`; a bare token is called `admin`."""
    name, colon, named = token.partition(":")
    return (name, named) if colon else ("admin", token)


def _check_admin_token(secret: SecretStr) -> SecretStr:
    name, token = split_name(secret.get_secret_value())
    if not re.fullmatch(r"[a-z0-9_-]{1,32}", name):
        raise ValueError("expected TOKEN or NAME:TOKEN, the name of 1 to 32 characters a-z, 0-9, _ and -")
    _check_secret(32, 256, SecretStr(token))
    return secret


def _check_names(tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Refuses a name that stands for two people; bare tokens share theirs, so that they can be rotated."""
    texts = [secret.get_secret_value() for secret in tokens]
    named = Counter(split_name(text)[0] for text in texts if ":" in text)
    named.update({"admin"} if any(":" not in text for text in texts) else ())
    if twice := sorted(name for name, count in named.items() if count > 1):
        raise ValueError(f"expected each name once, found twice: {', '.join(twice)}")
    if taken := sorted(named.keys() & INVOKE_CALLERS):
        raise ValueError(f"expected other names than those of invoke tokens' callers, found {', '.join(taken)}")
    pairs = {split_name(text) for text in texts}
    if len({token for _, token in pairs}) < len(pairs):
        raise ValueError("expected one name for each token, found two names of one")
    return tokens


def _signing_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    with suppress(ValueError):
        if text.startswith("whsec_") and 24 <= len(base64.b64decode(text[6:], validate=True)) <= 64:
            return secret
    raise ValueError("expected whsec_ and 24 to 64 bytes in base64, such as whsec_$(openssl rand -base64 32)")


def _timezone_name(text: str) -> str:
    # The last is raised for a name that nothing is known of. `localtime` is a file of some systems: their own zone.
    with suppress(ValueError, OSError, KeyError):
        if (key := ZoneInfo(text).key) != "localtime":
            return key
    raise ValueError(f"expected an IANA time zone such as Europe/Oslo, found {text!r}")


def _refuse_underscores(value: object) -> object:
    """Refuses `5_0`, which pydantic would read as 50."""
    if isinstance(value, str) and "_" in value:
        raise ValueError(f"expected a number, found {value!r:.60}")
    return value


Url = Annotated[str, AfterValidator(_url)]
_Whole = Annotated[int, BeforeValidator(_refuse_underscores)]
_Number = Annotated[float, BeforeValidator(_refuse_underscores)]
UpTo1000 = Annotated[_Whole, Field(ge=1, le=1000)]
_Secret = Annotated[SecretStr, AfterValidator(partial(_check_secret, 1, 8192))]
_Token = Annotated[SecretStr, AfterValidator(partial(_check_secret, 32, 256))]
_Tokens = Annotated[tuple[_Token, ...], BeforeValidator(split_tokens), Field(min_length=1)]
_AdminToken = Annotated[SecretStr, AfterValidator(_check_admin_token)]
_AdminTokens = Annotated[
    tuple[_AdminToken, ...], BeforeValidator(split_tokens), AfterValidator(_check_names), Field(min_length=1)
]
_Hours = Annotated[_Whole, Field(ge=1, le=MOST_HOURS)]
_Supports = Annotated[tuple[Literal["dry_run", "idempotency"], ...], BeforeValidator(split_tokens)]

_DEFAULTS_OF_SINGLE = {"ENGINE_SUPPORTS": "", "ENGINE_USERS_PER_CALL": "1", "ENGINE_TYPES_PER_CALL": "1"}
_ONE_PAIR: Final[tuple[str, Callable[[Any, Any], bool], str]] = (
    "engine_protocol",
    lambda number, protocol: protocol == "batch" or number == 1,
    "expected 1, or not set, with ENGINE_PROTOCOL={1}, found {0}",
)

# By field: the field above it that it is compared with, when that is right, and what was expected.
_RELATIONS: Final[Mapping[str, tuple[str, Callable[[Any, Any], bool], str]]] = {
    "scheduler_admin_tokens": (
        "scheduler_invoke_tokens",
        lambda admin, invoke: {split_name(each.get_secret_value())[1] for each in admin}.isdisjoint(
            each.get_secret_value() for each in invoke
        ),
        "expected no token that is also in SCHEDULER_INVOKE_TOKENS",
    ),
    "batch_visibility_seconds": (
        "time_budget_seconds",
        lambda visibility, budget: visibility > budget + RECORDING_MARGIN_SECONDS,
        f"expected more than TIME_BUDGET_SECONDS ({{1}}) + {RECORDING_MARGIN_SECONDS}, found {{0}}: "
        "a batch must not become visible to other workers while its worker still has it",
    ),
    "engine_max_concurrency_total": (
        "engine_max_concurrency",
        lambda total, each: total is None or (total % each == 0 and total >= 2 * each),
        "expected a multiple of ENGINE_MAX_CONCURRENCY ({1}), at least twice it, found {0}: "
        "it is handed out in permits of so many calls, one of them for manual runs only",
    ),
    "engine_timeout_seconds": (
        "time_budget_seconds",
        lambda timeout, budget: timeout < budget,
        "expected less than TIME_BUDGET_SECONDS ({1}), found {0:g}",
    ),
    "engine_supports": (
        "engine_protocol",
        lambda supports, protocol: protocol == "single",
        "expected only with ENGINE_PROTOCOL=single: the protocol {1} has both dry_run and idempotency",
    ),
    "engine_users_per_call": _ONE_PAIR,
    "engine_types_per_call": _ONE_PAIR,
    "invocation_expires_after_hours": (
        "engine_key_ttl_hours",
        lambda expiry, memory: expiry <= memory,
        "expected at most ENGINE_KEY_TTL_HOURS ({1}), found {0}: "
        "the engine would forget keys of a run that is still open, and notify twice",
    ),
    "alert_webhook_url": (
        "alert_webhook_secret",
        lambda url, secret: url is not None or secret is None,
        "missing, although ALERT_WEBHOOK_SECRET is set: nothing would be sent",
    ),
}


class ScenarioEvaluationConfig(Settings):
    """Everything that can be set; what is excluded is not recorded with an invocation."""

    supabase_url: Url = Field(exclude=True)
    supabase_secret_key: _Secret = Field(exclude=True)
    supabase_publishable_key: Annotated[str, AfterValidator(_publishable_key)] | None = Field(None, exclude=True)
    scenario_engine_url: Url = Field(exclude=True)
    scenario_engine_token: _Secret = Field(exclude=True)
    scheduler_invoke_tokens: _Tokens = Field(exclude=True)
    scheduler_admin_tokens: _AdminTokens = Field(exclude=True)
    scenario_types: ScenarioTypes = Field(DEFAULT_SCENARIO_TYPES, exclude=True)  # recorded as the table overrides them
    evaluation_schedule: Annotated[str, AfterValidator(cron_expression)] = "0 2 * * *"
    evaluation_timezone: Annotated[str, AfterValidator(_timezone_name)] = "UTC"
    empty_roster: Literal["failed", "success"] = "failed"
    evaluation_batch_size: UpTo1000 = 500
    time_budget_seconds: Annotated[_Whole, Field(ge=1, le=3500)] = 25  # Cloud Run gives a request an hour
    batch_visibility_seconds: Annotated[_Whole, Field(ge=1, le=24 * 60 * 60)] = 60
    max_batch_deliveries: Annotated[_Whole, Field(ge=3, le=100)] = 5
    max_workers: Annotated[_Whole, Field(ge=1, le=100)] = 4
    engine_protocol: Literal["batch", "single"] = "batch"
    engine_supports: _Supports = Field(("dry_run", "idempotency"), validate_default=False)
    engine_users_per_call: UpTo1000 = 100
    engine_types_per_call: UpTo1000 | None = None
    engine_max_concurrency: UpTo1000 = 32
    engine_max_concurrency_total: Annotated[_Whole, Field(ge=2, le=100_000)] | None = None
    engine_timeout_seconds: Annotated[_Number, Field(ge=0.001, le=300, allow_inf_nan=False)] = 10.0
    engine_max_calls_per_minute: Annotated[_Whole, Field(ge=1, le=1_000_000)] | None = None
    engine_max_attempts: Annotated[_Whole, Field(ge=1, le=20)] = 5
    engine_key_ttl_hours: _Hours = 168
    invocation_expires_after_hours: _Hours = 20
    missed_slot_max_gap_hours: _Hours = 24
    retention_days: Annotated[_Whole, Field(ge=1, le=36_500)] = 90  # PostgreSQL's calendar begins 6,700 years ago
    alert_webhook_secret: Annotated[SecretStr, AfterValidator(_signing_secret)] | None = Field(None, exclude=True)
    alert_webhook_url: Annotated[SecretStr, AfterValidator(_secret_url)] | None = Field(None, exclude=True)
    alert_on: Literal["trouble", "always"] = "trouble"
    alert_partial_above: Annotated[_Number, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.01
    alert_late_above_minutes: Annotated[_Whole, Field(ge=1, le=60 * MOST_HOURS)] = 120
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    environment_name: Annotated[str, Field(max_length=40)] | None = Field(None, exclude=True)
    google_cloud_project: str | None = Field(
        None,
        exclude=True,
        pattern=r"^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$",
        description="the id of a Google Cloud project",
    )
    otel_exporter_otlp_endpoint: Url | None = Field(None, exclude=True)
    otel_exporter_otlp_protocol: Literal["http/protobuf"] = Field("http/protobuf", exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _add_defaults_of_single(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Adds what is not set and has another default with the protocol `single`."""
        return _DEFAULTS_OF_SINGLE | settings if settings.get("ENGINE_PROTOCOL") == "single" else settings

    @field_validator(*_RELATIONS)
    @classmethod
    def _check_relation(cls, value: Any, info: ValidationInfo) -> Any:
        """Compares two settings that are usable by themselves, so that this is reported with whatever else is wrong."""
        other, holds, expected = _RELATIONS[str(info.field_name)]
        if other in info.data and not holds(value, info.data[other]):
            raise ValueError(expected.format(value, info.data[other]))
        return value

    @field_validator("engine_max_calls_per_minute")
    @classmethod
    def _check_rate(cls, rate: int | None, info: ValidationInfo) -> int | None:
        """Refuses a rate without permits, and one too low for a slice to finish a user, or to see an outage."""
        sizes = ("engine_max_concurrency_total", "engine_max_concurrency", "scenario_types", "engine_types_per_call")
        times = ("time_budget_seconds", "engine_timeout_seconds")
        if rate is None or not info.data.keys() >= {*sizes, *times}:
            return rate
        total, each, types, types_per_call, budget, timeout = (info.data[name] for name in sizes + times)
        if total is None:
            raise ValueError(f"expected only with ENGINE_MAX_CONCURRENCY_TOTAL, whose permits share it, found {rate}")
        permits, seconds = total // each, budget - timeout
        calls = math.ceil(len(types) / (types_per_call or len(types))) + 2
        least = permits * (math.floor(calls * (60 + ARRIVAL_SECONDS) / seconds) + 1)
        if rate < least:
            needed = f"{permits} permits share it, and each needs {calls} calls (a user's and two more) within "
            needed += f"TIME_BUDGET_SECONDS - ENGINE_TIMEOUT_SECONDS ({seconds:g})"
            raise ValueError(f"expected at least {least}, found {rate}: {needed}")
        return rate

    @property
    def calls_per_minute(self) -> int | None:
        """Returns how many calls each permit allows in any minute; None: as many as it likes."""
        if self.engine_max_calls_per_minute is None or self.engine_max_concurrency_total is None:
            return None
        return self.engine_max_calls_per_minute // (self.engine_max_concurrency_total // self.engine_max_concurrency)

    @property
    def seconds_between_calls(self) -> float:
        """Returns how far apart the calls under one permit have to begin; 0: no matter."""
        return (60 + ARRIVAL_SECONDS) / self.calls_per_minute if self.calls_per_minute else 0.0

    @property
    def schedule(self) -> Schedule:
        """Returns the schedule in its time zone."""
        return Schedule(self.evaluation_schedule, ZoneInfo(self.evaluation_timezone))

    @property
    def slices_at_a_time(self) -> int:
        """Returns how many slices dispatch requests: one fewer than permits, since one serves manual runs only."""
        if self.engine_max_concurrency_total is None:
            return self.max_workers
        return min(self.max_workers, self.engine_max_concurrency_total // self.engine_max_concurrency - 1)

    def admin_tokens(self) -> list[tuple[str, str]]:
        """Returns the name and the token of each admin."""
        return [split_name(secret.get_secret_value()) for secret in self.scheduler_admin_tokens]

    def recorded_settings(self) -> dict[str, Any]:
        """Returns what is recorded with an invocation; `alerts` shows the database whether to raise any."""
        return self.model_dump(mode="json") | {"alerts": self.alert_webhook_url is not None}
