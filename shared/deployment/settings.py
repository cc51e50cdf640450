"""The settings of a deployment: the function's own, and the targets of function and database."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pydantic import AfterValidator, Field, SecretStr

from shared.config import ScenarioEvaluationConfig, UpTo1000, Url
from shared.errors import ConfigError
from shared.fingerprint import OF_TELEMETRY
from shared.scenario_types import load

# Recording and answering after a time budget, with room for a call to the database that takes as long as it may
# (shared.database.TIMEOUT_SECONDS); pg_net gives up after fifteen seconds.
REQUEST_MARGIN_SECONDS = 60
# The headers for a collector hold its key, whichever signal they are for.
_SECRETS_OF_TELEMETRY = re.compile(r"OTEL_[A-Z0-9_]*HEADERS")


def _postgres_url(secret: SecretStr) -> SecretStr:
    """Returns the URL with the password URL-encoded, which it may be already; shows nothing of it."""
    expected = "expected a postgresql:// URL with user, password, host and database, found"
    url = secret.get_secret_value()
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError(f"{expected} another kind of text")
    # A host and a database hold no @: the last one ends the password, whatever is in it.
    before, _, place = url.rpartition("@")
    user, _, password = before.partition("://")[2].partition(":")
    if not user or re.search(r"[@/?#]", user) or not password:
        raise ValueError(f"{expected} one without user or password")
    if not re.fullmatch(r"[^/?#]+/[^/?#]+(\?[^#]*)?", place):
        raise ValueError(f"{expected} one without a database, or with an @ behind it")
    try:
        port = urlsplit(f"//{place}").port
    except ValueError:
        raise ValueError(f"{expected} one whose host and port cannot be read") from None
    if port == 6543:
        raise ValueError("expected port 5432, found the transaction pooler (6543): migrations need a session")
    if re.fullmatch(r"\[.*\]", password):
        raise ValueError(f"{expected} one whose password is in brackets, as a placeholder")
    is_raw = bool(re.search(r"[@/?#\s]|%(?![0-9A-Fa-f]{2})", password))
    # Encoded in part, or an @ in the query of a URL that is whole without it.
    if is_raw and re.search(r"%[0-9A-Fa-f]{2}|^[^@/?#]+@[^@/?#]+/[^@/?#]+\?", password):
        raise ValueError("the password can be read in two ways: write each @ / ? # % and space in it as %XX")
    return SecretStr(f"postgresql://{user}:{quote(unquote(password), safe='')}@{place}")


class DeploymentSettings(ScenarioEvaluationConfig):
    """What every target needs beside the function's configuration."""

    database_url: Annotated[SecretStr, AfterValidator(_postgres_url)] = Field(exclude=True)
    # How long deploy.sh waits for the function that it deployed to answer.
    function_start_seconds: UpTo1000 = 120


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


TARGETS: Final[Mapping[str, type[CloudRunSettings | ContainerSettings]]] = {
    "cloud-run": CloudRunSettings,
    "container": ContainerSettings,
}


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the settings come from: a file, if there is one, and the environment, which overrides it."""

    path: Path | None
    file: Mapping[str, str]
    environment: Mapping[str, str]

    @property
    def merged(self) -> dict[str, str]:
        """Returns the settings in effect."""
        return {**self.file, **{name: text for name, text in self.environment.items() if text}}

    def origin(self, name: str) -> str:
        """Returns which of the two a setting comes from."""
        return f"{self.path}" if self.merged.get(name) == self.file.get(name) else "the environment"

    def notes(self) -> list[str]:
        """Returns what of them may be unintended: names that nothing reads, and what is not as the file has it."""
        known = {name.upper() for kind in TARGETS.values() for name in kind.model_fields}
        is_known = {name: name in known or bool(OF_TELEMETRY.fullmatch(name)) for name in sorted(self.merged)}
        notes = [f"{self.path}: {name} is no setting; passed over" for name in self.file if not is_known[name]]
        others = [name for name, yes in is_known.items() if yes and self.file.get(name) != self.merged[name]]
        if self.path and others:
            notes.append(f"the environment overrides {self.path}: {', '.join(others)}")
        return notes


@dataclass(frozen=True, slots=True)
class Deployment:
    """Checked settings, and the function's own as text by name: those without secrets, and its secrets."""

    config: CloudRunSettings | ContainerSettings
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    sources: Sources

    def targets(self, function: tuple[str, str]) -> list[str]:
        """Returns lines that say which database, project and function this is about, and where each was set.

        Args:
            function: where it is, empty where it is nowhere yet, and the setting that says so.
        """
        url = urlsplit(self.database_url)
        targets = {
            "database": (f"{url.netloc}{url.path}", "DATABASE_URL"),
            "project": (self.config.supabase_url, "SUPABASE_URL"),
            "function": function,
        }
        return [
            f"{what:9}{where} ({name} from {self.sources.origin(name)})"
            for what, (where, name) in targets.items()
            if where
        ]

    @property
    def database_url(self) -> str:
        """Returns it without the password."""
        url = urlsplit(self.config.database_url.get_secret_value())
        user, _, place = url.netloc.rpartition("@")
        return urlunsplit(url._replace(netloc=f"{user.partition(':')[0]}@{place}"))

    @property
    def database_password(self) -> str:
        return unquote(urlsplit(self.config.database_url.get_secret_value()).password or "")


def check(target: str, sources: Sources, example: Mapping[str, str]) -> Deployment:
    """Checks all settings of a deployment; what has to be set must not be what stands in `.env.example`.

    Raises:
        ConfigError: names every missing or bad setting at once, and no secret's value.
    """
    kind, environment = TARGETS[target], sources.merged
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
    values = {name: text for name, text in given.items() if name in own or OF_TELEMETRY.fullmatch(name)}
    if "SCENARIO_TYPES" in values:
        # A file of this machine is not there where the function runs: what it holds goes along.
        values["SCENARIO_TYPES"] = json.dumps(load(values["SCENARIO_TYPES"]))
    if kind is ContainerSettings and (broken := [name for name, text in values.items() if re.search(r"[\r\n]", text)]):
        raise ConfigError([f"{name}: expected one line, as a container's environment file holds" for name in broken])
    is_secret = {name: own.get(name, bool(_SECRETS_OF_TELEMETRY.fullmatch(name))) for name in values}
    secrets = {name: values.pop(name) for name, yes in is_secret.items() if yes}
    return Deployment(config, values, secrets, sources)
