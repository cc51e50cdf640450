"""`ScenarioEvaluationConfig`: the only reader of the environment.

Read once at start-up. `.env.example` explains every key; the defaults stand here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self
from zoneinfo import ZoneInfo

from shared.auth import MAXIMUM_TOKEN_LENGTH
from shared.errors import ConfigError
from shared.scenario_types import DEFAULT_SCENARIO_TYPES, ScenarioType, read_scenario_types
from shared.secret import Secret
from shared.settings import (
    cloud_project,
    cron_expression,
    fraction,
    http_url,
    number,
    one_of,
    read_settings,
    secret,
    secret_http_url,
    secrets,
    signing_secret,
    timezone_name,
    whole_number,
)
from shared.settings import setting as _setting
from shared.slots import Schedule

MINIMUM_TOKEN_LENGTH = 32
# A slice needs this long after its time budget to record what it has and to answer.
RECORDING_MARGIN_SECONDS = 10
MOST_HOURS = 24 * 366

_tokens = secrets(least=MINIMUM_TOKEN_LENGTH, most=MAXIMUM_TOKEN_LENGTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioEvaluationConfig:
    """Everything that can be set; each field is the environment variable of the same name in capitals."""

    supabase_url: str = _setting(http_url)
    supabase_secret_key: Secret = _setting(secret)  # noqa: RUF009  # a field, made as `field` makes it
    scenario_engine_url: str = _setting(http_url)
    scenario_engine_token: Secret = _setting(secret)  # noqa: RUF009
    scheduler_invoke_tokens: tuple[Secret, ...] = _setting(_tokens)
    scheduler_admin_tokens: tuple[Secret, ...] = _setting(_tokens)
    scenario_types: tuple[ScenarioType, ...] = _setting(read_scenario_types, DEFAULT_SCENARIO_TYPES)
    evaluation_schedule: str = _setting(cron_expression, "0 2 * * *")
    evaluation_timezone: str = _setting(timezone_name, "UTC")
    evaluation_batch_size: int = _setting(whole_number(1, 1000), 500)
    engine_users_per_call: int = _setting(whole_number(1, 1000), 100)
    engine_types_per_call: int | None = _setting(whole_number(1, 1000), None)
    engine_max_concurrency: int = _setting(whole_number(1, 1000), 32)
    engine_max_concurrency_total: int | None = _setting(whole_number(1, 100_000), None)
    engine_timeout_seconds: float = _setting(number(above=0, most=300), 10.0)
    engine_max_attempts: int = _setting(whole_number(1, 20), 5)
    engine_key_ttl_hours: int = _setting(whole_number(1, MOST_HOURS), 168)
    time_budget_seconds: int = _setting(whole_number(1, 3500), 25)
    batch_visibility_seconds: int = _setting(whole_number(1), 60)
    max_batch_deliveries: int = _setting(whole_number(3, 100), 5)
    invocation_expires_after_hours: int = _setting(whole_number(1, MOST_HOURS), 20)
    missed_slot_max_gap_hours: int = _setting(whole_number(1, MOST_HOURS), 24)
    max_workers: int = _setting(whole_number(1, 100), 4)
    retention_days: int = _setting(whole_number(1), 90)
    trusted_proxy_count: int = _setting(whole_number(0, 10), 0)
    alert_webhook_url: Secret | None = _setting(secret_http_url, None, recorded=False)  # noqa: RUF009
    alert_webhook_secret: Secret | None = _setting(signing_secret, None, recorded=False)  # noqa: RUF009
    alert_partial_above: float = _setting(fraction, 0.01)
    alert_late_above_minutes: int = _setting(whole_number(1, 60 * MOST_HOURS), 120)
    log_level: str = _setting(one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")
    google_cloud_project: str | None = _setting(cloud_project, None, recorded=False)
    otel_exporter_otlp_endpoint: str | None = _setting(http_url, None, recorded=False)
    otel_exporter_otlp_protocol: str = _setting(one_of("http/protobuf"), "http/protobuf", recorded=False)

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
        """What is recorded with an invocation: everything but URLs, secrets and where logs and traces go.

        `alerts` stands for the webhook: the database reads there whether, and on what, an alert is to be raised.
        """
        recorded = {
            setting.name: getattr(self, setting.name) for setting in fields(self) if setting.metadata["recorded"]
        }
        return recorded | {
            "alerts": self.alert_webhook_url is not None,
            "scenario_types": [
                asdict(scenario) | {"segments": sorted(scenario.segments)} for scenario in self.scenario_types
            ],
        }

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Reads and validates the environment.

        Args:
            environment: names and values, such as `os.environ`; an empty value counts as not set.

        Raises:
            ConfigError: names every missing or bad key at once, and no secret's value.
        """
        usable, problems = read_settings(cls, environment)
        problems += _broken_relations(usable)
        if problems:
            raise ConfigError("\n  ".join(["The configuration is not usable:", *problems]))
        return cls(**usable)


def _broken_relations(usable: Mapping[str, Any]) -> list[str]:
    """Which relations between settings do not hold, of those whose settings are usable by themselves."""
    broken: list[str] = []
    visibility, budget = usable.get("batch_visibility_seconds"), usable.get("time_budget_seconds")
    if visibility and budget and visibility <= budget + RECORDING_MARGIN_SECONDS:
        broken.append(
            f"BATCH_VISIBILITY_SECONDS: expected more than TIME_BUDGET_SECONDS + {RECORDING_MARGIN_SECONDS} "
            f"({budget + RECORDING_MARGIN_SECONDS}), found {visibility}: "
            "a batch must not become visible to others while its worker is still at it"
        )
    timeout = usable.get("engine_timeout_seconds")
    if timeout and budget and timeout >= budget:
        broken.append(f"ENGINE_TIMEOUT_SECONDS: expected less than TIME_BUDGET_SECONDS ({budget}), found {timeout:g}")
    ceiling, workers = usable.get("engine_max_concurrency_total"), usable.get("max_workers")
    if ceiling and workers and ceiling < workers:
        broken.append(
            f"ENGINE_MAX_CONCURRENCY_TOTAL: expected at least MAX_WORKERS ({workers}), found {ceiling}: "
            "a worker without a call could do nothing"
        )
    expiry, memory = usable.get("invocation_expires_after_hours"), usable.get("engine_key_ttl_hours")
    if expiry and memory and expiry > memory:
        broken.append(
            f"INVOCATION_EXPIRES_AFTER_HOURS: expected at most ENGINE_KEY_TTL_HOURS ({memory}), found {expiry}: "
            "the engine would forget keys of a run that is still open, and notify twice"
        )
    if usable.get("alert_webhook_secret") and not usable.get("alert_webhook_url", True):
        broken.append("ALERT_WEBHOOK_URL: missing, although ALERT_WEBHOOK_SECRET is set: nothing would be sent")
    if not set(usable.get("scheduler_invoke_tokens", ())).isdisjoint(usable.get("scheduler_admin_tokens", ())):
        broken.append("SCHEDULER_ADMIN_TOKENS: expected no token that is also in SCHEDULER_INVOKE_TOKENS")
    return broken
