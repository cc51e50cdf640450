"""The settings of a deployment, and the file that holds them: the function's own, and the targets of all."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, unquote

from dotenv.parser import Binding, parse_stream
from pydantic import AfterValidator, Field, SecretStr

from shared.config import ScenarioEvaluationConfig, UpTo1000, Url, split_name, split_tokens
from shared.deployment.report import say
from shared.errors import ConfigError
from shared.fingerprint import OF_TELEMETRY
from shared.scenario_types import load

# Recording and answering after a time budget, with room for a call to the database that takes as long as it may
# (shared.database.TIMEOUT_SECONDS); pg_net gives up after fifteen seconds.
REQUEST_MARGIN_SECONDS = 60
TOKEN_LISTS = ("SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS")


def read_env_file(path: Path) -> dict[str, str]:
    """Reads the settings as python-dotenv does; `$` is literal, and of a name that is there twice the later counts.

    Raises ConfigError where the file cannot be read, or a line is no setting, no comment and not empty.
    """
    return {each.key: each.value or "" for each in _parse(path) if each.key}


def change_tokens(path: Path, *, add: bool) -> None:
    """Changes both lists of tokens, and nothing else; from then on only the file's owner may read it.

    With `add` a new token comes first and the others stay known; otherwise only the first one stays. Admin tokens with
    a name are no part of this: their owners rotate them.
    """
    bindings, settings, lists = _parse(path), read_env_file(path), dict[str | None, str]()
    for name in TOKEN_LISTS:
        tokens, named = split_tokens(settings[name]), list[str]()
        if name == "SCHEDULER_ADMIN_TOKENS":
            named = [token for token in tokens if split_name(token)[0] != "admin"]
            tokens = [split_name(token)[1] for token in tokens if token not in named]
        # 43 characters of A-Z a-z 0-9 - _, so 256 bits.
        tokens = [secrets.token_urlsafe(32), *tokens] if add else tokens[:1]
        lists[name] = ",".join([*tokens, *named])
    text = ""
    for each in bindings:
        # In each line of this name, so that no earlier one keeps an old token.
        old, new = each.value, lists.get(each.key)
        text += each.original.string.replace(old, new) if old and new else each.original.string
    # Replaced as a whole: what is cut off in the middle would have lost every secret.
    written = path.resolve().with_name(f"{path.name}.new")
    written.touch(mode=0o600)
    written.write_text(text, encoding="utf-8", newline="")
    written.replace(path.resolve())
    where = "beside the old ones" if add else "and ./deploy.sh continues where this stops"
    say(f"new tokens are in {path}, {where}")


def _parse(path: Path) -> list[Binding]:
    try:
        # By the parser itself: python-dotenv's own reader passes over what it cannot read. Lines end as they do.
        with path.open(encoding="utf-8", newline="") as file:
            bindings = list(parse_stream(file))
    except (OSError, UnicodeError) as failure:
        raise ConfigError([f"{path}: cannot be read: {failure}"]) from failure
    for each in bindings:
        if each.error or (each.key and each.value is None):
            # The empty lines before a binding belong to it.
            number = each.original.line + each.original.string.rstrip().count("\n")
            raise ConfigError([f"{path}, line {number}: expected NAME=value, a comment or nothing"])
    return bindings


def _postgres_url(secret: SecretStr) -> SecretStr:
    """Returns the URL with the password URL-encoded, which it may be already; shows nothing of it."""
    # A host and a database hold no @: the last one ends the password, whatever is in it.
    url = r"postgres(?:ql)?://([^:@/?#]+):(.+)@([^@/?#]+/[^@/?#]+(?:\?[^#]*)?)"
    if not (parts := re.fullmatch(url, secret.get_secret_value())):
        comment = "a # behind a space begins a comment unless the value is in quotation marks"
        raise ValueError(f"expected a postgresql:// URL with user, password, host and database ({comment})")
    user, password, place = parts.groups()
    if ":6543/" in place:
        raise ValueError("expected port 5432, found the transaction pooler (6543): migrations need a session")
    if "password=" in place:
        raise ValueError("expected the password before the host, found one behind the database")
    is_raw = re.search(r"[@/?#\s]|%(?![0-9A-Fa-f]{2})", password)
    if is_raw and re.search("%[0-9A-Fa-f]{2}", password):
        raise ValueError("the password can be read in two ways: write each @ / ? # % and space in it as %XX")
    return SecretStr(f"postgresql://{user}:{quote(unquote(password), safe='')}@{place}")


_Id = Annotated[str, Field(pattern="^[a-z][a-z0-9-]{4,28}[a-z0-9]$", description="6 to 30 of a-z, 0-9 and -")]


class DeploymentSettings(ScenarioEvaluationConfig):
    """What every target needs beside the function's configuration."""

    database_url: Annotated[SecretStr, AfterValidator(_postgres_url)] = Field(exclude=True)
    # How long deploy.sh waits for the function that it deployed to answer.
    function_start_seconds: UpTo1000 = 120


