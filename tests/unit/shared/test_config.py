"""The environment becomes one validated value, or one error that names everything that is wrong with it."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from shared.config import ScenarioEvaluationConfig
from shared.deployment.settings import TARGETS
from shared.errors import ConfigError
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN, REQUIRED, make_config

ENV_EXAMPLE = Path(__file__).parents[3] / ".env.example"
SHORT = "too-short-to-be-a-token"


def refused(environment: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        ScenarioEvaluationConfig.from_environment(environment)
    return str(caught.value)


def refused_with(**settings: str) -> str:
    return refused(REQUIRED | settings)


def named_in(text: str) -> set[str]:
    """The settings that an error's lines begin with."""
    return {match.group(1) for match in re.finditer(r"^  ([A-Z_]+)", text, re.MULTILINE)}


def test_what_is_not_set_has_its_documented_default() -> None:
    config = make_config()
    assert config.in_force() == {
        "scenario_types": [
            {"type": "inactivity_30_days", "enabled": True, "segments": ["established"]},
            {"type": "milestone_reached", "enabled": True, "segments": []},
            {"type": "onboarding_incomplete", "enabled": True, "segments": ["onboarding"]},
        ],
        "evaluation_schedule": "0 2 * * *",
        "evaluation_timezone": "UTC",
        "evaluation_batch_size": 500,
        "engine_users_per_call": 100,
        "engine_types_per_call": None,
        "engine_max_concurrency": 32,
        "engine_max_concurrency_total": None,
        "engine_timeout_seconds": 10,
        "engine_max_attempts": 5,
        "engine_key_ttl_hours": 168,
        "time_budget_seconds": 25,
        "batch_visibility_seconds": 60,
        "max_batch_deliveries": 5,
        "invocation_expires_after_hours": 20,
        "missed_slot_max_gap_hours": 24,
        "max_workers": 4,
        "retention_days": 90,
        "trusted_proxy_count": 0,
        "alerts": False,
        "alert_partial_above": 0.01,
        "alert_late_above_minutes": 120,
        "log_level": "INFO",
    }


def test_every_missing_key_is_named_at_once() -> None:
    text = refused({})
    assert named_in(text) == set(REQUIRED)
    assert text.count("missing") == len(REQUIRED)


def test_several_bad_keys_are_named_at_once() -> None:
    bad = {
        "SUPABASE_URL": "project.example.org",
        "EVALUATION_BATCH_SIZE": "0",
        "ENGINE_TIMEOUT_SECONDS": "soon",
        "EVALUATION_TIMEZONE": "Europe/Atlantis",
        "EVALUATION_SCHEDULE": "every night",
        "LOG_LEVEL": "LOUD",
        "SCHEDULER_ADMIN_TOKENS": SHORT,
    }
    assert named_in(refused_with(**bad)) == set(bad)


def test_missing_and_bad_keys_are_named_together() -> None:
    environment = {key: value for key, value in REQUIRED.items() if key != "SUPABASE_URL"} | {"MAX_WORKERS": "-1"}
    assert named_in(refused(environment)) == {"SUPABASE_URL", "MAX_WORKERS"}


def test_no_value_of_a_secret_is_in_the_error() -> None:
    secrets = {
        "SUPABASE_SECRET_KEY": "sb_secret_hush",
        "SCENARIO_ENGINE_TOKEN": "hush-engine",
        "SCHEDULER_INVOKE_TOKENS": "hush-invoke",
        "SCHEDULER_ADMIN_TOKENS": "hush-admin,another-hush-admin-0123456789-0123456789",
    }
    text = refused_with(**secrets, MAX_WORKERS="none")
    assert "SCHEDULER_INVOKE_TOKENS" in text
    assert "hush" not in text


def test_no_value_of_a_secret_is_in_what_the_configuration_shows() -> None:
    config = make_config()
    shown = f"{config!r} {config} {config.supabase_secret_key}" + json.dumps(config.in_force())
    for key in ("SUPABASE_SECRET_KEY", "SCENARIO_ENGINE_TOKEN", "SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS"):
        assert REQUIRED[key] not in shown


