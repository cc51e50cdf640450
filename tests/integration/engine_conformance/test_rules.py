"""An engine that keeps the contract passes, and each rule fails where it is broken, alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest

from tests.engine_conformance.engine import NOTHING, Engine
from tests.engine_conformance.engine import Reply as Seen
from tests.engine_conformance.examination import UNKNOWN_TYPE, Transcript, examine
from tests.engine_conformance.rules import judge, names
from tests.scripted_engine import Call, Item, Proceed, Reply, Rule, ScriptedEngine, rules

USERS = [f"00000000-0000-4000-8000-{number:012}" for number in range(120)]
TYPES = ["applies", "does_not_apply"]


def outcome_of(_: str, scenario_type: str) -> str:
    return "triggered" if scenario_type == "applies" else "not_triggered"


async def fails_the_unknown(call: Call, proceed: Proceed) -> Reply:
    items = (
        replace(item, scenario_types=tuple(name for name in item.scenario_types if name in TYPES))
        for item in call.items
        if item.user_id in USERS
    )
    known = replace(call, items=tuple(items))
    reply = await proceed(known)
    error = {"code": "unknown", "retryable": False}
    reply.results += [
        {"user_id": user_id, "scenario_type": scenario_type, "outcome": "failed", "error": error}
        for user_id, scenario_type in call.pairs
        if (user_id, scenario_type) not in known.pairs
    ]
    return reply


def keeps_keys(key_of: Callable[[Call, Item], str]) -> Rule:
    async def rule(call: Call, proceed: Proceed) -> Reply:
        items = (replace(item, idempotency_key_prefix=key_of(call, item)) for item in call.items)
        return await proceed(replace(call, items=tuple(items)))

    return rule


async def acts_in_dry_runs(call: Call, proceed: Proceed) -> Reply:
    return await proceed(replace(call, dry_run=False))


def notifies_twice_at_once() -> Rule:
    real_calls = count(1)

    async def rule(call: Call, proceed: Proceed) -> Reply:
        reply = await proceed(call)
        if not call.dry_run and next(real_calls) == 2:
            reply.results = [{**result, "notification_id": "another"} for result in reply.results]
        return reply

    return rule


def replays_failures() -> Rule:
    failed: set[str] = set()

    async def rule(call: Call, proceed: Proceed) -> Reply:
        reply = await proceed(call)
        keys = dict(zip(call.pairs, call.keys, strict=True))
        for result in reply.results:
            key = keys[result["user_id"], result["scenario_type"]]
            if result["outcome"] == "failed":
                failed.add(key)
            elif key in failed:
                result.update(outcome="failed", error={"code": "unknown", "retryable": False})
        return reply

    return rule


BROKEN: list[tuple[Rule, set[str]]] = [
    (rules.respond(500), {"one-user"}),
    (rules.only(lambda call: len(call.items) > 50, rules.respond(413)), {"hundred-users"}),
    (rules.other_json(b"[]"), {"json"}),
    (rules.alter_results(lambda results: results[1:]), {"every-pair-once"}),
    (rules.foreign_results({"an unknown user"}), {"nothing-foreign"}),
    (rules.huge_body(2_000_000), {"bounded"}),
    (rules.only(lambda call: not set(call.user_ids) <= set(USERS), rules.respond(422)), {"unknown-user"}),
    (rules.only(lambda call: UNKNOWN_TYPE in str(call.pairs), rules.respond(500)), {"unknown-type"}),
    (acts_in_dry_runs, {"dry-run"}),
    (rules.alter_results(lambda results: [r | {"notification_id": None} for r in results]), {"notification-id"}),
    (notifies_twice_at_once(), {"same-key-at-once"}),
    (
        keeps_keys(lambda call, item: f"{item.idempotency_key_prefix}:{call.number}"),
        {"same-key-at-once", "same-key-again", "key-of-the-pair"},
    ),
    (keeps_keys(lambda call, item: f"{item.idempotency_key_prefix}:{call.user_ids}"), {"key-of-the-pair"}),
    (keeps_keys(lambda _, item: item.user_id), {"other-key"}),
    (replays_failures(), {"failed-anew"}),
]


async def seen_of(*broken: Rule, users: list[str] = USERS, dry_run_only: bool = False) -> Transcript:
    """What an engine shows that keeps the contract but for one thing."""
    async with (
        ScriptedEngine(rules=[*broken, fails_the_unknown], outcome_of=outcome_of) as scripted,
        contextlib.aclosing(Engine(scripted.url, scripted.token, timeout_seconds=10)) as engine,
    ):
        seen = await examine(engine, users=users, scenario_types=TYPES, dry_run_only=dry_run_only)
        assert broken or bool(scripted.acts) != dry_run_only
        return seen


def verdicts(seen: Transcript, verdict: str) -> set[str]:
    return {finding.rule for finding in judge(seen) if finding.verdict == verdict}


async def test_a_conforming_engine_passes_every_rule_and_each_can_fail() -> None:
    seen = await seen_of()
    assert verdicts(seen, "pass") == set(names()) == {"token", "malformed"}.union(*(caught for _, caught in BROKEN))
    lax = Seen(seen.one.asked, status=200)
    for reply in ("wrong_token", "longer_token", "no_token"):
        assert verdicts(replace(seen, **{reply: lax}), "FAIL") == {"token"}  # type: ignore[arg-type]
    crashed = Seen(NOTHING, status=500)
    assert verdicts(replace(seen, malformed={**seen.malformed, "no JSON": crashed}), "FAIL") == {"malformed"}
    assert verdicts(replace(seen, afterwards=crashed), "FAIL") == {"malformed"}


@pytest.mark.parametrize(("broken", "caught_by"), BROKEN, ids=[" ".join(sorted(caught)) for _, caught in BROKEN])
async def test_what_is_broken_is_caught_and_no_other_rule_fails(broken: Rule, caught_by: set[str]) -> None:
    assert verdicts(await seen_of(broken), "FAIL") == caught_by


async def test_what_dry_runs_cannot_show_is_not_judged() -> None:
    unseen = {"same-key-at-once", "same-key-again", "key-of-the-pair", "other-key", "failed-anew", "notification-id"}
    assert verdicts(await seen_of(dry_run_only=True), "not judged") == unseen
    assert verdicts(await seen_of(users=USERS[:5]), "not judged") == {"failed-anew"}
