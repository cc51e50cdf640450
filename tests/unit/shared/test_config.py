"""The environment becomes one validated value, or one error that names everything that is wrong with it."""

from __future__ import annotations

import json
import re
import traceback
from base64 import b64encode
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.config import ScenarioEvaluationConfig
from shared.deployment.settings import TARGETS, read_env_file
from shared.engine_protocol import BATCH, SINGLE, protocol_of
from shared.errors import ConfigError
from shared.scenario_config import Scenarios
from shared.scenario_types import ScenarioType
from tests.emulator.staging import ROOT
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN, REQUIRED, make_config

WEBHOOK = "https://hooks.example.org/services/T0/B0/hush"
SIGNING_SECRET, LONG_SECRET, *NO_SECRETS = (f"whsec_{b64encode(bytes(size)).decode()}" for size in (24, 64, 23, 65))
URL_KEYS = ("SUPABASE_URL", "SCENARIO_ENGINE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT", "ALERT_WEBHOOK_URL")


def refused(environment: dict[str, str] = REQUIRED, /, **settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        ScenarioEvaluationConfig.from_environment(environment | settings)
    return str(caught.value)


def named_in(text: str) -> set[str]:
    """The settings that an error's lines begin with."""
    return set(re.findall(r"^  ([A-Z_]+)", text, re.MULTILINE))


def test_the_example_names_all_settings_and_shows_the_defaults() -> None:
    example = read_env_file(ROOT / ".env.example")
    assert set(example) == {name.upper() for kind in TARGETS.values() for name in kind.model_fields}
    assert ScenarioEvaluationConfig.from_environment(example).recorded_settings() == make_config().recorded_settings()


def test_every_missing_wrong_or_conflicting_setting_is_named_at_once() -> None:
    bad = {
        "SUPABASE_URL": "project.example.org",
        "EVALUATION_BATCH_SIZE": "0",
        "LOG_LEVEL": "LOUD",
        "BATCH_VISIBILITY_SECONDS": "20",
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
        ("LOG_LEVEL", "info", "LOG_LEVEL: expected 'DEBUG', 'INFO', 'WARNING' or 'ERROR', found 'info'"),
        ("EMPTY_ROSTER", "partial", "EMPTY_ROSTER: expected 'failed' or 'success', found 'partial'"),
        ("ALERT_ON", "never", "ALERT_ON: expected 'trouble' or 'always', found 'never'"),
        ("GOOGLE_CLOUD_PROJECT", "projects/x", "expected the id of a Google Cloud project, found 'projects/x'"),
        ("SCENARIO_TYPES", '[{"type": "a"}, {"type": "a"}]', "expected each type once, found twice: a"),
        ("SCENARIO_TYPES", '[{"type": "a"}, {"type": "b", "segmets": []}]', "SCENARIO_TYPES, entry 2, 'segmets': "),
        ("SCENARIO_TYPES", '[{"type": "a", "segments": ["b", "\\u0000"]}]', "entry 1, 'segments', entry 2: expected "),
        ("SCENARIO_TYPES", "@/nowhere.json", "cannot read the file: [Errno 2] No such file"),
        ("ALERT_WEBHOOK_SECRET", "hush", "ALERT_WEBHOOK_SECRET: expected whsec_ and 24 to 64 bytes in base64"),
        ("SCHEDULER_INVOKE_TOKENS", " , ,", "SCHEDULER_INVOKE_TOKENS: expected at least one"),
        ("SCHEDULER_ADMIN_TOKENS", f"a:{'x' * 32},a:{'y' * 32}", "expected each name once, found twice: a"),
        ("SCHEDULER_ADMIN_TOKENS", f"admin:{'x' * 32},{'y' * 32}", "expected each name once, found twice: admin"),
        ("SCHEDULER_ADMIN_TOKENS", f"a:{'x' * 32},b:{'x' * 32}", "expected one name for each token"),
        *(
            ("SCHEDULER_ADMIN_TOKENS", f"{name}:{'x' * 32}", f"than those of invoke tokens' callers, found {name}")
            for name in ("pg_cron", "cloud_scheduler", "invoke")
        ),
    ],
)
def test_an_error_says_what_was_expected_and_what_was_found(key: str, value: str, said: str) -> None:
    assert said in refused(**{key: value})


