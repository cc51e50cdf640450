"""The calls that are made: what is seen is judged by `rules.py`."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from .engine import Engine, Evaluations, Reply

MANY = 100
AT_ONCE = 4
# How many of the given users the calls in between are about.
SOME = 5
UNKNOWN_TYPE = "no_such_scenario_type"


@dataclass
class Transcript:
    """What was asked and answered, by what it was asked for; None: it was not asked.

    Args:
        dry_run_only: nobody was to be notified.
    """

    dry_run_only: bool
    one: Reply
    wrong_token: Reply
    longer_token: Reply
    no_token: Reply
    known: Reply
    known_again: Reply
    with_unknown_user: Reply
    with_unknown_type: Reply
    many: Reply | None = None
    malformed: dict[str, Reply] = field(default_factory=dict)
    afterwards: Reply | None = None
    dry_before: Reply | None = None
    dry_again: Reply | None = None
    at_once: list[Reply] = field(default_factory=list)
    repeated: Reply | None = None
    beside_others: Reply | None = None
    under_other_keys: Reply | None = None
    before_failure: Reply | None = None
    failure: Reply | None = None
    after_failure: Reply | None = None
    unknown_user: str = ""

    def calls(self) -> list[Reply]:
        """Every call that should have been answered with results."""
        asked = [
            *(
                self.one,
                self.known,
                self.known_again,
                self.with_unknown_user,
                self.with_unknown_type,
                self.many,
                self.afterwards,
            ),
            *(self.dry_before, self.dry_again, *self.at_once, self.repeated),
            *(self.beside_others, self.under_other_keys),
            *(self.before_failure, self.failure, self.after_failure),
        ]
        return [reply for reply in asked if reply is not None]


async def examine(
    engine: Engine, *, users: Sequence[str], scenario_types: Sequence[str], dry_run_only: bool
) -> Transcript:
    """Asks the engine all that the rules have to know.

    Args:
        engine: whom to ask.
        users: whom to ask about, each once. Unless it is dry, those of the first six whom a scenario applies to are
            notified.
        scenario_types: that the engine knows.
        dry_run_only: nobody is to be notified.
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
        one=await engine.ask(dry(some[:1])),
        wrong_token=await engine.ask_as(dry(some[:1]), "not-the-token"),
        longer_token=await engine.ask_with_longer_token(dry(some[:1])),
        no_token=await engine.ask_as(dry(some[:1]), None),
        known=await engine.ask(dry(some)),
        known_again=await engine.ask(dry(some, scope=later)),
        with_unknown_user=await engine.ask(dry([*some, unknown_user], scope=later)),
        with_unknown_type=await engine.ask(dry(some, [*types, UNKNOWN_TYPE], later)),
        unknown_user=unknown_user,
    )
    if len(users) >= MANY or transcript.with_unknown_user.is_answer:
        strangers = [str(uuid.uuid4()) for _ in range(MANY - len(users))]
        transcript.many = await engine.ask(dry([*users[:MANY], *strangers]))
    # About a stranger: whoever guesses notifies nobody.
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
    as_if = Evaluations(some, types, f"manual:{run}", dry_run=True)
    transcript.dry_before = await engine.ask(as_if)
    transcript.dry_again = await engine.ask(as_if)
    if not dry_run_only:
        transcript.at_once = await asyncio.gather(*(engine.ask(real) for _ in range(AT_ONCE)))
        transcript.repeated = await engine.ask(real)
        # The same pairs and keys in another call, which begins with somebody else.
        transcript.beside_others = await engine.ask(
            Evaluations([unknown_user, *some], types, real.scope, dry_run=False)
        )
        transcript.under_other_keys = await engine.ask(
            Evaluations(some, types, f"manual:{uuid.uuid4()}", dry_run=False)
        )
        if len(users) > SOME:
            await _ask_after_failure(engine, transcript, users[SOME], types)
    return transcript


async def _ask_after_failure(engine: Engine, transcript: Transcript, user: str, types: Sequence[str]) -> None:
    """Keys that failed, for a user whom nobody can know, are used again for one who was not asked about for real."""
    stranger = transcript.unknown_user
    scope = f"manual:{uuid.uuid4()}"
    transcript.before_failure = await engine.ask(Evaluations([user], types, scope, dry_run=True))
    transcript.failure = await engine.ask(Evaluations([stranger], types, scope, dry_run=False))
    transcript.after_failure = await engine.ask(Evaluations([user], types, scope, dry_run=False, keys_of=stranger))