@pytest.mark.parametrize("empty", ["", "   ", "\t\n"])
def test_an_empty_variable_counts_as_unset(empty: str) -> None:
    assert make_config(MAX_WORKERS=empty).max_workers == 4
    assert "SUPABASE_URL: missing" in refused_with(SUPABASE_URL=empty)


def test_space_around_a_value_is_not_part_of_it() -> None:
    assert make_config(SUPABASE_SECRET_KEY=" key\n").supabase_secret_key.get_secret_value() == "key"


def test_variables_of_others_are_ignored() -> None:
    assert make_config(PATH="/bin", TOTALLY_UNKNOWN="1") == make_config()


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        make_config().max_workers = 9  # type: ignore[misc]  # mypy sees it as well


@pytest.mark.parametrize(
    "url", ["project.example.org", "ftp://project.example.org", "https://", "//x", "file:///x", "http://x:99999"]
)
@pytest.mark.parametrize("key", ["SUPABASE_URL", "SCENARIO_ENGINE_URL"])
def test_a_url_without_a_scheme_or_a_host_is_refused(key: str, url: str) -> None:
    assert named_in(refused_with(**{key: url})) == {key}


def test_a_url_loses_its_last_slash() -> None:
    assert make_config(SCENARIO_ENGINE_URL="https://engine.example.org/base/").scenario_engine_url == (
        "https://engine.example.org/base"
    )


def test_several_tokens_of_a_role_are_valid_at_once() -> None:
    config = make_config(SCHEDULER_ADMIN_TOKENS=f" {ADMIN_TOKEN} ,, {ADMIN_TOKEN}-next,")
    assert [token.get_secret_value() for token in config.scheduler_admin_tokens] == [ADMIN_TOKEN, f"{ADMIN_TOKEN}-next"]


@pytest.mark.parametrize("key", ["SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS"])
def test_a_token_that_is_too_short_is_refused_and_not_shown(key: str) -> None:
    text = refused_with(**{key: f"{'long' * 8},{SHORT}"})
    assert f"{key}: expected at least 32 characters, token 2 has fewer" in text
    assert SHORT not in text
    assert "longlong" not in text


@pytest.mark.parametrize("tokens", [",", " , ,"])
def test_a_list_without_a_token_is_refused(tokens: str) -> None:
    assert "SCHEDULER_INVOKE_TOKENS: expected at least one token" in refused_with(SCHEDULER_INVOKE_TOKENS=tokens)


def test_a_token_of_exactly_the_least_length_is_enough() -> None:
    make_config(SCHEDULER_INVOKE_TOKENS="x" * 32)
    assert "token 1 has fewer" in refused_with(SCHEDULER_INVOKE_TOKENS="x" * 31)


@pytest.mark.parametrize("key", ["SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS"])
def test_a_token_that_is_too_long_is_refused_and_not_shown(key: str) -> None:
    text = refused_with(**{key: f"{'long' * 64},{'long' * 64}r"})
    assert f"{key}: expected at most 256 characters, token 2 has more" in text
    assert "longlong" not in text


def test_a_token_of_exactly_the_greatest_length_is_not_too_long() -> None:
    make_config(SCHEDULER_INVOKE_TOKENS="x" * 256)
    assert "token 1 has more" in refused_with(SCHEDULER_INVOKE_TOKENS="x" * 257)


def test_a_token_that_stands_twice_in_its_list_is_no_mistake() -> None:
    assert len(make_config(SCHEDULER_ADMIN_TOKENS=f"{ADMIN_TOKEN},{ADMIN_TOKEN}").scheduler_admin_tokens) == 2


@pytest.mark.parametrize("count", ["0", "1", "10"])
def test_a_few_proxies_can_be_trusted(count: str) -> None:
    assert make_config(TRUSTED_PROXY_COUNT=count).trusted_proxy_count == int(count)


def test_a_token_of_both_roles_is_refused_and_not_shown() -> None:
    text = refused_with(SCHEDULER_ADMIN_TOKENS=f"{ADMIN_TOKEN},{INVOKE_TOKEN}")
    assert "SCHEDULER_ADMIN_TOKENS: expected no token that is also in SCHEDULER_INVOKE_TOKENS" in text
    assert INVOKE_TOKEN not in text


