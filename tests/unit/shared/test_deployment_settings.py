"""What a deployment is told is checked at once, and sorted into what is secret and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.deployment.env_file import read_env_file
from shared.deployment.settings import TARGETS, Deployment, check, unknown_names
from shared.errors import ConfigError
from tests.emulator.staging import ROOT
from tests.unit.environment import REQUIRED

EXAMPLE = read_env_file(ROOT / ".env.example")
PASSWORD = "p%40ss:w/rd"
CLOUD = {
    "DATABASE_URL": "postgresql://postgres.ref:p%40ss%3Aw%2Frd@pooler.example.org:5432/postgres?sslmode=require",
    "GOOGLE_CLOUD_PROJECT": "my-project-1",
    "GOOGLE_CLOUD_REGION": "europe-north1",
}
COLLECTOR_HEADERS = [f"OTEL_EXPORTER_OTLP_{signal}HEADERS" for signal in ("", "TRACES_", "METRICS_", "LOGS_")]
URL = "https://engine.internal.example"


def checked(target: str = "cloud-run", **settings: str) -> Deployment:
    return check(target, REQUIRED | CLOUD | {"SCENARIO_ENGINE_URL": URL} | settings, EXAMPLE)


def refused(target: str = "cloud-run", **settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        checked(target, **settings)
    return str(caught.value)


def test_the_database_s_password_is_taken_out_of_its_url() -> None:
    facts = checked().facts()
    assert facts["database_url"] == "postgresql://postgres.ref@pooler.example.org:5432/postgres?sslmode=require"
    assert facts["database_password"] == "p@ss:w/rd"


def test_secrets_and_the_rest_go_separate_ways() -> None:
    deployment = checked(
        **dict.fromkeys(COLLECTOR_HEADERS, "api-key=hush"),
        MAX_WORKERS="6",
        OTEL_SERVICE_NAME="nights",
        ALERT_WEBHOOK_URL="https://hooks.example.org/hush",
        PATH="/bin",
    )
    assert deployment.secrets.keys() == {
        *("SUPABASE_SECRET_KEY", "SCENARIO_ENGINE_TOKEN", "SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS"),
        *("ALERT_WEBHOOK_URL", *COLLECTOR_HEADERS),
    }
    secrets = deployment.secrets.values()
    assert not any(secret in text for text in deployment.environment.values() for secret in secrets)
    told = json.loads(deployment.facts()["environment.json"])
    assert not told.keys() & {*deployment.secrets, "PATH", "DATABASE_URL", "GOOGLE_CLOUD_REGION"}
    assert told.items() >= {
        ("SUPABASE_URL", REQUIRED["SUPABASE_URL"]),
        ("SCENARIO_ENGINE_URL", URL),
        ("MAX_WORKERS", "6"),
        ("OTEL_SERVICE_NAME", "nights"),
        ("FUNCTION_USE_ASGI", "true"),
    }


def test_limits_follow_from_the_function_s_own_settings() -> None:
    facts = checked(TIME_BUDGET_SECONDS="40", BATCH_VISIBILITY_SECONDS="90", MAX_WORKERS="6").facts()
    assert (facts["request_timeout"], facts["function_max_instances"]) == ("100", "10")
    assert checked(FUNCTION_MAX_INSTANCES="3").facts()["function_max_instances"] == "3"


def test_the_first_invoke_token_is_the_one_in_use() -> None:
    tokens = ("n" * 40, REQUIRED["SCHEDULER_INVOKE_TOKENS"])
    assert checked(SCHEDULER_INVOKE_TOKENS=", ".join(tokens)).facts()["invoke_token"] == tokens[0]


def test_a_schedule_is_the_same_however_it_is_spaced() -> None:
    facts = checked(EVALUATION_SCHEDULE="30  4 * * *", EVALUATION_TIMEZONE="Europe/Oslo").facts()
    assert facts["schedule"] == "30 4 * * * Europe/Oslo"


def test_scenario_types_of_a_file_go_along(tmp_path: Path) -> None:
    path = tmp_path / "types.json"
    path.write_text('[{"type": "a"}]')
    assert json.loads(checked(SCENARIO_TYPES=f"@{path}").environment["SCENARIO_TYPES"]) == [{"type": "a"}]


def test_a_container_needs_no_cloud() -> None:
    nothing = {"GOOGLE_CLOUD_PROJECT": "", "GOOGLE_CLOUD_REGION": ""}
    deployment = checked("container", FUNCTION_URL="https://f.example/", **nothing)
    assert deployment.facts()["function_url"] == "https://f.example"
    assert "image" not in deployment.facts()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://a:b@c/d", "found another kind of text"),
        (f"postgresql://postgres:{PASSWORD}@db/postgres", "cannot be read"),
        ("postgresql://postgres@db/postgres", "without user or password"),
        ("postgresql://postgres:secret-word@db", "without a database"),
        ("postgresql://postgres:secret-word@db:6543/postgres", "found the transaction pooler"),
    ],
)
def test_a_database_url_that_is_of_no_use_is_refused_and_not_shown(url: str, told: str) -> None:
    text = refused(DATABASE_URL=url)
    assert told in text
    assert PASSWORD not in text
    assert "secret-word" not in text


def test_everything_is_said_at_once() -> None:
    text = refused(FUNCTION_NAME="Bad_Name", FUNCTION_MEMORY="much", MAX_WORKERS="0", GOOGLE_CLOUD_PROJECT="")
    assert [line.partition(":")[0] for line in text.split("\n  ")[1:]] == [
        *("MAX_WORKERS", "GOOGLE_CLOUD_PROJECT", "FUNCTION_NAME", "FUNCTION_MEMORY")
    ]
    assert "FUNCTION_NAME: expected 6 to 30 of a-z 0-9 -, beginning with a letter, found 'Bad_Name'" in text


def test_what_the_example_holds_is_not_taken_for_a_setting() -> None:
    with pytest.raises(ConfigError) as caught:
        check("cloud-run", EXAMPLE, EXAMPLE)
    lines = str(caught.value).split("\n  ")[1:]
    assert {line for line in lines if not line.startswith("GOOGLE_CLOUD")} == {
        f"{name}: still what .env.example holds" for name in [*REQUIRED, "DATABASE_URL"]
    }


def test_names_that_nobody_reads_are_found() -> None:
    names = {"MAX_WORKERS": "", "MAX_WORKER": "", "OTEL_X": "", "FUNCTION_URL": "", "GOOGLE_CLOUD_REGION": ""}
    assert unknown_names(names) == ["MAX_WORKER"]


def test_the_document_explains_every_setting_and_every_step_of_a_deployment() -> None:
    document = (ROOT / "docs" / "deployment.md").read_text()
    settings = {name.upper() for kind in TARGETS.values() for name in kind.model_fields}
    assert {name for name in settings if f"`{name}`" not in document} == set()
    steps = (ROOT / "deploy.sh").read_text().partition("rotate_tokens() {")[0].split("  step '")[1:]
    assert len(steps) == 14
    assert {step for step in (text.partition("'")[0] for text in steps) if f"| {step} |" not in document} == set()
