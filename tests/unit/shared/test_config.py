"""The environment becomes one validated value, or one error that names everything that is wrong with it."""

from __future__ import annotations

import json
import re
import traceback
from base64 import b64encode
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.config import ScenarioEvaluationConfig, Settings
from shared.deployment.env_file import read_env_file
from shared.deployment.settings import TARGETS
from shared.errors import ConfigError
from tests.emulator.staging import ROOT
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN, REQUIRED, make_config

WEBHOOK = "https://hooks.example.org/services/T0/B0/hush"
SIGNING_SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"  # 24 bytes


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
    assert make_config().in_force() == {
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
        "alerts": False,
        "alert_partial_above": 0.01,
        "alert_late_above_minutes": 120,
        "log_level": "INFO",
    }


def test_the_example_names_all_settings_and_shows_the_defaults() -> None:
    example = read_env_file(ROOT / ".env.example")
    kinds: list[type[Settings]] = [ScenarioEvaluationConfig, *TARGETS.values()]
    assert set(example) == {name.upper() for kind in kinds for name in kind.model_fields}
    assert ScenarioEvaluationConfig.from_environment(example).in_force() == make_config().in_force()


def test_all_that_is_missing_wrong_or_at_odds_is_named_at_once() -> None:
    bad = {
        "SUPABASE_URL": "project.example.org",
        "EVALUATION_BATCH_SIZE": "0",
        "EVALUATION_TIMEZONE": "Europe/Atlantis",
        "EVALUATION_SCHEDULE": "every night",
        "LOG_LEVEL": "LOUD",
        "BATCH_VISIBILITY_SECONDS": "20",
        "ENGINE_TIMEOUT_SECONDS": "26",
        "INVOCATION_EXPIRES_AFTER_HOURS": "169",
        "SCHEDULER_ADMIN_TOKENS": INVOKE_TOKEN,
        "ALERT_WEBHOOK_SECRET": SIGNING_SECRET,
    }
    text = refused({key: value for key, value in REQUIRED.items() if key != "SCENARIO_ENGINE_URL"} | bad)
    assert named_in(text) == {*bad, "SCENARIO_ENGINE_URL", "ALERT_WEBHOOK_URL"} - {"ALERT_WEBHOOK_SECRET"}
    assert named_in(refused({})) == set(REQUIRED)
    assert "\n  SCENARIO_ENGINE_URL: missing" in text


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("MAX_WORKERS", "-1", "MAX_WORKERS: expected a number greater than or equal to 1, found '-1'"),
        ("MAX_WORKERS", "four", "MAX_WORKERS: expected a whole number, found 'four'"),
        ("LOG_LEVEL", "info", "LOG_LEVEL: expected 'DEBUG', 'INFO', 'WARNING' or 'ERROR', found 'info'"),
        ("EVALUATION_TIMEZONE", "UTC+1", "expected an IANA time zone such as Europe/Oslo, found 'UTC+1'"),
        ("GOOGLE_CLOUD_PROJECT", "projects/x", "expected the id of a Google Cloud project, found 'projects/x'"),
        ("SCENARIO_TYPES", "[1, 2", "SCENARIO_TYPES: expected JSON or @file: EOF while parsing a list"),
        ("SCENARIO_TYPES", '[{"type": "a"}, {"type": "a"}]', "expected each type once, found twice: a"),
        ("SCENARIO_TYPES", '[{"type": "a"}, {"type": "b", "segmets": []}]', "SCENARIO_TYPES, entry 2, 'segmets': "),
        (
            "SCENARIO_TYPES",
            '[{"type": "a", "segments": ["b", "\\u0000"]}]',
            ", entry 1, 'segments', entry 2: expected ",
        ),
        (
            "SCENARIO_TYPES",
            "@/nowhere.json",
            "cannot read the file: [Errno 2] No such file or directory: '/nowhere.json'",
        ),
        ("SCHEDULER_INVOKE_TOKENS", " , ,", "SCHEDULER_INVOKE_TOKENS: expected at least one"),
    ],
)
def test_an_error_says_what_was_expected_and_what_was_found(key: str, value: str, said: str) -> None:
    assert said in refused_with(**{key: value})


