"""The rules for an engine of one pair a call, by the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import httpx
import pytest

from tests.engine_conformance.__main__ import main
from tests.engine_conformance.protocols import Single
from tests.engine_conformance.rules import names

USERS = [f"00000000-0000-4000-8000-{number:012}" for number in range(3)]
TYPES = ["applies", "does_not_apply"]
REPEATS = {"same-key-at-once", "same-key-again", "other-key"}
Answer = dict[str, Any]


class SingleEngine:
    """Keeps the contract, but for what is changed: an answer (or the status of none), or under which key it is kept."""

    def __init__(
        self,
        change: Callable[[Answer | int], Answer | int] = lambda answer: answer,
        kept_as: Callable[[Answer, str], str | None] = lambda call, key: None if call["dry_run"] else key,
    ) -> None:
        self.dry_runs: set[bool] = set()
        self._change, self._kept_as = change, kept_as
        self._kept: dict[str | None, Answer] = {}
        self._ids = count(1)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.headers.get("authorization") != "Bearer a-token":
            return httpx.Response(401)
        try:
            call = json.loads(request.content)
            pair = {name: call[name] for name in ("user_id", "scenario_type")}
        except (ValueError, KeyError):
            return httpx.Response(422)
        self.dry_runs.add(call["dry_run"])
        answer: Answer | int = 404
        if request.url.path == "/api/v1/scenario-trigger-evaluations" and not {*pair.values()} - {*USERS, *TYPES}:
            now, applies = datetime.now(UTC).isoformat(), pair["scenario_type"] == "applies"
            answer = {**pair, "id": next(self._ids), "should_notify": applies, "evaluated_at": now}
            key = self._kept_as(call, request.headers["idempotency-key"])
            answer = answer if key is None else self._kept.setdefault(key, answer)
        answer = self._change(answer)
        return httpx.Response(answer) if isinstance(answer, int) else httpx.Response(201, json=answer)


def altered(**members: object) -> SingleEngine:
    return SingleEngine(lambda answer: answer if isinstance(answer, int) else {**answer, **members})


ALL = ("--supports", "dry_run,idempotency")
CASES: list[tuple[SingleEngine, tuple[str, ...], str, set[str]]] = [
    (SingleEngine(), ALL, "not judged", set()),
    (SingleEngine(), (*ALL, "--dry-run-only"), "not judged", {*REPEATS, "notification-id"}),
    (SingleEngine(kept_as=lambda *_: None), ("--supports", "dry_run"), "not judged", REPEATS),
    (SingleEngine(kept_as=lambda *_: None), (), "not judged", {*REPEATS, "dry-run"}),
    (SingleEngine(kept_as=lambda *_: None), ALL, "FAIL", {"same-key-at-once", "same-key-again"}),
    (SingleEngine(kept_as=lambda _, key: key), ALL, "FAIL", {"dry-run"}),
    (SingleEngine(kept_as=lambda of, _: of["user_id"] + of["scenario_type"]), ALL, "FAIL", {"dry-run", "other-key"}),
    (altered(should_notify="yes"), ALL, "FAIL", {"members"}),
    (altered(user_id="another"), ALL, "FAIL", {"nothing-foreign"}),
    (altered(id=None), ALL, "FAIL", {"notification-id"}),
    (SingleEngine(lambda answer: 503 if answer == 404 else answer), ALL, "FAIL", {"unknown-user", "unknown-type"}),
    (SingleEngine(lambda _: 500), ALL, "FAIL", {"one-user"}),
]


@pytest.mark.parametrize(("engine", "supports", "verdict", "expected"), CASES)
def test_only_what_is_broken_fails_and_nothing_unsupported_is_judged(
    engine: SingleEngine,
    supports: tuple[str, ...],
    verdict: str,
    expected: set[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ITS_TOKEN", "a-token")
    arguments = ["http://engine.test", "--user-ids", ",".join(USERS), "--scenario-types", ",".join(TYPES), *supports]
    more = ["--protocol", "single", "--token-env", "ITS_TOKEN", "--json"]
    main([*arguments, *more], transport=httpx.MockTransport(engine))
    verdicts = {found["rule"]: found["verdict"] for found in json.loads(capsys.readouterr().out)["findings"]}
    assert set(verdicts) == {*names(Single())}
    assert {rule for rule, was in verdicts.items() if was == verdict} == expected
    assert verdict == "FAIL" or "FAIL" not in verdicts.values()
    assert supports or engine.dry_runs == {False}
