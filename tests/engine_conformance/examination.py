"""The calls that are made: what is seen is judged by `rules.py`."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from .engine import NOTHING, Engine, Reply
from .protocols import Batch, Evaluations, Single

AT_ONCE = 4
# How many of the given users the calls in between are about.
SOME = 5
UNKNOWN_TYPE = "no_such_scenario_type"
# What was not asked, and so was not answered.
NOT_ASKED = Reply(NOTHING, failure="not asked")


@dataclass
class Transcript:
    """The replies, by what they were asked for."""

    protocol: Batch | Single
    dry_run_only: bool
    unknown_user: str = field(default_factory=lambda: str(uuid.uuid4()))
    one: Reply = NOT_ASKED
    known: Reply = NOT_ASKED
    tokens: dict[str, Reply] = field(default_factory=dict)
    malformed: dict[str, Reply] = field(default_factory=dict)
    afterwards: Reply = NOT_ASKED
    known_again: Reply = NOT_ASKED
    with_unknown_user: Reply = NOT_ASKED
    with_unknown_type: Reply = NOT_ASKED
    full: Reply = NOT_ASKED
    dry_before: Reply = NOT_ASKED
    dry_again: Reply = NOT_ASKED
    at_once: list[Reply] = field(default_factory=list)
    repeated: Reply = NOT_ASKED
    under_other_keys: Reply = NOT_ASKED
    beside_others: Reply = NOT_ASKED
    before_failure: Reply = NOT_ASKED
    failure: Reply = NOT_ASKED
    after_failure: Reply = NOT_ASKED

    def first_answers(self) -> list[Reply]:
        return [call for reply in (self.one, self.known) for call in reply.calls if call.is_answer]

    def answers(self) -> list[Reply]:
        """Every answer with results, call by call."""
        asked = [each for each in vars(self).values() if isinstance(each, Reply)]
        return [call for reply in [*asked, *self.at_once] for call in reply.calls if call.is_answer]


async def examine(
    engine: Engine, seen: Transcript, *, users: Sequence[str], scenario_types: Sequence[str]
) -> AsyncIterator[tuple[str, ...]]:
    """Asks the engine all that the rules have to know, about users and types that it knows; notifies the first six.

    Yields the rules that can be judged meanwhile; those that it does not name can be at the end.
    """
    some, types, unknown = list(users[:SOME]), list(scenario_types), seen.unknown_user
    real = Evaluations(some, types, f"manual:{uuid.uuid4()}", dry_run=False)
    as_if = replace(real, dry_run=True)
    has_dry_runs, has_keys = ("dry_run" in seen.protocol.supports), ("idempotency" in seen.protocol.supports)
    dry = replace(as_if, scope=f"dry:{uuid.uuid4()}") if has_dry_runs else real
    # Of keys that the first dry runs did not have: what those left behind shows in the later ones.
    later = replace(as_if, scope=f"dry:{uuid.uuid4()}") if has_dry_runs else real

    first = replace(dry, users=some[:1], scenario_types=types[: seen.protocol.types_per_call])
    seen.one = await engine.ask(first)
    yield ("one-user",)
    if not seen.one.is_answer:
        return
    if has_dry_runs:
        seen.known = await engine.ask(dry)
    yield "media-type", "bounded", "members", "every-pair-once", "nothing-foreign"

    # About an unknown user: an engine that lets the call in notifies no one.
    probe = replace(later, users=[unknown], scenario_types=types[:1])
    tokens = {"a wrong token": "not-the-token", "the token and a letter more": f"{engine.token}x", "no token": None}
    for what, token in tokens.items():
        seen.tokens[what] = await engine.ask_as(probe, token)
    yield ("token",)

    body, required = seen.protocol.request(probe)[0], seen.protocol.required
    del body[required]
    no_calls = {"no JSON": b"{", "no call": b"{}", "an empty body": b"", f"no {required}": json.dumps(body).encode()}
    for what, content in no_calls.items():
        seen.malformed[what] = await engine.send(content)
    if has_dry_runs:
        seen.afterwards = await engine.ask(first)
        yield ("malformed",)

    is_batch, many = isinstance(seen.protocol, Batch), seen.protocol.users_per_call
    if has_dry_runs:
        seen.known_again = await engine.ask(later)
    seen.with_unknown_user = await engine.ask(replace(later, users=[*some, unknown]) if is_batch else probe)
    yield ("unknown-user",)
    beside = replace(later, scenario_types=[*types, UNKNOWN_TYPE])
    alone = replace(later, users=some[:1], scenario_types=[UNKNOWN_TYPE])
    seen.with_unknown_type = await engine.ask(beside if is_batch else alone)
    yield ("unknown-type",)
    if is_batch and (len(users) >= many or seen.with_unknown_user.is_answer):
        others = [str(uuid.uuid4()) for _ in range(many - len(users))]
        full = replace(dry, users=[*users[:many], *others], scenario_types=types[: seen.protocol.types_per_call])
        seen.full = await engine.ask(full)
    yield ("full-call",)

    if has_dry_runs:
        seen.dry_before = await engine.ask(as_if)
        seen.dry_again = await engine.ask(as_if)
    if seen.dry_run_only:
        return
    seen.at_once = await engine.ask_at_once(real, AT_ONCE if has_keys else 1)
    if not has_dry_runs:
        seen.afterwards = seen.at_once[0]
    if not has_keys:
        return
    seen.repeated = await engine.ask(real)
    seen.under_other_keys = await engine.ask(replace(real, scope=f"manual:{uuid.uuid4()}"))
    yield "malformed", "dry-run", "notification-id", "same-key-at-once", "same-key-again", "other-key"
    if is_batch:
        # The same pairs and keys in another call, which begins with another user.
        seen.beside_others = await engine.ask(replace(real, users=[unknown, *some]))
        yield ("key-of-the-pair",)
        if len(users) > SOME:
            # Keys that failed, for a user who cannot exist, are used again for one who was not asked about for real.
            sixth = replace(real, users=[users[SOME]], scope=f"manual:{uuid.uuid4()}")
            seen.before_failure = await engine.ask(replace(sixth, dry_run=True))
            seen.failure = await engine.ask(replace(sixth, users=[unknown]))
            seen.after_failure = await engine.ask(replace(sixth, keys_of=unknown))