@pytest.mark.parametrize(
    "secrets",
    [
        {
            "SUPABASE_SECRET_KEY": "hush hush",
            "SCENARIO_ENGINE_TOKEN": "h\u00fcsh-hush",
            "SCHEDULER_INVOKE_TOKENS": "hush",
        },
        {"SCHEDULER_ADMIN_TOKENS": "a-token-of-hush-and-of-32-characters,hush"},
        {"SUPABASE_URL": "https://hush:hush@x.example", "SCENARIO_ENGINE_URL": "https://hush:hu/sh@x"},
        {"ALERT_WEBHOOK_URL": "hooks.example.org/hush", "ALERT_WEBHOOK_SECRET": "whsec_hush"},
        {"ALERT_WEBHOOK_URL": "https://hush:hush@hooks.example.org", "ALERT_WEBHOOK_SECRET": "hush"},
    ],
)
def test_no_secret_is_in_an_error_nor_in_its_traceback(secrets: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(**secrets, MAX_WORKERS="none")
    assert named_in(str(caught.value)) == {*secrets, "MAX_WORKERS"}
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_no_secret_is_in_what_the_configuration_shows_or_records() -> None:
    config = make_config(ALERT_WEBHOOK_URL=WEBHOOK, ALERT_WEBHOOK_SECRET=SIGNING_SECRET)
    shown = f"{config!r} {config} {config.supabase_secret_key}"
    recorded = json.dumps(config.in_force())
    for key in ("SUPABASE_SECRET_KEY", "SCENARIO_ENGINE_TOKEN", "SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS"):
        assert REQUIRED[key] not in shown + recorded
    assert not any(secret in shown + recorded for secret in ("hush", SIGNING_SECRET))
    assert not any(value in recorded for value in REQUIRED.values())
    assert config.in_force()["alerts"] is True


@pytest.mark.parametrize("empty", ["", "   ", "\t\n"])
def test_an_empty_variable_counts_as_unset(empty: str) -> None:
    assert make_config(MAX_WORKERS=empty).max_workers == 4
    assert "SUPABASE_URL: missing" in refused_with(SUPABASE_URL=empty)


def test_only_the_given_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = make_config()
    monkeypatch.setenv("MAX_WORKERS", "9")
    assert make_config(PATH="/bin", TOTALLY_UNKNOWN="1", max_workers="8", evaluation_timezone="x") == expected


def test_space_around_a_value_is_not_part_of_it() -> None:
    assert make_config(SUPABASE_SECRET_KEY=" key\n").supabase_secret_key.get_secret_value() == "key"


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_config().max_workers = 9


URL_KEYS = ("SUPABASE_URL", "SCENARIO_ENGINE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT", "ALERT_WEBHOOK_URL")


NO_URLS = r"""
project.example.org ftp://x.example https:// http:///x //x file:///x http://x:0 http://x:65536 http://x:y http://x\y
http://user:password@x http://user@x http://@x http://x# http://x/#y http://. http://a..b http://.a http://-a.x
http://a-.x http://a,b http://a%2eb http://xn--a.x http://bü_x http://ﬁ.x http://1.2.3 http://1.2.3.256 http://[::g]
http://[v1.x] http://x[::1] http://[::1]x HTTPS://x
"""


@pytest.mark.parametrize("key", URL_KEYS)
@pytest.mark.parametrize(
    "url",
    [
        *NO_URLS.split(),
        *("http://a b", "http://x\ny", "http://x/\x01"),
        *(f"http://{name}" for name in ("a" * 64, "é" * 63, ".".join(["a" * 63] * 4))),
    ],
)
def test_a_url_that_no_client_can_call_as_it_stands_is_refused(key: str, url: str) -> None:
    assert named_in(refused_with(**{key: url})) == {key}


@pytest.mark.parametrize("key", URL_KEYS[:3])
@pytest.mark.parametrize("url", ["http://x/?y=1", "http://x?"])
def test_a_query_is_refused_where_a_path_will_be_appended(key: str, url: str) -> None:
    assert "found one with a query or fragment" in refused_with(**{key: url})
    make_config(ALERT_WEBHOOK_URL=url)


@pytest.mark.parametrize(
    "host",
    [
        *("engine.example.org.", "localhost:8080", "my_engine", "v1---service-uc.a.run.app", "127.0.0.1", "[::1]:80"),
        *("bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "a" * 63, ".".join(["a" * 63] * 3)),
    ],
)
def test_a_host_that_dns_can_carry_is_taken_as_it_stands(host: str) -> None:
    assert make_config(SCENARIO_ENGINE_URL=f"https://{host}/base/").scenario_engine_url == f"https://{host}/base"


def test_the_url_of_a_webhook_keeps_its_last_slash() -> None:
    url = make_config(ALERT_WEBHOOK_URL=f"{WEBHOOK}/").alert_webhook_url
    assert url is not None
    assert url.get_secret_value() == f"{WEBHOOK}/"


def test_several_tokens_of_a_role_are_valid_at_once() -> None:
    config = make_config(SCHEDULER_ADMIN_TOKENS=f" {ADMIN_TOKEN} ,, {ADMIN_TOKEN}-next,{ADMIN_TOKEN}")
    tokens = [token.get_secret_value() for token in config.scheduler_admin_tokens]
    assert tokens == [ADMIN_TOKEN, f"{ADMIN_TOKEN}-next", ADMIN_TOKEN]


@pytest.mark.parametrize("key", ["SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS"])
def test_a_token_has_32_to_256_characters(key: str) -> None:
    make_config(**{key: f"{'x' * 32},{'x' * 256}"})
    for bad in ("x" * 31, "x" * 257):
        assert f"{key}, entry 2: expected 32 to 256 printable ASCII" in refused_with(**{key: f"{'x' * 32},{bad}"})


@pytest.mark.parametrize("key", ["SUPABASE_SECRET_KEY", "SCENARIO_ENGINE_TOKEN", "SCHEDULER_INVOKE_TOKENS"])
@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\x7f", " ", "\u00fc", "\udcff"])
def test_a_secret_that_no_header_can_carry_is_refused(key: str, character: str) -> None:
    assert named_in(refused_with(**{key: f"{'x' * 32}{character}x"})) == {key}


@pytest.mark.parametrize(
    "text", ["Europe/Atlantis", "../../etc/passwd", "/etc/localtime", "Europe", ".", "Europe/Oslo/"]
)
def test_what_is_no_time_zone_is_refused(text: str) -> None:
    assert named_in(refused_with(EVALUATION_TIMEZONE=text)) == {"EVALUATION_TIMEZONE"}


@pytest.mark.parametrize(
    "expression", ["daily", "@daily", "0 2 * *", "0 0 2 * * *", "60 2 * * *", "0 24 * * *", "0 0 31 2 *", "a b c d e"]
)
def test_what_is_not_a_cron_expression_of_five_fields_is_refused(expression: str) -> None:
    assert named_in(refused_with(EVALUATION_SCHEDULE=expression)) == {"EVALUATION_SCHEDULE"}


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("EVALUATION_BATCH_SIZE", 1, 1000),
        ("ENGINE_USERS_PER_CALL", 1, 1000),
        ("ENGINE_TYPES_PER_CALL", 1, 1000),
        ("ENGINE_MAX_CONCURRENCY", 1, 1000),
        ("ENGINE_MAX_CONCURRENCY_TOTAL", 2, 100_000),
        ("ENGINE_MAX_ATTEMPTS", 1, 20),
        ("ENGINE_KEY_TTL_HOURS", 1, 8784),
        ("TIME_BUDGET_SECONDS", 1, 3500),
        ("BATCH_VISIBILITY_SECONDS", 12, 86_400),
        ("MAX_BATCH_DELIVERIES", 3, 100),
        ("INVOCATION_EXPIRES_AFTER_HOURS", 1, 8784),
        ("MISSED_SLOT_MAX_GAP_HOURS", 1, 8784),
        ("MAX_WORKERS", 1, 100),
        ("RETENTION_DAYS", 1, 36_500),
        ("ALERT_LATE_ABOVE_MINUTES", 1, 527_040),
    ],
)
def test_a_whole_number_has_a_least_and_a_greatest_value(key: str, least: int, most: int) -> None:
    others = {"TIME_BUDGET_SECONDS": "1", "ENGINE_TIMEOUT_SECONDS": "0.5", "BATCH_VISIBILITY_SECONDS": "86400"}
    others |= {"ENGINE_KEY_TTL_HOURS": "8784", "INVOCATION_EXPIRES_AFTER_HOURS": "1", "MAX_WORKERS": "1"}
    others |= {"ENGINE_MAX_CONCURRENCY": "1"}
    for number in (least, most):
        assert getattr(make_config(**others | {key: str(number)}), key.lower()) == number
    for bad in (str(least - 1), str(most + 1), f"{most // 10}_{most % 10}", "1.5", "nan", "1e1", "٣", "9" * 5000):
        assert named_in(refused_with(**others | {key: bad})) == {key}