def test_no_secret_is_in_an_error_nor_in_its_traceback() -> None:
    secrets = {
        "SUPABASE_URL": "https://hush:hush@x.example",
        "SUPABASE_SECRET_KEY": "hush hush",
        "SUPABASE_PUBLISHABLE_KEY": "sb_secret_hush",  # the wrong one of two keys: it would be served to all
        "SCENARIO_ENGINE_URL": "https://hush:hu/sh@x",
        "SCENARIO_ENGINE_TOKEN": "h\u00fcsh-hush",
        "SCHEDULER_INVOKE_TOKENS": "hush",
        "SCHEDULER_ADMIN_TOKENS": f"{ADMIN_TOKEN},hush,anna:hush,Hush:{ADMIN_TOKEN},:hush,{'hush' * 9}:{ADMIN_TOKEN}",
        "ALERT_WEBHOOK_URL": "hooks.example.org/hush",
        "ALERT_WEBHOOK_SECRET": "whsec_hush",
    }
    with pytest.raises(ConfigError) as caught:
        make_config(**secrets, MAX_WORKERS="none")
    assert named_in(str(caught.value)) == {*secrets, "MAX_WORKERS"}
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_no_secret_is_shown_or_recorded() -> None:
    config = make_config(ALERT_WEBHOOK_URL=WEBHOOK, ALERT_WEBHOOK_SECRET=SIGNING_SECRET)
    recorded = json.dumps(config.recorded_settings())
    secrets = [value for key, value in REQUIRED.items() if not key.endswith("_URL")]
    for secret in (*secrets, "hush", SIGNING_SECRET):
        assert secret not in f"{config!r} {config} {config.supabase_secret_key} {recorded}"
    assert not any(value in recorded for value in REQUIRED.values())
    assert config.recorded_settings()["alerts"] is True


def test_the_environment_is_read_as_it_was_given_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = make_config()
    monkeypatch.setenv("MAX_WORKERS", "9")
    assert make_config(PATH="/bin", TOTALLY_UNKNOWN="1", max_workers="8", evaluation_timezone="x") == expected
    for empty in ("", "   ", "\t\n"):
        assert make_config(MAX_WORKERS=empty) == expected
        assert "SUPABASE_URL: missing" in refused(SUPABASE_URL=empty)
    assert make_config(SUPABASE_SECRET_KEY=" key\n").supabase_secret_key.get_secret_value() == "key"
    with pytest.raises(ValidationError, match="frozen"):
        expected.max_workers = 9


NO_URLS = r"""
project.example.org ftp://x.example https:// http:///x //x file:///x http://x:0 http://x:65536 http://x:y http://x\y
http://user:password@x http://user@x http://@x http://x# http://x/#y http://. http://a..b http://.a http://-a.x
http://a-.x http://a,b http://a%2eb http://xn--a.x http://bü_x http://ﬁ.x http://1.2.3 http://1.2.3.256 http://[::g]
http://[v1.x] http://x[::1] http://[::1]x HTTPS://x
"""
LONG_URLS = [f"http://{name}" for name in ("a" * 64, "é" * 63, ".".join(["a" * 63] * 4))]


def test_a_url_that_no_client_can_call_is_refused() -> None:
    for url in (*NO_URLS.split(), *LONG_URLS, "http://a b", "http://x\ny", "http://x/\x01"):
        assert named_in(refused(**dict.fromkeys(URL_KEYS, url))) == set(URL_KEYS), url


def test_only_the_webhooks_url_keeps_query_and_last_slash() -> None:
    for url in ("http://x/?y=1", "http://x?", f"{WEBHOOK}/"):
        kept = make_config(ALERT_WEBHOOK_URL=url).alert_webhook_url
        assert kept is not None
        assert kept.get_secret_value() == url
    for key in URL_KEYS[:3]:
        assert "found one with a query or fragment" in refused(**{key: "http://x?"})


