"""Ready-made misbehaviour. The first rule of a script is the outermost: it sees the call first and the reply last.

Whatever counts, counts for one script: make a rule anew for each engine. Nothing is random: what looks so is drawn from
the call's number.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from itertools import count
from typing import Any

from .exchange import Call, Proceed, Reply, Result, Rule

When = Callable[[Call], bool]

# ---- when


def first(times: int) -> When:
    """True for the first calls that it is asked about."""
    asked = count(1)
    return lambda _: next(asked) <= times


def calls(*numbers: int) -> When:
    return lambda call: call.number in numbers


def every(n: int) -> When:
    return lambda call: call.number % n == 0


def share(of_calls: float, seed: int = 0) -> When:
    """The given share of all calls, the same ones in each run."""
    return lambda call: random.Random(f"{seed}:{call.number}").random() < of_calls


def naming(users: Collection[str]) -> When:
    return lambda call: call.names_any(users)


def only(when: When, rule: Rule) -> Rule:
    """The rule, for the calls that the condition picks."""

    async def applied(call: Call, proceed: Proceed) -> Reply:
        return await (rule(call, proceed) if when(call) else proceed(call))

    return applied


# ---- whole calls


def respond(status: int, *, headers: Mapping[str, str] | None = None) -> Rule:
    """Answers without acting."""
    text = b'{"error": {"code": "scripted", "message": "the script says so"}}'
    return _reply(lambda: Reply(status=status, headers=dict(headers or {}), body=text))


def _reply(make: Callable[[], Reply]) -> Rule:
    async def rule(_: Call, __: Proceed) -> Reply:
        return make()

    return rule


def act_then(rule: Rule) -> Rule:
    """Evaluates and acts first, then answers as if it had not: the caller cannot know what has happened."""

    async def acted(call: Call, proceed: Proceed) -> Reply:
        await proceed(call)
        return await rule(call, proceed)

    return acted


def refuse_calls_with(users: Collection[str], status: int = 422) -> Rule:
    """Poison: one such user spoils the call of all others."""
    return only(naming(users), respond(status))


def fail_every(n: int, status: int = 500) -> Rule:
    return only(every(n), respond(status))


def retry_after(seconds: float, times: int) -> Rule:
    return only(first(times), respond(503, headers={"retry-after": str(seconds)}))


# ---- time and connections


def slow(seconds: float) -> Rule:
    """Evaluates after this time, and so acts even if the caller has given up."""

    async def rule(call: Call, proceed: Proceed) -> Reply:
        await asyncio.sleep(seconds)
        return await proceed(call)

    return rule


def hold_until(event: asyncio.Event) -> Rule:
    """Evaluates once the event is set."""

    async def rule(call: Call, proceed: Proceed) -> Reply:
        await event.wait()
        return await proceed(call)

    return rule


def never_answer() -> Rule:
    """Until the engine stops."""
    return hold_until(asyncio.Event())


def reset() -> Rule:
    """Drops the connection without an answer."""
    return _reply(lambda: Reply(reset=True))


# ---- single items


def items_failed(
    users: Collection[str], *, times: int | None = None, retryable: bool, code: str = "scripted_failure"
) -> Rule:
    """Answers these users' items `failed` and does not act on them, each the first times it is asked (None: always)."""
    asked: Counter[str] = Counter()

    async def rule(call: Call, proceed: Proceed) -> Reply:
        failing = {user for user in call.user_ids if user in users and (times is None or asked[user] < times)}
        asked.update(failing)
        others = call.without(failing)
        reply = await proceed(others) if others.items else Reply()
        error = {"code": code, "message": "the script says so", "retryable": retryable}
        reply.results += [
            {"user_id": user_id, "scenario_type": scenario_type, "outcome": "failed", "error": error}
            for user_id, scenario_type in call.pairs
            if user_id in failing
        ]
        return reply

    return rule


def items_retryable(users: Collection[str], times: int) -> Rule:
    return items_failed(users, times=times, retryable=True)


# ---- answers; each acts truthfully before it answers


def act_and_change(change: Callable[[Call, Reply], None]) -> Rule:
    """Changes the reply in place."""

    async def rule(call: Call, proceed: Proceed) -> Reply:
        reply = await proceed(call)
        change(call, reply)
        return reply

    return rule


def alter_results(change: Callable[[list[Result]], list[Any]]) -> Rule:
    def answer(_: Call, reply: Reply) -> None:
        reply.results = change(reply.results)

    return act_and_change(answer)


def missing(users: Collection[str]) -> Rule:
    return alter_results(lambda results: [result for result in results if result["user_id"] not in users])


def repeated_results() -> Rule:
    return alter_results(lambda results: results + results)


def foreign_results(users: Collection[str], scenario_type: str = "inactivity") -> Rule:
    """Adds results of users that the call does not ask about."""
    foreign = [
        {"user_id": user_id, "scenario_type": scenario_type, "outcome": "triggered", "notification_id": "foreign"}
        for user_id in users
    ]
    return alter_results(lambda results: [*foreign, *results])


def wrong_types() -> Rule:
    """Valid JSON of the right depth, with every type wrong."""
    wrong = {"user_id": 4711, "scenario_type": None, "outcome": {"deep": True}, "error": "text"}
    return alter_results(lambda results: [None, 17, "text", [], *[wrong for _ in results]])


def with_body(make: Callable[[], bytes | AsyncIterator[bytes]], headers: Mapping[str, str] | None = None) -> Rule:
    """Answers 200 with this in place of the results."""

    def answer(_: Call, reply: Reply) -> None:
        reply.body = make()
        reply.headers.update(headers or {})

    return act_and_change(answer)


def cut_short() -> Rule:
    """Promises the whole answer and drops the connection in the middle of it."""

    def answer(_: Call, reply: Reply) -> None:
        reply.headers["content-length"] = "100000"
        reply.body = b'{"results": [{"user_id": "'
        reply.reset = True

    return act_and_change(answer)


def other_json(text: bytes) -> Rule:
    return with_body(lambda: text)


def huge_body(size: int) -> Rule:
    """Of known length, so that a caller can refuse it before reading."""
    return with_body(lambda: b'{"results": [' + b" " * (size - 15) + b"]}")


def deep_json(depth: int = 100_000) -> Rule:
    return with_body(lambda: b'{"results": ' + b"[" * depth + b"]" * depth + b"}")