def test_an_unknown_time_zone_is_refused_and_shown() -> None:
    assert "'Europe/Atlantis'" in refused_with(EVALUATION_TIMEZONE="Europe/Atlantis")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/localtime", "Europe", ".", "Europe/Oslo/"])
def test_a_path_is_no_time_zone(name: str) -> None:
    assert named_in(refused_with(EVALUATION_TIMEZONE=name)) == {"EVALUATION_TIMEZONE"}


@pytest.mark.parametrize(
    "expression", ["daily", "@daily", "0 2 * *", "0 0 2 * * *", "60 2 * * *", "0 24 * * *", "0 0 31 2 *", "a b c d e"]
)
def test_what_is_not_a_cron_expression_of_five_fields_is_refused(expression: str) -> None:
    assert named_in(refused_with(EVALUATION_SCHEDULE=expression)) == {"EVALUATION_SCHEDULE"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("EVALUATION_BATCH_SIZE", "0"),
        ("EVALUATION_BATCH_SIZE", "1001"),
        ("EVALUATION_BATCH_SIZE", "1.5"),
        ("ENGINE_USERS_PER_CALL", "0"),
        ("ENGINE_MAX_CONCURRENCY", "0"),
        ("ENGINE_MAX_CONCURRENCY_TOTAL", "0"),
        ("ENGINE_MAX_CONCURRENCY_TOTAL", "100001"),
        ("ENGINE_TIMEOUT_SECONDS", "0"),
        ("ENGINE_TIMEOUT_SECONDS", "nan"),
        ("ENGINE_TIMEOUT_SECONDS", "inf"),
        ("ENGINE_MAX_ATTEMPTS", "0"),
        ("TIME_BUDGET_SECONDS", "-1"),
        ("MAX_BATCH_DELIVERIES", "2"),
        ("MAX_WORKERS", "0"),
        ("RETENTION_DAYS", "0"),
        ("TRUSTED_PROXY_COUNT", "-1"),
        ("TRUSTED_PROXY_COUNT", "11"),
        ("TRUSTED_PROXY_COUNT", "all"),
        ("ALERT_WEBHOOK_URL", "hooks.example.org/services/x"),
        ("ALERT_PARTIAL_ABOVE", "-0.1"),
        ("ALERT_PARTIAL_ABOVE", "1"),
        ("ALERT_PARTIAL_ABOVE", "nan"),
        ("ALERT_PARTIAL_ABOVE", "some"),
        ("ALERT_LATE_ABOVE_MINUTES", "0"),
        ("GOOGLE_CLOUD_PROJECT", "projects/mine"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("LOG_LEVEL", "info"),
    ],
)
def test_a_value_out_of_its_range_is_refused(key: str, value: str) -> None:
    assert named_in(refused_with(**{key: value})) == {key}


def test_a_batch_must_stay_hidden_longer_than_its_worker_may_work() -> None:
    assert "expected more than TIME_BUDGET_SECONDS + 10 (35), found 35" in refused_with(BATCH_VISIBILITY_SECONDS="35")
    make_config(BATCH_VISIBILITY_SECONDS="36")


def test_a_call_must_fit_into_the_time_budget() -> None:
    assert "ENGINE_TIMEOUT_SECONDS: expected less than TIME_BUDGET_SECONDS (25), found 25" in refused_with(
        ENGINE_TIMEOUT_SECONDS="25"
    )
    make_config(ENGINE_TIMEOUT_SECONDS="24.9")


def test_every_worker_must_have_a_call_of_those_that_all_may_have() -> None:
    assert "ENGINE_MAX_CONCURRENCY_TOTAL: expected at least MAX_WORKERS (4), found 3" in refused_with(
        ENGINE_MAX_CONCURRENCY_TOTAL="3"
    )
    assert make_config(ENGINE_MAX_CONCURRENCY_TOTAL="4").engine_max_concurrency_total == 4
    make_config(ENGINE_MAX_CONCURRENCY_TOTAL="1", MAX_WORKERS="1")


