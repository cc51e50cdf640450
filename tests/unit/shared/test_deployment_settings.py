"""The settings of a deployment are checked at once, and sorted into what is secret and what is not."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from shared.deployment.settings import Deployment, check, read_env_file
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
    return check(target, None, REQUIRED | CLOUD | {"SCENARIO_ENGINE_URL": URL} | settings)


def refused(environment: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        check("cloud-run", None, environment)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "encoded"),
    [
        ("p%40ss%3Aw%2Frd", "p%40ss%3Aw%2Frd"),
        *((each, quote(each, safe="")) for each in ("plain", "p@ss/w#rd?", "p@host/db", "100%", "a%2", "a:b", "[x]y")),
    ],
)
def test_a_database_password_is_read_encoded_or_raw(written: str, encoded: str) -> None:
    place = "pooler.example.org:5432/postgres?sslmode=require"
    deployment = checked(DATABASE_URL=f"postgres://postgres.ref:{written}@{place}")
    url = deployment.config.database_url.get_secret_value()
    assert url == f"postgresql://postgres.ref:{encoded}@{place}"


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
    assert deployment.environment == {
        "SUPABASE_URL": REQUIRED["SUPABASE_URL"],
        "SCENARIO_ENGINE_URL": URL,
        "SCENARIO_TYPES": '[{"type": "a"}]',
        "MAX_WORKERS": "6",
        "OTEL_SERVICE_NAME": "evaluations",
        "GOOGLE_CLOUD_PROJECT": "my-project-1",
    }


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://a:b@c/d", "with user, password, host and database"),
        ("postgresql://postgres:p%40ss:w/hush@db/postgres", "can be read in two ways"),
        ("postgresql://postgres:hush", "begins a comment"),
        ("postgresql://postgres@db/postgres", "with user, password, host and database"),
        ("postgresql://postgres:hush@db", "with user, password, host and database"),
        ("postgresql://postgres:hush@db/postgres?sslmode=require&password=hush", "found one behind the database"),
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
    assert "FUNCTION_NAME: expected 6 to 30 of a-z, 0-9 and -, found 'Bad_Name'" in lines
    # What the example holds is not taken for a setting.
    lines = refused(EXAMPLE).split("\n  ")[1:]
    assert {line for line in lines if not line.startswith("GOOGLE_CLOUD")} == {
        f"{name}: still what .env.example holds" for name in [*REQUIRED, "DATABASE_URL"]
    }


def test_a_value_of_two_lines_is_refused_by_name() -> None:
    text = refused(REQUIRED | CLOUD | {"SCENARIO_ENGINE_URL": URL, "OTEL_EXPORTER_OTLP_HEADERS": "key=hush\nhush"})
    assert "OTEL_EXPORTER_OTLP_HEADERS: expected one line" in text
    assert "hush" not in text


def test_where_settings_come_from_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ".env"
    in_file = REQUIRED | CLOUD | {"SCENARIO_ENGINE_URL": URL, "MAX_WORKERS": "4", "MAX_WORKER": "", "LOG_LEVEL": "INFO"}
    path.write_text("".join(f"{name}={text}\n" for name, text in in_file.items()))
    environment = {"MAX_WORKERS": "4", "LOG_LEVEL": "DEBUG", "OTEL_Y": "hush", "PATH": "/bin", "DATABASE_URL": " "}
    check("cloud-run", path, environment)
    assert capsys.readouterr().out.splitlines() == [
        f"   {path}: MAX_WORKER is no setting; passed over",
        f"   settings from {path}, and from the environment: LOG_LEVEL, OTEL_Y",
    ]
