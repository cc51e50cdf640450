"""The search for secrets in logs: what it finds, how it tells, and what it leaves in peace."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.observability import log_event
from tests.secret_scan import Leak, SecretLeakedError, Secrets, leaks_in
from tests.unit.environment import REQUIRED
from tests.unit.log_lines import captured_log

TOKEN = "Zq3vT8xWb1RkY6uHs0eNcJ5mPd9gLa2f-Xo7iQw_4Uy"
KNOWN = Secrets({"the invoke token": TOKEN})


def kinds_in(line: str, known: Secrets = KNOWN) -> list[str]:
    return [leak.kind for leak in leaks_in([line], "a.log", known)]


@pytest.mark.parametrize(
    "line",
    [
        TOKEN,
        f"started with {TOKEN}.",
        json.dumps({"message": f"refused {TOKEN}"}),
        json.dumps({"message": json.dumps({"token": TOKEN})}),
        f"https://function.example.org/?token={TOKEN}&again=1",
        f"cut after some characters: {TOKEN[:30]}",
        f"its end only: {TOKEN[-30:]}",
    ],
)
def test_a_known_secret_is_found_wherever_it_stands(line: str) -> None:
    assert kinds_in(line) == ["the invoke token"]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Bearer x", "a bearer token"),
        ("tried with bearer\tabc", "a bearer token"),
        ('{"token": "eyJhbGciOiJIUzI1NiJ9.e30.x"}', "a JWT"),
        ("key sb_secret_1 is unknown", "a Supabase secret key"),
        ("Authorization: Basic dTpw", "an authorization header"),
        ('{"authorization": "x"}', "an authorization header"),
        (r'{"message": "{\"authorization\": \"x\"}"}', "an authorization header"),
        ("[(b'authorization', b'x')]", "an authorization header"),
        ('{"headers": {"Authorization": ["REDACTED"]}}', "an authorization header"),
        ("proxy-authorization=x", "an authorization header"),
        ('{"Apikey":["x"]}', "an apikey header"),
        ("postgresql://postgres:geheim@127.0.0.1:5432/postgres", "a URL with a password"),
    ],
)
def test_what_has_the_shape_of_a_secret_is_found_unknown_as_it_is(line: str, kind: str) -> None:
    assert kinds_in(line) == [kind]


@pytest.mark.parametrize(
    "line",
    [
        "",
        '{"event": "caller_refused", "message": "A caller without a known token was refused", "path": "/"}',
        '{"trace_id": "0af7651916cd43dd8448eb211c80319c", "user_id": "0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10"}',
        "http://127.0.0.1:9/v1/evaluations refused the connection at 02:00",
        "http://127.0.0.1:8000/mail@example.org",
        "the authorization was refused",
        "STATEMENT:  select vault.create_secret($1, $2)",
    ],
)
def test_an_innocent_line_is_left_in_peace(line: str) -> None:
    assert kinds_in(line) == []


def test_a_value_too_short_to_be_a_secret_is_not_looked_for() -> None:
    assert kinds_in("x marks the spot", Secrets({"no token at all": "", "a letter": "x"})) == []


def test_a_leak_is_told_by_file_line_and_kind_and_not_by_the_secret() -> None:
    (leak,) = leaks_in(["fine", f"not fine: {TOKEN}", "fine"], "logs/function.log", KNOWN)
    assert leak == Leak("logs/function.log", 2, "the invoke token")
    error = SecretLeakedError([leak])
    assert "logs/function.log:2: the invoke token" in str(error)
    for text in (str(error), repr(error), str(KNOWN), repr(KNOWN)):
        assert TOKEN not in text


def log_while_captured(*lines: dict[str, Any], error: Exception | None = None) -> None:
    with captured_log():
        for fields in lines:
            log_event("started", "Ready", **fields)
        if error:
            raise error


@pytest.mark.parametrize("name", [name for name in REQUIRED if not name.endswith("_URL")])
def test_code_that_logs_one_of_its_secrets_fails_its_test(name: str) -> None:
    with pytest.raises(SecretLeakedError, match=f"log:2: {name}") as caught:
        log_while_captured({}, {"setting": REQUIRED[name]})
    assert REQUIRED[name] not in str(caught.value)


def test_code_that_logs_a_header_it_was_sent_fails_its_test() -> None:
    with pytest.raises(SecretLeakedError, match="log:1: an authorization header"):
        log_while_captured({"headers": {"authorization": "Basic dTpw"}})


def test_a_test_that_failed_otherwise_says_so_and_not_that_it_leaked() -> None:
    with pytest.raises(LookupError):
        log_while_captured({"setting": REQUIRED["SCENARIO_ENGINE_TOKEN"]}, error=LookupError())
