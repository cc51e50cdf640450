"""The search for secrets in logs: what it finds, and that code which logs one fails its test."""

from __future__ import annotations

import json

import pytest

from shared.logs import log_event
from tests.secret_scan import SecretLeakedError, Secrets, leaks_in
from tests.unit.environment import REQUIRED
from tests.unit.log_lines import captured_log

TOKEN = "Zq3vT8xWb1RkY6uHs0eNcJ5mPd9gLa2f-Xo7iQw_4Uy"


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        (
            "the invoke token",
            [
                *(json.dumps({"message": json.dumps({"token": TOKEN})}), f"https://f.example.org/?token={TOKEN}&a=1"),
                *(f"cut: {TOKEN[:30]}", f"its end only: {TOKEN[-30:]}"),
            ],
        ),
        ("a bearer token", ["Bearer x", "tried with bearer\tabc"]),
        ("a JWT", ['{"token": "eyJhbGciOiJIUzI1NiJ9.e30.x"}']),
        ("a Supabase secret key", ["key sb_secret_1 is unknown"]),
        (
            "an authorization header",
            [
                *("Authorization: Basic dTpw", '{"authorization": "x"}', "[(b'authorization', b'x')]"),
                *(r'{"message": "{\"authorization\": \"x\"}"}', "proxy-authorization=x"),
            ],
        ),
        ("an apikey header", ['{"Apikey":["x"]}']),
        ("a URL with a password", ["postgresql://postgres:geheim@127.0.0.1:5432/postgres"]),
        (
            None,
            [
                '{"event": "caller_refused", "message": "A caller without a known token was refused", "path": "/"}',
                '{"trace_id": "0af7651916cd43dd8448eb211c80319c", "user_id": "0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10"}',
                *("http://127.0.0.1:8000/mail@example.org", "the authorization was refused", "x marks the spot"),
            ],
        ),
    ],
)
def test_a_secret_is_found_by_value_or_shape(kind: str | None, lines: list[str]) -> None:
    known = Secrets({"the invoke token": TOKEN, "no token at all": "", "a letter": "x"})
    found = [(leak.line, leak.kind) for leak in leaks_in(lines, "a.log", known)]
    assert found == [(number, kind) for number in range(1, len(lines) + 1) if kind]
    assert TOKEN not in f"{known!r} {SecretLeakedError(leaks_in(lines, 'a.log', known))}"


@pytest.mark.parametrize("name", [name for name in REQUIRED if not name.endswith("_URL")])
def test_code_that_logs_one_of_its_secrets_fails_its_test(name: str) -> None:
    with pytest.raises(SecretLeakedError, match=f"log:1: {name}") as caught, captured_log():
        log_event("started", "Ready", setting=REQUIRED[name])
    assert REQUIRED[name] not in str(caught.value)