@pytest.mark.parametrize("number", ["0", "-1", "nan", "inf", "1e400", "1e-9", "300.1", "1_0", "soon"])
def test_a_time_out_is_from_a_millisecond_to_five_minutes(number: str) -> None:
    roomy = {"TIME_BUDGET_SECONDS": "3500", "BATCH_VISIBILITY_SECONDS": "3600"}
    assert named_in(refused_with(ENGINE_TIMEOUT_SECONDS=number, **roomy)) == {"ENGINE_TIMEOUT_SECONDS"}
    assert make_config(ENGINE_TIMEOUT_SECONDS="0.001", **roomy).engine_timeout_seconds == 0.001


@pytest.mark.parametrize("number", ["-0.1", "1", "nan", "inf", "some"])
def test_a_share_is_from_0_and_less_than_1(number: str) -> None:
    assert named_in(refused_with(ALERT_PARTIAL_ABOVE=number)) == {"ALERT_PARTIAL_ABOVE"}
    assert make_config(ALERT_PARTIAL_ABOVE="0").alert_partial_above == 0


@pytest.mark.parametrize(
    ("bad", "good", "said"),
    [
        (
            {"BATCH_VISIBILITY_SECONDS": "35"},
            {"BATCH_VISIBILITY_SECONDS": "36"},
            "BATCH_VISIBILITY_SECONDS: expected more than TIME_BUDGET_SECONDS (25) + 10, found 35",
        ),
        (
            {"TIME_BUDGET_SECONDS": "50"},
            {"TIME_BUDGET_SECONDS": "49"},
            "BATCH_VISIBILITY_SECONDS: expected more than TIME_BUDGET_SECONDS (50) + 10, found 60",
        ),
        (
            {"ENGINE_TIMEOUT_SECONDS": "25"},
            {"ENGINE_TIMEOUT_SECONDS": "24.9"},
            "ENGINE_TIMEOUT_SECONDS: expected less than TIME_BUDGET_SECONDS (25), found 25",
        ),
        (
            {"ENGINE_MAX_CONCURRENCY_TOTAL": "32"},
            {"ENGINE_MAX_CONCURRENCY_TOTAL": "64"},
            "ENGINE_MAX_CONCURRENCY_TOTAL: expected a multiple of ENGINE_MAX_CONCURRENCY (32), at least twice it, "
            "found 32: "
            "it is handed out in permits of so many calls, one of them for manual runs only",
        ),
        (
            {"ENGINE_MAX_CONCURRENCY": "8", "ENGINE_MAX_CONCURRENCY_TOTAL": "20"},
            {"ENGINE_MAX_CONCURRENCY": "8", "ENGINE_MAX_CONCURRENCY_TOTAL": "24"},
            "ENGINE_MAX_CONCURRENCY_TOTAL: expected a multiple of ENGINE_MAX_CONCURRENCY (8), at least twice it, "
            "found 20: "
            "it is handed out in permits of so many calls, one of them for manual runs only",
        ),
        (
            {"ENGINE_KEY_TTL_HOURS": "19"},
            {"ENGINE_KEY_TTL_HOURS": "20"},
            "INVOCATION_EXPIRES_AFTER_HOURS: expected at most ENGINE_KEY_TTL_HOURS (19), found 20",
        ),
        (
            {"ALERT_WEBHOOK_SECRET": SIGNING_SECRET},
            {"ALERT_WEBHOOK_SECRET": SIGNING_SECRET, "ALERT_WEBHOOK_URL": WEBHOOK},
            "ALERT_WEBHOOK_URL: missing, although ALERT_WEBHOOK_SECRET is set",
        ),
        (
            {"SCHEDULER_ADMIN_TOKENS": f"{ADMIN_TOKEN},{INVOKE_TOKEN}"},
            {"SCHEDULER_ADMIN_TOKENS": f"{ADMIN_TOKEN},{ADMIN_TOKEN}"},
            "SCHEDULER_ADMIN_TOKENS: expected no token that is also in SCHEDULER_INVOKE_TOKENS",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(bad: dict[str, str], good: dict[str, str], said: str) -> None:
    assert said in refused_with(**bad)
    make_config(**good)


@pytest.mark.parametrize("size", [23, 65])
def test_a_signing_secret_holds_24_to_64_bytes(size: int) -> None:
    for allowed in (24, 64):
        make_config(ALERT_WEBHOOK_URL=WEBHOOK, ALERT_WEBHOOK_SECRET=f"whsec_{b64encode(bytes(allowed)).decode()}")
    secrets = [
        f"whsec_{b64encode(bytes(size)).decode()}",
        SIGNING_SECRET.removeprefix("whsec_"),
        "whsec_",
        "whsec_\u00fc",
    ]
    for secret in secrets:
        text = refused_with(ALERT_WEBHOOK_URL=WEBHOOK, ALERT_WEBHOOK_SECRET=secret)
        assert "ALERT_WEBHOOK_SECRET: expected whsec_ and 24 to 64 bytes in base64" in text


@pytest.mark.parametrize("project", ["my-project-42", "example.org:my-project"])
def test_a_google_cloud_project_can_be_named(project: str) -> None:
    assert make_config(GOOGLE_CLOUD_PROJECT=project).google_cloud_project == project


def test_scenario_types_can_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "types.json"
    file.write_text('[{"type": "birthday", "segments": ["b", "a"]}]', encoding="utf-8-sig")
    config = make_config(SCENARIO_TYPES=f"@{file}")
    assert config.in_force()["scenario_types"] == [{"type": "birthday", "enabled": True, "segments": ["a", "b"]}]
    file.write_bytes(b"\xff\xfe[]")
    assert "SCENARIO_TYPES: expected JSON or @file" in refused_with(SCENARIO_TYPES=f"@{file}")


@pytest.mark.parametrize(
    "text",
    [
        *("inactivity_30_days", "[", "{}", "[]", '"birthday"', "[1]", "[{}]", "[" * 100_000, '[{"type": "a\ud800"}]'),
        *('[{"type": ""}]', '[{"type": "with space"}]', '[{"type": "a:b"}]', '[{"type": "a\\n"}]', '[{"type": 1}]'),
        *('[{"type": "a", "segmets": []}]', '[{"type": "a", "segments": "x"}]', '[{"type": "a"}, {"type": "a"}]'),
        *('[{"type": "a", "enabled": 1}]', '[{"type": "a", "enabled": false}]', '[{"type": "a", "segments": [1]}]'),
    ],
)
def test_scenario_types_of_another_shape_are_refused(text: str) -> None:
    assert named_in(refused_with(SCENARIO_TYPES=text)) == {"SCENARIO_TYPES"}


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
    assert config.scenario_types_for(iter(["new"]), frozenset({"for_new_or_old"})) == ("for_new_or_old",)
    assert config.enabled_types() == ("for_all", "for_new_or_old", "for_nobody_here")
