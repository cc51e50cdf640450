"""The settings of a deployment: the function's own, and the targets of function and database."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import AfterValidator, Field, SecretStr

from shared.config import ScenarioEvaluationConfig, UpTo1000, Url
from shared.errors import ConfigError
from shared.scenario_types import load
from shared.version import VERSION

# Recording and answering after a time budget, with room for a call to the database that takes as long as it may
# (shared.database.TIMEOUT_SECONDS); pg_net gives up after fifteen seconds.
REQUEST_MARGIN_SECONDS = 60
# Calls that are no slices: an operator's, a monitor's.
INSTANCES_BESIDE_WORKERS = 4
# Read by telemetry itself. The headers for a collector hold its key, whichever signal they are for.
_OF_OTHERS = re.compile(r"OTEL_[A-Z0-9_]+")
_SECRETS_OF_OTHERS = re.compile(r"OTEL_[A-Z0-9_]*HEADERS")


def _postgres_url(secret: SecretStr) -> SecretStr:
    expected = "expected a postgresql:// URL with user, password, host and database, found"
    try:
        parts = urlsplit(secret.get_secret_value())
        port = parts.port
    except ValueError:
        raise ValueError(f"{expected} one that cannot be read; write special characters as %XX") from None
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname:
        raise ValueError(f"{expected} another kind of text")
    if not parts.username or not parts.password:
        raise ValueError(f"{expected} one without user or password")
    if not re.fullmatch(r"/[^/]+", parts.path):
        raise ValueError(f"{expected} one without a database")
    if port == 6543:
        raise ValueError("expected port 5432, found the transaction pooler (6543): migrations need a session")
    return secret


class DeploymentSettings(ScenarioEvaluationConfig):
    """What every target needs beside the function's configuration."""

    database_url: Annotated[SecretStr, AfterValidator(_postgres_url)] = Field(exclude=True)


class CloudRunSettings(DeploymentSettings):
    """For Google Cloud Run."""

    google_cloud_project: str = Field(
        pattern="^[a-z][a-z0-9-]{4,28}[a-z0-9]$", description="a project id such as my-project-1"
    )
    google_cloud_region: str = Field(pattern=r"^[a-z]+-[a-z]+[0-9]+$", description="a region such as europe-north1")
    # Also the service account's id, of which Google wants 6 to 30 characters.
    function_name: str = Field(
        "scenario-evaluation-scheduler",
        pattern="^[a-z][a-z0-9-]{4,28}[a-z0-9]$",
        description="6 to 30 of a-z 0-9 -, beginning with a letter",
    )
    function_concurrency: UpTo1000 = 1
    function_max_instances: UpTo1000 | None = None
    function_memory: str = Field("512Mi", pattern="^[0-9]{1,6}(Mi|Gi)$", description="an amount such as 512Mi")


class ContainerSettings(DeploymentSettings):
    """For any other host that runs an image."""

    image: str | None = Field(
        None, pattern=r"^[\w./:@-]+$", description="an image's name such as registry.example/scheduler:1"
    )
    function_url: Url | None = None


TARGETS: Final[Mapping[str, type[DeploymentSettings]]] = {"cloud-run": CloudRunSettings, "container": ContainerSettings}


@dataclass(frozen=True, slots=True)
class Deployment:
    """Checked settings, and the function's own as text by name: those without secrets, and its secrets."""

    config: DeploymentSettings
    environment: Mapping[str, str]
    secrets: Mapping[str, str]

    def facts(self) -> dict[str, str]:
        """Returns what deploy.sh works with, by the names of the files that it reads; what is not set is empty."""
        url = urlsplit(self.config.database_url.get_secret_value())
        user, _, place = url.netloc.rpartition("@")
        # Only the target's own fields.
        own = self.config.model_dump(include=set(type(self.config).__annotations__))
        found = {name: "" if value is None else str(value) for name, value in own.items()}
        if isinstance(self.config, CloudRunSettings) and self.config.function_max_instances is None:
            found["function_max_instances"] = str(self.config.max_workers + INSTANCES_BESIDE_WORKERS)
        found |= {f"secrets/{name}": text for name, text in self.secrets.items()}
        return found | {
            "version": VERSION,
            # As the database remembers it.
            "schedule": " ".join([*self.config.evaluation_schedule.split(), self.config.evaluation_timezone]),
            # Cloud Run's image starts functions-framework by itself, which reads FUNCTION_USE_ASGI.
            "deployed/environment.json": json.dumps({**self.environment, "FUNCTION_USE_ASGI": "true"}, indent=1),
            "request_timeout": str(self.config.time_budget_seconds + REQUEST_MARGIN_SECONDS),
            "invoke_token": self.config.scheduler_invoke_tokens[0].get_secret_value(),
            "database_url": urlunsplit(url._replace(netloc=f"{user.partition(':')[0]}@{place}")),
            "database_password": unquote(url.password or ""),
        }


def check(target: str, environment: Mapping[str, str], example: Mapping[str, str]) -> Deployment:
    """Checks all settings of a deployment; what has to be set must not be what stands in `.env.example`.

    Raises:
        ConfigError: names every missing or bad setting at once, and no secret's value.
    """
    kind = TARGETS[target]
    required = sorted(name.upper() for name, field in kind.model_fields.items() if field.is_required())
    unchanged = [name for name in required if environment.get(name) and environment[name] == example.get(name)]
    problems = [f"{name}: still what .env.example holds" for name in unchanged]
    try:
        config = kind.from_environment(environment)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from error
    if problems:
        raise ConfigError(problems)
    own = {name.upper(): ScenarioEvaluationConfig.is_secret(name) for name in ScenarioEvaluationConfig.model_fields}
    given = {name: text.strip() for name, text in sorted(environment.items()) if text.strip()}
    values = {name: text for name, text in given.items() if name in own or _OF_OTHERS.fullmatch(name)}
    if "SCENARIO_TYPES" in values:
        # A file of this machine is not there where the function runs: what it holds goes along.
        values["SCENARIO_TYPES"] = json.dumps(load(values["SCENARIO_TYPES"]))
    is_secret = {name: own.get(name, bool(_SECRETS_OF_OTHERS.fullmatch(name))) for name in values}
    secrets = {name: values.pop(name) for name, yes in is_secret.items() if yes}
    return Deployment(config, values, secrets)


def unknown_names(names: Iterable[str]) -> list[str]:
    """Returns the names in a file of settings that nothing reads: they may be mistyped."""
    known = {name.upper() for kind in TARGETS.values() for name in kind.model_fields}
    return sorted(name for name in names if name not in known and not _OF_OTHERS.fullmatch(name))
