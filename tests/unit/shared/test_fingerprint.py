"""The digests of code and settings are the same on every machine, and others when anything in effect is another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shared.fingerprint import Fingerprint
from tests.unit.environment import REQUIRED, make_config

CODE = {"functions/main.py": "a", "functions/http/app.js": "b", "shared/config.py": "c", "requirements.txt": "d"}


def code_digest(folder: Path, files: Mapping[str, str]) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return Fingerprint.of(make_config(), {}, folder).code_digest


def settings_digest(environment: Mapping[str, str] = {}, /, **settings: str) -> str:
    return Fingerprint.of(make_config(**settings), environment).settings_digest


def test_a_code_digest_is_of_what_is_deployed(tmp_path: Path) -> None:
    left_out = {"functions/__pycache__/main.pyc": "x", "shared/deployment/a.py": "x", "main.py": "x", "shared/.b": "x"}
    digest = code_digest(tmp_path / "one", CODE)
    assert digest == code_digest(tmp_path / "other", dict(reversed(CODE.items())) | left_out)
    others = [CODE | {name: "other"} for name in CODE] + [{**CODE, "shared/new.py": ""}]
    others += [{name.replace("app", "ap"): text for name, text in CODE.items()}]
    digests = {code_digest(tmp_path / f"{number}", files) for number, files in enumerate(others)}
    assert len(digests - {digest}) == len(others)


def test_a_settings_digest_is_of_what_is_in_effect() -> None:
    spelled_out = {"MAX_WORKERS": " 4 ", "SCENARIO_TYPES": "", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    telemetry = {"OTEL_SERVICE_NAME": "a"}
    assert settings_digest(**spelled_out) == settings_digest({"PATH": "/bin", "OTEL_X": " "}) == settings_digest()
    changes = [{name: f"{REQUIRED[name]}-new"} for name in REQUIRED]
    changes += [{"MAX_WORKERS": "5"}, {"SCENARIO_TYPES": '[{"type": "a"}]'}, {"EVALUATION_TIMEZONE": "Europe/Oslo"}]
    digests = {settings_digest(**change) for change in changes} | {settings_digest(telemetry)}
    assert len(digests - {settings_digest()}) == len(changes) + 1


def test_a_schedule_is_as_the_database_has_it() -> None:
    config = make_config(EVALUATION_SCHEDULE="30  4 * * *", EVALUATION_TIMEZONE="Europe/Oslo")
    assert Fingerprint.of(config, {}).schedule == "30 4 * * * Europe/Oslo"