def test_a_run_must_end_before_the_engine_forgets_its_keys() -> None:
    assert "INVOCATION_EXPIRES_AFTER_HOURS: expected at most ENGINE_KEY_TTL_HOURS (19), found 20" in refused_with(
        ENGINE_KEY_TTL_HOURS="19"
    )
    make_config(ENGINE_KEY_TTL_HOURS="20")


WEBHOOK = "https://hooks.example.org/services/T0/B0/hush"
SIGNING_SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"  # 24 bytes


def test_a_webhook_may_go_without_a_signature_but_no_signature_without_a_webhook() -> None:
    assert make_config(ALERT_WEBHOOK_URL=WEBHOOK).alert_webhook_secret is None
    both = make_config(ALERT_WEBHOOK_URL=WEBHOOK, ALERT_WEBHOOK_SECRET=SIGNING_SECRET)
    assert both.alert_webhook_secret is not None
    assert both.alert_webhook_secret.get_secret_value() == SIGNING_SECRET
    assert "ALERT_WEBHOOK_URL: missing, although" in refused_with(ALERT_WEBHOOK_SECRET=SIGNING_SECRET)
    assert named_in(refused_with(ALERT_WEBHOOK_SECRET=SIGNING_SECRET, ALERT_WEBHOOK_URL="x")) == {"ALERT_WEBHOOK_URL"}


def test_the_url_of_a_webhook_is_kept_as_it_is_and_not_shown() -> None:
    config = make_config(ALERT_WEBHOOK_URL=f"{WEBHOOK}/", ALERT_WEBHOOK_SECRET=SIGNING_SECRET)
    assert config.alert_webhook_url is not None
    assert config.alert_webhook_url.get_secret_value() == f"{WEBHOOK}/"
    shown = f"{config!r} {config}" + json.dumps(config.in_force())
    assert "hush" not in shown
    assert SIGNING_SECRET not in shown
    assert config.in_force()["alerts"] is True


@pytest.mark.parametrize(
    "secret",
    [SIGNING_SECRET.removeprefix("whsec_"), "whsec_", "whsec_hush", "whsec_" + "aHVz" * 7, "whsec_" + "aHVz" * 22],
    ids=["no prefix", "empty", "no base64", "21 bytes", "66 bytes"],
)
def test_a_signing_secret_that_is_none_is_refused_and_not_shown(secret: str) -> None:
    text = refused_with(ALERT_WEBHOOK_URL=WEBHOOK, ALERT_WEBHOOK_SECRET=secret)
    assert "ALERT_WEBHOOK_SECRET: expected whsec_ and 24 to 64 bytes in base64" in text
    assert secret.removeprefix("whsec_") not in text or secret == "whsec_"


def test_a_webhook_that_is_no_url_is_refused_and_not_shown() -> None:
    text = refused_with(ALERT_WEBHOOK_URL="hooks.example.org/hush")
    assert "ALERT_WEBHOOK_URL: expected a URL" in text
    assert "hush" not in text


@pytest.mark.parametrize("project", ["my-project-42", "example.org:my-project"])
def test_a_google_cloud_project_can_be_named(project: str) -> None:
    assert make_config(GOOGLE_CLOUD_PROJECT=project).google_cloud_project == project


def test_all_broken_relations_are_named_at_once() -> None:
    broken = refused_with(
        BATCH_VISIBILITY_SECONDS="20",
        ENGINE_TIMEOUT_SECONDS="26",
        ENGINE_KEY_TTL_HOURS="1",
        SCHEDULER_ADMIN_TOKENS=INVOKE_TOKEN,
    )
    assert named_in(broken) == {
        "BATCH_VISIBILITY_SECONDS",
        "ENGINE_TIMEOUT_SECONDS",
        "INVOCATION_EXPIRES_AFTER_HOURS",
        "SCHEDULER_ADMIN_TOKENS",
    }


def test_scenario_types_can_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "types.json"
    file.write_text('[{"type": "birthday", "segments": ["b", "a"]}]', encoding="utf-8")
    config = make_config(SCENARIO_TYPES=f"@{file}")
    assert config.in_force()["scenario_types"] == [{"type": "birthday", "enabled": True, "segments": ["a", "b"]}]


