"""The calls that are made: what is seen is judged by `rules.py`."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .engine import NOTHING, Engine, Evaluations, Reply

MANY = 100
AT_ONCE = 4
# How many of the given users the calls in between are about.
SOME = 5
UNKNOWN_TYPE = "no_such_scenario_type"
# What was not asked, and so was not answered.
NOT_ASKED = Reply(NOTHING, failure="not asked")


@dataclass
class Transcript:
    """The replies, by what they were asked for."""

    dry_run_only: bool
    unknown_user: str
    one: Reply
    wrong_token: Reply
    longer_token: Reply
    no_token: Reply
    known: Reply
    known_again: Reply
    with_unknown_user: Reply
    with_unknown_type: Reply
    many: Reply = NOT_ASKED
    malformed: dict[str, Reply] = field(default_factory=dict)
    afterwards: Reply = NOT_ASKED
    dry_before: Reply = NOT_ASKED
    dry_again: Reply = NOT_ASKED
    at_once: list[Reply] = field(default_factory=list)
    repeated: Reply = NOT_ASKED
    beside_others: Reply = NOT_ASKED
    under_other_keys: Reply = NOT_ASKED
    before_failure: Reply = NOT_ASKED
    failure: Reply = NOT_ASKED
    after_failure: Reply = NOT_ASKED

    def calls(self) -> list[Reply]:
        """Every call that should have been answered with results."""
        asked = [each for name, each in vars(self).items() if isinstance(each, Reply) and not name.endswith("_token")]
        return [reply for reply in [*asked, *self.at_once] if reply is not NOT_ASKED]


async def examine(
    engine: Engine, *, users: Sequence[str], scenario_types: Sequence[str], dry_run_only: bool
) -> Transcript:
    """Asks the engine all that the rules have to know, about users and types that it knows.

    Unless it is dry, those of the first six users whom a scenario applies to are notified.
    """
    run = str(uuid.uuid4())
    unknown_user = str(uuid.uuid4())
    some = list(users[:SOME])
    types = list(scenario_types)

    # Of keys that the first dry runs did not have: what those left behind shows in the later ones.
    later = f"dry:{uuid.uuid4()}"

    def dry(about: Sequence[str], asked_types: Sequence[str] = types, scope: str = f"dry:{run}") -> Evaluations:
        return Evaluations(about, asked_types, scope, dry_run=True)

    transcript = Transcript(
        dry_run_only=dry_run_only,
        unknown_user=unknown_user,
        one=await engine.ask(dry(some[:1])),
        wrong_token=await engine.ask_as(dry(some[:1]), "not-the-token"),
        longer_token=await engine.ask_as(dry(some[:1]), f"{engine.token}x"),
        no_token=await engine.ask_as(dry(some[:1]), None),
        known=await engine.ask(dry(some)),
        known_again=await engine.ask(dry(some, scope=later)),
        with_unknown_user=await engine.ask(dry([*some, unknown_user], scope=later)),
        with_unknown_type=await engine.ask(dry(some, [*types, UNKNOWN_TYPE], later)),
    )
    if len(users) >= MANY or transcript.with_unknown_user.is_answer:
        others = [str(uuid.uuid4()) for _ in range(MANY - len(users))]
        transcript.many = await engine.ask(dry([*users[:MANY], *others]))
    # About an unknown user: an engine that guesses notifies no one.
    undecided = {name: value for name, value in dry([unknown_user]).body().items() if name != "dry_run"}
    no_calls = {
        "no JSON": b"{",
        "no call": b"{}",
        "an empty body": b"",
        "a call that does not say whether it is dry": json.dumps(undecided).encode(),
    }
    for what, body in no_calls.items():
        transcript.malformed[what] = await engine.send(body)
    transcript.afterwards = await engine.ask(dry(some))

    real = Evaluations(some, types, f"manual:{run}", dry_run=False)
    as_if = replace(real, dry_run=True)
    transcript.dry_before = await engine.ask(as_if)
    transcript.dry_again = await engine.ask(as_if)
    if not dry_run_only:
        transcript.at_once = await asyncio.gather(*(engine.ask(real) for _ in range(AT_ONCE)))
        transcript.repeated = await engine.ask(real)
        # The same pairs and keys in another call, which begins with another user.
        transcript.beside_others = await engine.ask(replace(real, users=[unknown_user, *some]))
        transcript.under_other_keys = await engine.ask(replace(real, scope=f"manual:{uuid.uuid4()}"))
        if len(users) > SOME:
            await _ask_after_failure(engine, transcript, users[SOME], types)
    return transcript


async def _ask_after_failure(engine: Engine, transcript: Transcript, user: str, types: Sequence[str]) -> None:
    """Keys that failed, for a user who cannot exist, are used again for one who was not asked about for real."""
    unknown = transcript.unknown_user
    real = Evaluations([user], types, f"manual:{uuid.uuid4()}", dry_run=False)
    transcript.before_failure = await engine.ask(replace(real, dry_run=True))
    transcript.failure = await engine.ask(replace(real, users=[unknown]))
    transcript.after_failure = await engine.ask(replace(real, keys_of=unknown))