def test_a_host_that_dns_can_carry_is_taken_unchanged() -> None:
    hosts = "engine.example.org. localhost:8080 my_engine v1---service-uc.a.run.app 127.0.0.1 [::1]:80 bücher.example"
    hosts += " bücher.example. BÜCHER.example xn--bcher-kva.example"
    for host in (*hosts.split(), "a" * 63, ".".join(["a" * 63] * 3)):
        assert make_config(SCENARIO_ENGINE_URL=f"https://{host}/base/").scenario_engine_url == f"https://{host}/base"


def test_each_role_has_tokens_of_32_to_256_characters() -> None:
    for key in ("SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS"):
        tokens = getattr(make_config(**{key: f" {'x' * 32} ,, {'y' * 256},"}), key.lower())
        assert [token.get_secret_value() for token in tokens] == ["x" * 32, "y" * 256]
        for bad in ("x" * 31, "x" * 257):
            assert f"{key}, entry 2: expected 32 to 256 printable ASCII" in refused(**{key: f"{'x' * 32},{bad}"})


def test_an_admin_token_may_have_a_name() -> None:
    name, token = "a-z_0-9".ljust(32, "9"), "x:" * 16
    config = make_config(SCHEDULER_ADMIN_TOKENS=f"{ADMIN_TOKEN}, {name}:{token}, {ADMIN_TOKEN}-next")
    assert config.admin_tokens() == [("admin", ADMIN_TOKEN), (name, token), ("admin", f"{ADMIN_TOKEN}-next")]


def test_a_secret_that_no_header_can_carry_is_refused() -> None:
    keys = ("SUPABASE_SECRET_KEY", "SCENARIO_ENGINE_TOKEN", "SCHEDULER_INVOKE_TOKENS")
    for character in "\n\r\0\x7f \u00fc\udcff":
        assert named_in(refused(**dict.fromkeys(keys, f"{'x' * 32}{character}x"))) == {*keys}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (
            "EVALUATION_TIMEZONE",
            ["Europe/Atlantis", "../../etc/passwd", "/etc/localtime", "localtime", "Europe", ".", "UTC/"],
        ),
        ("EVALUATION_SCHEDULE", ["daily", "@daily", "0 2 * *", "0 0 2 * * *", "60 2 * * *", "0 0 31 2 *"]),
        ("ALERT_WEBHOOK_SECRET", [*NO_SECRETS, SIGNING_SECRET.removeprefix("whsec_"), "whsec_", "whsec_\u00fc"]),
        ("ALERT_PARTIAL_ABOVE", ["-0.1", "1", "nan", "inf", "some"]),
        ("ENGINE_TIMEOUT_SECONDS", ["0", "-1", "nan", "inf", "1e400", "1e-9", "300.1", "1_0", "soon"]),
        (
            "SCENARIO_TYPES",
            [
                *("inactivity", "[", "{}", "[]", '"a"', "[1]", "[{}]", "[" * 100_000, '[{"type": "a\ud800"}]'),
                *('[{"type": ""}]', '[{"type": "a b"}]', '[{"type": "a:b"}]', '[{"type": "a\\n"}]', '[{"type": 1}]'),
                *('[{"type": "a", "segments": "x"}]', '[{"type": "a", "segments": [1]}]'),
                *('[{"type": "a", "enabled": 1}]', '[{"type": "a", "enabled": false}]'),
            ],
        ),
    ],
)
def test_a_value_of_another_kind_is_refused(key: str, values: list[str]) -> None:
    roomy = {"TIME_BUDGET_SECONDS": "3500", "BATCH_VISIBILITY_SECONDS": "3600", "ALERT_WEBHOOK_URL": WEBHOOK}
    for value in values:
        assert named_in(refused(**roomy, **{key: value})) == {key}, value