class CloudRunSettings(DeploymentSettings):
    """For Google Cloud Run."""

    google_cloud_project: _Id
    google_cloud_region: _Id
    # Also the service account's id.
    function_name: _Id = "scenario-evaluation-scheduler"
    function_concurrency: UpTo1000 = 1
    function_max_instances: UpTo1000 | None = None
    function_memory: Annotated[str, Field(pattern="^[0-9]{1,6}(Mi|Gi)$")] = "512Mi"


class ContainerSettings(DeploymentSettings):
    """For any other host that runs an image."""

    image: Annotated[str, Field(pattern=r"^[\w./:@-]+$")] | None = None
    function_url: Url | None = None


TargetSettings = CloudRunSettings | ContainerSettings
TARGETS: dict[str, type[TargetSettings]] = {"cloud-run": CloudRunSettings, "container": ContainerSettings}


@dataclass(frozen=True, slots=True)
class Deployment:
    """Checked settings, the file at `path` if there is one, and the function's own by name, its secrets apart."""

    config: TargetSettings
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    path: Path | None


def check(target: str, path: Path | None, given: Mapping[str, str], problems: Sequence[str] = ()) -> Deployment:
    """Checks all settings of a deployment, and says where they come from and which names nothing reads.

    What is given overrides the file at `path`. What has to be set must not be what stands in `.env.example`. Raises a
    ConfigError that names every missing or bad setting at once, after other `problems`, and no secret's value.
    """
    file, example = read_env_file(path) if path else {}, read_env_file(Path(".env.example"))
    given = {name: text.strip() for each in (file, given) for name, text in each.items() if text.strip()}
    settings = {name.upper() for kind in TARGETS.values() for name in kind.model_fields}
    known = {name for name in {*file, *given} if name in settings or OF_TELEMETRY.fullmatch(name)}
    others = sorted(name for name in known & {*given} if given[name] != file.get(name, "").strip())
    say(*(f"{path}: {name} is no setting; passed over" for name in file if name not in known))
    say(f"settings from {path or 'no file'}, and from the environment: {', '.join(others) or 'none'}")
    kind = TARGETS[target]
    required = sorted(name.upper() for name, field in kind.model_fields.items() if field.is_required())
    unchanged = [name for name in required if name in given and given[name] == example.get(name)]
    problems = [*problems, *(f"{name}: still what .env.example holds" for name in unchanged)]
    try:
        config = kind.from_environment(given)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from error
    own = {name.upper(): ScenarioEvaluationConfig.is_secret(name) for name in ScenarioEvaluationConfig.model_fields}
    values = {name: given[name] for name in sorted(given) if name in own or OF_TELEMETRY.fullmatch(name)}
    if "SCENARIO_TYPES" in values:
        # A file of this machine is not there where the function runs: what it holds goes along.
        values["SCENARIO_TYPES"] = json.dumps(load(values["SCENARIO_TYPES"]))
    # A container's file of settings takes no more.
    problems += [f"{name}: expected one line" for name, text in values.items() if re.search(r"[\r\n]", text)]
    if problems:
        raise ConfigError(problems)
    # The headers for a collector hold its key, whichever signal they are for.
    is_secret = {name: own.get(name, name.endswith("HEADERS")) for name in values}
    return Deployment(config, values, {name: values.pop(name) for name, yes in is_secret.items() if yes}, path)
