"""What a deployment is told: the function's own settings, and where the function and the database are to be."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from shared.config import ScenarioEvaluationConfig
from shared.errors import ConfigError
from shared.secret import Secret
from shared.settings import UnusableSettingError, http_url, read_settings, setting, whole_number
from shared.version import VERSION

# Recording and answering after a time budget, with room for a call to the database that takes as long as it may
# (shared.database.TIMEOUT_SECONDS); pg_net gives up after fifteen seconds.
REQUEST_MARGIN_SECONDS = 60
# Calls that are no slices: an operator's, a monitor's.
INSTANCES_BESIDE_WORKERS = 4
# Read by others than the configuration: telemetry's own settings. The first may hold a key.
SECRETS_OF_OTHERS: Final = frozenset({"OTEL_EXPORTER_OTLP_HEADERS"})
_OF_OTHERS = re.compile(r"OTEL_[A-Z0-9_]+")


def _matching(pattern: str, expected: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise UnusableSettingError(f"expected {expected}, found {text[:60]!r}")
        return text

    return read


def postgres_url(text: str) -> SplitResult:
    """Reads a PostgreSQL connection URL with a user and a password; the text of an error shows neither."""
    expected = "expected a postgresql:// URL with user, password, host and database, found"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UnusableSettingError(f"{expected} one that cannot be read; write special characters as %XX") from error
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname:
        raise UnusableSettingError(f"{expected} another kind of text")
    if not parts.username or not parts.password:
        raise UnusableSettingError(f"{expected} one without user or password")
    if not re.fullmatch(r"/[^/]+", parts.path):
        raise UnusableSettingError(f"{expected} one without a database")
    if port == 6543:
        raise UnusableSettingError(
            "expected the direct connection or the session pooler (port 5432), found the transaction pooler (6543): "
            "migrations need a session"
        )
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonSettings:
    """Needed wherever the function runs; each field is the environment variable of the same name in capitals."""

    database_url: SplitResult = setting(postgres_url)  # noqa: RUF009  # a field, made as `field` makes it


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudRunSettings(CommonSettings):
    """For Google Cloud Run."""

    google_cloud_project: str = setting(_matching(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "a project id such as my-project-1"))
    google_cloud_region: str = setting(_matching(r"[a-z]+-[a-z]+\d+", "a region such as europe-north1"))
    # Also the service account's id, of which Google wants 6 to 30 characters.
    function_name: str = setting(
        _matching(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "6 to 30 of a-z 0-9 -, beginning with a letter"),
        "scenario-evaluation-scheduler",
    )
    function_concurrency: int = setting(whole_number(1, 1000), 1)
    function_max_instances: int | None = setting(whole_number(1, 1000), None)
    function_memory: str = setting(_matching(r"\d+(Mi|Gi)", "an amount such as 512Mi"), "512Mi")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSettings(CommonSettings):
    """For any other host that runs an image."""

    image: str | None = setting(_matching(r"[\w./:@-]+", "an image's name such as registry.example/scheduler:1"), None)
    function_url: str | None = setting(http_url, None)


TARGETS: Final[Mapping[str, type[CommonSettings]]] = {"cloud-run": CloudRunSettings, "container": ContainerSettings}


@dataclass(frozen=True, slots=True)
class Deployment:
    """A checked deployment.

    Args:
        config: the function's configuration.
        settings: where things are.
        environment: what the function is told that is no secret, by name.
        secrets: what it is told that is one, by name.
    """

    config: ScenarioEvaluationConfig
    settings: CommonSettings
    environment: Mapping[str, str]
    secrets: Mapping[str, str]

    @property
    def schedule(self) -> str:
        """The schedule as the database remembers it."""
        return " ".join([*self.config.evaluation_schedule.split(), self.config.evaluation_timezone])

    def facts(self) -> dict[str, str]:
        """What deploy.sh works with, by the names of the files in which it finds them."""
        url: SplitResult = self.settings.database_url
        found = {
            "version": VERSION,
            "schedule": self.schedule,
            "environment.json": json.dumps(dict(self.environment), indent=1),
            "request_timeout": str(self.config.time_budget_seconds + REQUEST_MARGIN_SECONDS),
            "invoke_token": self.config.scheduler_invoke_tokens[0].get_secret_value(),
            "database_url": urlunsplit(url._replace(netloc=_without_password(url))),
            "database_password": unquote(url.password or ""),
        }
        found |= {
            name: str(value)
            for name, value in ((one.name, getattr(self.settings, one.name)) for one in fields(self.settings))
            if name not in found and value is not None
        }
        if isinstance(self.settings, CloudRunSettings):
            # The image that Google builds starts functions-framework by itself, which reads this.
            found["environment.json"] = json.dumps({**self.environment, "FUNCTION_USE_ASGI": "true"}, indent=1)
            found.setdefault("function_max_instances", str(self.config.max_workers + INSTANCES_BESIDE_WORKERS))
        return found


def check(target: str, environment: Mapping[str, str], example: Mapping[str, str]) -> Deployment:
    """Checks everything that a deployment is told.

    Args:
        target: one of `TARGETS`.
        environment: names and values.
        example: the settings of `.env.example`: what has to be set must not be what stands there.

    Raises:
        ConfigError: names every missing or bad setting at once, and no secret's value.
    """
    problems: list[str] = []
    environment = {name: text.strip() for name, text in environment.items()}
    if target == "cloud-run" and not environment.get("TRUSTED_PROXY_COUNT"):
        # Google's front end, which the function cannot be reached without.
        environment["TRUSTED_PROXY_COUNT"] = "1"
    config: ScenarioEvaluationConfig | None = None
    try:
        config = ScenarioEvaluationConfig.from_environment(environment)
    except ConfigError as error:
        problems += str(error).split("\n  ")[1:]
    usable, found = read_settings(TARGETS[target], environment)
    problems += found
    problems += [
        f"{name}: still what .env.example holds"
        for name in sorted(_required(ScenarioEvaluationConfig) | _required(TARGETS[target]))
        if environment.get(name) and environment[name] == example.get(name)
    ]
    if problems or config is None:
        raise ConfigError("\n  ".join(["The settings are not usable:", *problems]))
    settings = TARGETS[target](**usable)
    return Deployment(config, settings, *_told(config, environment))


def _required(kind: type[Any]) -> set[str]:
    return {one.name.upper() for one in fields(kind) if one.default is MISSING}


def unknown_names(names: Mapping[str, str]) -> list[str]:
    """Of the names in a file of settings those that nobody reads: they may be mistyped."""
    kinds: tuple[type[Any], ...] = (ScenarioEvaluationConfig, *TARGETS.values())
    known = {one.name.upper() for kind in kinds for one in fields(kind)}
    return sorted(name for name in names if name not in known and not _OF_OTHERS.fullmatch(name))


def _told(config: ScenarioEvaluationConfig, environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    plain: dict[str, str] = {}
    secret: dict[str, str] = {}
    for one in fields(config):
        text = environment.get(one.name.upper())
        if text:
            told = secret if _is_secret(getattr(config, one.name)) else plain
            told[one.name.upper()] = _self_contained(text) if one.name == "scenario_types" else text
    for name, text in environment.items():
        if text and _OF_OTHERS.fullmatch(name):
            (secret if name in SECRETS_OF_OTHERS else plain)[name] = text
    return plain, secret


def _is_secret(value: Any) -> bool:
    return isinstance(value, Secret) or (isinstance(value, tuple) and any(isinstance(item, Secret) for item in value))


def _self_contained(text: str) -> str:
    """A file of this machine is not there where the function runs: what it holds goes along."""
    return json.dumps(json.loads(Path(text[1:]).read_text(encoding="utf-8"))) if text.startswith("@") else text


def _without_password(url: SplitResult) -> str:
    user, _, place = url.netloc.rpartition("@")
    return f"{user.partition(':')[0]}@{place}"