LIMITS = """
ENGINE_USERS_PER_CALL 1 1000, ENGINE_TYPES_PER_CALL 1 1000, ENGINE_MAX_CONCURRENCY 1 1000, EVALUATION_BATCH_SIZE 1 1000,
ENGINE_MAX_CONCURRENCY_TOTAL 2 100000, ENGINE_MAX_ATTEMPTS 1 20, ENGINE_KEY_TTL_HOURS 1 8784, MAX_WORKERS 1 100,
BATCH_VISIBILITY_SECONDS 12 86400, MAX_BATCH_DELIVERIES 3 100, INVOCATION_EXPIRES_AFTER_HOURS 1 8784,
MISSED_SLOT_MAX_GAP_HOURS 1 8784, RETENTION_DAYS 1 36500, ALERT_LATE_ABOVE_MINUTES 1 527040, TIME_BUDGET_SECONDS 1 3500
"""


@pytest.mark.parametrize(("key", "least", "most"), [limit.split() for limit in LIMITS.split(",")])
def test_a_whole_number_has_a_least_and_a_greatest_value(key: str, least: str, most: str) -> None:
    others = {"TIME_BUDGET_SECONDS": "1", "ENGINE_TIMEOUT_SECONDS": "0.5", "BATCH_VISIBILITY_SECONDS": "86400"}
    others |= {"ENGINE_KEY_TTL_HOURS": "8784", "INVOCATION_EXPIRES_AFTER_HOURS": "1", "ENGINE_MAX_CONCURRENCY": "1"}
    for number in (least, most):
        assert getattr(make_config(**others | {key: number}), key.lower()) == int(number)
    beyond = [str(int(least) - 1), str(int(most) + 1)]
    for bad in (*beyond, f"{most[:-1]}_{most[-1]}", "1.5", "nan", "1e1", "٣", "9" * 5000):
        assert named_in(refused(**others | {key: bad})) == {key}


