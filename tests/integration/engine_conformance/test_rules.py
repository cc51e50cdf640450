"""An engine that keeps the contract passes, and each rule fails where it is broken, alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from tests.engine_conformance.engine import Engine
from tests.engine_conformance.examination import UNKNOWN_TYPE, Transcript, examine
from tests.engine_conformance.protocols import Batch
from tests.engine_conformance.rules import Judge, names
from tests.scripted_engine import Call, Item, Rule, ScriptedEngine, rules

USERS = [f"00000000-0000-4000-8000-{number:012}" for number in range(120)]
TYPES = ["applies", "does_not_apply"]


def outcome_of(user_id: str, scenario_type: str) -> str:
    if user_id not in USERS or scenario_type not in TYPES:
        return "failed"
    return "triggered" if scenario_type == "applies" else "not_triggered"


def explained(result: dict[str, Any]) -> dict[str, Any]:
    return {**result, "error": {"code": "unknown"}} if result.get("outcome") == "failed" else result


def keeps_keys(key_of: Callable[[Call, Item], str]) -> Rule:
    def items(call: Call) -> Iterator[Item]:
        return (replace(item, idempotency_key_prefix=key_of(call, item)) for item in call.items)

    return lambda call, proceed: proceed(replace(call, items=tuple(items(call))))


def alters(change: dict[str, Any], when: Callable[[Call], bool] = lambda _: True) -> Rule:
    return rules.only(when, rules.alter_results(lambda results: [{**result, **change} for result in results]))


REAL_CALLS = count(1)
BROKEN: list[tuple[Rule, set[str]]] = [
    (rules.respond(500), {"one-user"}),
    (rules.only(lambda call: len(call.items) > 50, rules.respond(413)), {"full-call"}),
    (rules.act_and_change(lambda _, reply: reply.headers.update({"content-type": "text/plain"})), {"media-type"}),
    (rules.other_json(b'{"items": [], "total": 0}'), {"members"}),
    (rules.alter_results(lambda results: results[1:]), {"every-pair-once"}),
    (rules.foreign_results({"an unknown user"}), {"nothing-foreign"}),
    (rules.huge_body(2_000_000), {"bounded"}),
    (rules.only(lambda call: not set(call.user_ids) <= set(USERS), rules.respond(422)), {"unknown-user"}),
    (rules.only(lambda call: UNKNOWN_TYPE in str(call.pairs), rules.respond(500)), {"unknown-type"}),
    (lambda call, proceed: proceed(replace(call, dry_run=False)), {"dry-run"}),
    (alters({"notification_id": None}), {"notification-id"}),
    (
        alters({"notification_id": "another"}, lambda call: not call.dry_run and next(REAL_CALLS) == 2),
        {"same-key-at-once"},
    ),
    (
        keeps_keys(lambda call, item: f"{item.idempotency_key_prefix}:{call.number}"),
        {"same-key-at-once", "same-key-again"},
    ),
    (keeps_keys(lambda call, item: f"{item.idempotency_key_prefix}:{call.user_ids}"), {"key-of-the-pair"}),
    (keeps_keys(lambda _, item: item.user_id), {"other-key"}),
    (alters({"outcome": "failed"}, lambda call: call.user_ids[0] not in call.keys[0]), {"failed-anew"}),
    (alters({"outcome": "sent"}, lambda call: len(call.items) > 50), {"every-answer"}),
]


async def seen_of(
    *broken: Rule, users: list[str] = USERS, dry_run_only: bool = False, protocol: Batch | None = None
) -> Transcript:
    """What an engine shows that keeps the contract but for one thing."""
    explains = rules.alter_results(lambda results: [explained(result) for result in results])
    seen = Transcript(protocol or Batch(), dry_run_only)
    async with ScriptedEngine(rules=[explains, *broken], outcome_of=outcome_of) as scripted:
        engine = Engine(scripted.url, scripted.token, seen.protocol, timeout_seconds=10)
        async with engine.client:
            async for _ in examine(engine, seen, users=users, scenario_types=TYPES):
                pass
        assert broken or bool(scripted.acts) != dry_run_only
        assert {len(call.user_ids) <= seen.protocol.users_per_call for call in scripted.calls} == {True}
        most = seen.protocol.users_per_call * seen.protocol.types_per_call
        assert {len(call.pairs) <= most for call in scripted.calls} == {True}
    return seen


def verdicts(seen: Transcript, verdict: str) -> set[str]:
    return {finding.rule for finding in Judge(seen).judge() if finding.verdict == verdict}


async def test_a_conforming_engine_passes_every_rule_and_each_can_fail() -> None:
    seen = await seen_of()
    every = {"token", "malformed"}.union(*(caught for _, caught in BROKEN))
    assert verdicts(seen, "pass") == set(names(Batch())) == every
    crashed = replace(seen.one, status=500, is_answer=False)
    for what in seen.tokens:
        assert verdicts(replace(seen, tokens={**seen.tokens, what: seen.one}), "FAIL") == {"token"}
    assert verdicts(replace(seen, malformed={**seen.malformed, "no JSON": crashed}), "FAIL") == {"malformed"}
    assert verdicts(replace(seen, afterwards=crashed), "FAIL") == {"malformed"}


@pytest.mark.parametrize(("broken", "caught_by"), BROKEN, ids=[" ".join(sorted(caught)) for _, caught in BROKEN])
async def test_what_is_broken_is_caught_and_no_other_rule_fails(broken: Rule, caught_by: set[str]) -> None:
    assert verdicts(await seen_of(broken), "FAIL") == caught_by


async def test_what_dry_runs_and_small_calls_cannot_show_is_not_judged() -> None:
    unseen = {"same-key-at-once", "same-key-again", "key-of-the-pair", "other-key", "failed-anew", "notification-id"}
    for seen, not_judged in (
        (await seen_of(dry_run_only=True), unseen),
        (await seen_of(users=USERS[:5]), {"failed-anew"}),
        (await seen_of(protocol=Batch(2, 1)), set()),
        (await seen_of(protocol=Batch(1, 1)), {"key-of-the-pair"}),
    ):
        assert (verdicts(seen, "not judged"), verdicts(seen, "FAIL")) == (not_judged, set())
