"""The settings of a deployment are checked at once, and sorted into what is secret and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.deployment.env_file import read_env_file
from shared.deployment.settings import Deployment, check, unknown_names
from shared.errors import ConfigError
from tests.emulator.staging import ROOT
from tests.unit.environment import REQUIRED

EXAMPLE = read_env_file(ROOT / ".env.example")
CLOUD = {
    "DATABASE_URL": "postgresql://postgres.ref:p%40ss%3Aw%2Frd@pooler.example.org:5432/postgres?sslmode=require",
    "GOOGLE_CLOUD_PROJECT": "my-project-1",
    "GOOGLE_CLOUD_REGION": "europe-north1",
}
COLLECTOR_HEADERS = [f"OTEL_EXPORTER_OTLP_{signal}HEADERS" for signal in ("", "TRACES_", "METRICS_", "LOGS_")]
URL = "https://engine.internal.example"


def checked(target: str = "cloud-run", **settings: str) -> Deployment:
    return check(target, REQUIRED | CLOUD | {"SCENARIO_ENGINE_URL": URL} | settings, EXAMPLE)


def refused(environment: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        check("cloud-run", environment, EXAMPLE)
    return str(caught.value)


def test_what_a_deployment_needs_follows_from_its_settings() -> None:
    facts = checked().facts()
    assert facts["database_url"] == "postgresql://postgres.ref@pooler.example.org:5432/postgres?sslmode=require"
    assert facts["database_password"] == "p@ss:w/rd"
    roomy = {"TIME_BUDGET_SECONDS": "40", "BATCH_VISIBILITY_SECONDS": "90", "MAX_WORKERS": "6"}
    schedule = {"EVALUATION_SCHEDULE": "30  4 * * *", "EVALUATION_TIMEZONE": "Europe/Oslo"}
    facts = checked(**roomy, **schedule, SCHEDULER_INVOKE_TOKENS=f"{'n' * 40}, {'o' * 40}").facts()
    assert [facts[name] for name in ("request_timeout", "function_max_instances")] == ["100", "10"]
    assert (facts["invoke_token"], facts["schedule"]) == ("n" * 40, "30 4 * * * Europe/Oslo")
    assert checked(FUNCTION_MAX_INSTANCES="3").facts()["function_max_instances"] == "3"


def test_secrets_and_other_settings_go_separate_ways(tmp_path: Path) -> None:
    types = tmp_path / "types.json"
    types.write_text('[{"type": "a"}]')
    deployment = checked(
        **dict.fromkeys(COLLECTOR_HEADERS, "api-key=hush"),
        MAX_WORKERS="6",
        OTEL_SERVICE_NAME="evaluations",
        ALERT_WEBHOOK_URL="https://hooks.example.org/hush",
        SCENARIO_TYPES=f"@{types}",
        PATH="/bin",
    )
    assert deployment.secrets.keys() == {
        *("SUPABASE_SECRET_KEY", "SCENARIO_ENGINE_TOKEN", "SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS"),
        *("ALERT_WEBHOOK_URL", *COLLECTOR_HEADERS),
    }
    secrets = deployment.secrets.values()
    assert not any(secret in text for text in deployment.environment.values() for secret in secrets)
    assert json.loads(deployment.facts()["deployed/environment.json"]) == {
        "SUPABASE_URL": REQUIRED["SUPABASE_URL"],
        "SCENARIO_ENGINE_URL": URL,
        "SCENARIO_TYPES": '[{"type": "a"}]',
        "MAX_WORKERS": "6",
        "OTEL_SERVICE_NAME": "evaluations",
        "GOOGLE_CLOUD_PROJECT": "my-project-1",
        "FUNCTION_USE_ASGI": "true",
    }


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://a:b@c/d", "found another kind of text"),
        ("postgresql://postgres:p%40ss:w/hush@db/postgres", "cannot be read"),
        ("postgresql://postgres@db/postgres", "without user or password"),
        ("postgresql://postgres:hush@db", "without a database"),
        ("postgresql://postgres:hush@db:6543/postgres", "found the transaction pooler"),
    ],
)
def test_an_unusable_database_url_is_refused_and_not_shown(url: str, said: str) -> None:
    text = refused(REQUIRED | CLOUD | {"DATABASE_URL": url})
    assert said in text
    assert "hush" not in text


def test_all_problems_are_named_at_once() -> None:
    bad = {"FUNCTION_NAME": "Bad_Name", "FUNCTION_MEMORY": "much", "MAX_WORKERS": "0", "GOOGLE_CLOUD_PROJECT": ""}
    lines = refused(REQUIRED | CLOUD | {"SCENARIO_ENGINE_URL": URL} | bad).split("\n  ")[1:]
    assert {line.partition(":")[0] for line in lines} == {*bad}
    assert "FUNCTION_NAME: expected 6 to 30 of a-z 0-9 -, beginning with a letter, found 'Bad_Name'" in lines
    # What the example holds is not taken for a setting.
    lines = refused(EXAMPLE).split("\n  ")[1:]
    assert {line for line in lines if not line.startswith("GOOGLE_CLOUD")} == {
        f"{name}: still what .env.example holds" for name in [*REQUIRED, "DATABASE_URL"]
    }


def test_a_name_that_is_never_read_is_found() -> None:
    names = {"MAX_WORKERS": "", "MAX_WORKER": "", "OTEL_X": "", "FUNCTION_URL": "", "GOOGLE_CLOUD_REGION": ""}
    assert unknown_names(names) == ["MAX_WORKER"]