@pytest.mark.parametrize(
    ("key", "good", "bad", "expected"),
    [
        ("BATCH_VISIBILITY_SECONDS", "36", "35", "expected more than TIME_BUDGET_SECONDS (25) + 10, found 35: a batch"),
        ("ENGINE_TIMEOUT_SECONDS", "24.9", "25", "expected less than TIME_BUDGET_SECONDS (25), found 25"),
        ("ENGINE_KEY_TTL_HOURS", "20", "19", "expected at most ENGINE_KEY_TTL_HOURS (19), found 20: the engine"),
        ("ENGINE_MAX_CONCURRENCY_TOTAL", "64", "32", "(32), at least twice it, found 32: it is handed out"),
        ("ENGINE_MAX_CONCURRENCY_TOTAL", "96", "80", "(32), at least twice it, found 80: it is handed out"),
        ("ALERT_WEBHOOK_URL", WEBHOOK, "", "ALERT_WEBHOOK_URL: missing, although ALERT_WEBHOOK_SECRET is set"),
        ("ENGINE_SUPPORTS", "", "dry_run", "ENGINE_SUPPORTS: expected only with ENGINE_PROTOCOL=single"),
        (
            *("SCHEDULER_ADMIN_TOKENS", f"{ADMIN_TOKEN},{ADMIN_TOKEN}", f"{ADMIN_TOKEN},anna:{INVOKE_TOKEN}"),
            "expected no token that is also in SCHEDULER_INVOKE_TOKENS",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(key: str, good: str, bad: str, expected: str) -> None:
    others = {"ALERT_WEBHOOK_SECRET": LONG_SECRET, "ALERT_WEBHOOK_URL": WEBHOOK}
    make_config(**others | {key: good})
    assert expected in refused(**others | {key: bad})


def test_permits_share_the_calls_of_a_minute() -> None:
    """Each of three permits needs five calls in 15 seconds with a call for each of three types, else three."""
    permits = {"ENGINE_MAX_CONCURRENCY": "2", "ENGINE_MAX_CONCURRENCY_TOTAL": "6"}
    assert make_config(**permits, ENGINE_MAX_CALLS_PER_MINUTE="39").calls_per_minute == 13
    permits["ENGINE_TYPES_PER_CALL"] = "1"
    for rate, share in (("63", 21), ("65", 21), ("1000000", 333_333)):
        config = make_config(**permits, ENGINE_MAX_CALLS_PER_MINUTE=rate)
        assert config.calls_per_minute == share
        assert config.seconds_between_calls == pytest.approx(62 / share)
    text = refused(**permits, ENGINE_MAX_CALLS_PER_MINUTE="62")
    assert "ENGINE_MAX_CALLS_PER_MINUTE: expected at least 63, found 62: 3 permits share it, and each needs 5" in text
    text = refused(ENGINE_MAX_CALLS_PER_MINUTE="600")
    assert "ENGINE_MAX_CALLS_PER_MINUTE: expected only with ENGINE_MAX_CONCURRENCY_TOTAL, whose permits share" in text
    assert named_in(refused(**permits, ENGINE_MAX_CALLS_PER_MINUTE="0")) == {"ENGINE_MAX_CALLS_PER_MINUTE"}
    assert (make_config(**permits).calls_per_minute, make_config(**permits).seconds_between_calls) == (None, 0)


def test_a_single_call_is_about_one_pair_and_supports_what_is_named() -> None:
    single = {"ENGINE_PROTOCOL": "single"}
    for supports, expected in (("", ()), (" idempotency, dry_run,", ("idempotency", "dry_run"))):
        config = make_config(**single, ENGINE_SUPPORTS=supports, ENGINE_TYPES_PER_CALL="1")
        assert (config.engine_users_per_call, config.engine_types_per_call) == (1, 1)
        recorded = config.recorded_settings()
        assert (recorded["engine_protocol"], tuple(recorded["engine_supports"])) == ("single", expected)
    both = protocol_of(make_config())
    assert (both.path, both.dry_run, both.idempotency) == (BATCH.path, True, True)
    named = protocol_of(make_config(**single, ENGINE_SUPPORTS="dry_run"))
    assert (named.path, named.dry_run, named.idempotency) == (SINGLE.path, True, False)
    text = refused(**single, ENGINE_USERS_PER_CALL="100", ENGINE_TYPES_PER_CALL="2", ENGINE_SUPPORTS="dry-run")
    assert "ENGINE_USERS_PER_CALL: expected 1, or not set, with ENGINE_PROTOCOL=single, found 100" in text
    assert named_in(text) == {"ENGINE_USERS_PER_CALL", "ENGINE_TYPES_PER_CALL", "ENGINE_SUPPORTS"}
    assert named_in(refused(ENGINE_PROTOCOL="both")) == {"ENGINE_PROTOCOL"}


def test_scenario_types_can_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "types.json"
    file.write_text('[{"type": "birthday", "segments": ["b", "a"]}]', encoding="utf-8-sig")
    (birthday,) = make_config(SCENARIO_TYPES=f"@{file}").scenario_types
    assert birthday == ScenarioType(type="birthday", segments=frozenset({"a", "b"}))
    file.write_bytes(b"\xff\xfe[]")
    assert "SCENARIO_TYPES: expected JSON or @file" in refused(SCENARIO_TYPES=f"@{file}")


def test_a_scenario_type_applies_to_its_segments_or_to_all() -> None:
    some = '{"type": "for_new_or_old", "segments": ["new", "old"]}, {"type": "for_others", "segments": ["elsewhere"]}'
    config = make_config(SCENARIO_TYPES=f'[{{"type": "for_all"}}, {{"type": "off", "enabled": false}}, {some}]')
    scenarios = Scenarios.resolve(config.scenario_types, [])
    assert scenarios.types_for([]) == ("for_all",)
    assert scenarios.types_for(["old", "odd"]) == ("for_all", "for_new_or_old")
    assert scenarios.types_for(["new"], frozenset({"for_new_or_old"})) == ("for_new_or_old",)
    assert scenarios.enabled_types() == ("for_all", "for_new_or_old", "for_others")