def test_a_file_of_scenario_types_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    text = refused_with(SCENARIO_TYPES=f"@{tmp_path / 'nowhere.json'}")
    assert "SCENARIO_TYPES: cannot read the file" in text
    assert "nowhere.json: No such file or directory" in text


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "types.json"
    file.write_bytes(b"\xff\xfe[]")
    assert named_in(refused_with(SCENARIO_TYPES=f"@{file}")) == {"SCENARIO_TYPES"}


@pytest.mark.parametrize(
    "text",
    [
        "inactivity_30_days",
        "[",
        "{}",
        "[]",
        '"birthday"',
        "[1]",
        "[{}]",
        '[{"type": ""}]',
        '[{"type": "with space"}]',
        '[{"type": "a:b"}]',
        '[{"type": "a", "segmets": ["x"]}]',
        '[{"type": "a", "segments": "everyone"}]',
        '[{"type": "a", "enabled": false}]',
        '[{"type": "a"}, {"type": "a"}]',
    ],
)
def test_scenario_types_of_another_shape_are_refused(text: str) -> None:
    assert named_in(refused_with(SCENARIO_TYPES=text)) == {"SCENARIO_TYPES"}


def test_an_error_in_one_scenario_type_says_in_which() -> None:
    text = refused_with(SCENARIO_TYPES='[{"type": "a"}, {"type": "b", "segmets": []}]')
    assert "SCENARIO_TYPES[1][segmets]" in text


def test_a_scenario_type_applies_to_its_segments_and_without_any_to_everyone() -> None:
    types = [
        {"type": "for_all"},
        {"type": "for_new_or_old", "segments": ["new", "old"]},
        {"type": "switched_off", "enabled": False},
        {"type": "for_nobody_here", "segments": ["elsewhere"]},
    ]
    config = make_config(SCENARIO_TYPES=json.dumps(types))
    assert config.scenario_types_for([]) == ("for_all",)
    assert config.scenario_types_for(["old", "odd"]) == ("for_all", "for_new_or_old")
    assert config.scenario_types_for(iter(["new"])) == ("for_all", "for_new_or_old")


def test_what_is_recorded_holds_no_url_and_no_secret() -> None:
    recorded = json.dumps(make_config().in_force())
    assert not any(value in recorded for value in REQUIRED.values())
    assert set(make_config().in_force()).isdisjoint(key.lower() for key in REQUIRED)


def test_what_is_recorded_is_the_same_each_time() -> None:
    text = json.dumps([{"type": "a", "segments": [f"segment {n}" for n in range(20)]}])
    config = make_config(SCENARIO_TYPES=text)
    segments = config.in_force()["scenario_types"][0]["segments"]
    assert segments == sorted(segments)
    assert len(segments) == 20


def example_settings() -> dict[str, str]:
    lines = ENV_EXAMPLE.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_example_names_exactly_the_settings_that_exist() -> None:
    kinds: tuple[type[Any], ...] = (ScenarioEvaluationConfig, *TARGETS.values())
    assert set(example_settings()) == {setting.name.upper() for kind in kinds for setting in fields(kind)}


def test_the_example_is_valid_and_shows_the_defaults() -> None:
    assert ScenarioEvaluationConfig.from_environment(example_settings()).in_force() == make_config().in_force()


@pytest.mark.parametrize(
    "bad",
    [
        {"SUPABASE_URL": "http:///"},
        {"SUPABASE_URL": "http://a b"},
        {"SCENARIO_ENGINE_TOKEN": "a\nb"},
        {"SUPABASE_SECRET_KEY": "schlüssel"},
        {"SCENARIO_TYPES": "[" * 100_000},
    ],
)
def test_what_cannot_be_sent_or_read_is_refused_at_the_start(bad: dict[str, str]) -> None:
    assert named_in(refused(REQUIRED | bad)) == set(bad)


def test_broken_relations_are_named_beside_missing_keys() -> None:
    environment = {key: value for key, value in REQUIRED.items() if key != "SUPABASE_URL"}
    assert named_in(refused(environment | {"BATCH_VISIBILITY_SECONDS": "1"})) == {
        "SUPABASE_URL",
        "BATCH_VISIBILITY_SECONDS",
    }
