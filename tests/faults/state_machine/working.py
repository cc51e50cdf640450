"""What a worker does with batches, and how it ends its slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from tests.integration.database.asked import pairs_of
from tests.integration.database.sql_core import Json, Worker

from .clock import LetBatchesReappear, LetThePauseEnd
from .ledger import key_of, of_a_lost_message
from .operation import NOTHING, Operation, Scene, Step
from .picture import BatchKey, Message, Pair, Picture, by_scenario

OUTCOMES = ("triggered", "not_triggered", "suppressed", "failed")


@dataclass(frozen=True)
class Claim(Operation):
    """`lasts`: the visibility time is long; else it is over at once, as for a worker that is too slow."""

    rank: ClassVar[int] = 1
    quantity: int = 2
    lasts: bool = True
    manual_only: bool = False

    async def ask(self, session: Worker, scene: Scene) -> Any:
        return await session.claim(self.quantity, 600 if self.lasts else 0, manual_only=self.manual_only)

    def judge(self, answer: Any, step: Step) -> None:
        ledger, batches = step.ledger, answer["batches"]
        assert len(batches) <= self.quantity
        assert answer["stale"] <= len(ledger.strays), "the message of a batch was thrown away"
        for batch in batches:
            self._judge_batch(batch, step)
        if step.before.is_paused and not step.has(LetThePauseEnd, HandBack):
            assert not batches, "the engine is paused, and a batch was handed out"
            assert answer["engine_paused_until"]
        if step.is_alone:
            self._judge_exactly(answer, step)

    def _judge_batch(self, batch: Json, step: Step) -> None:
        ledger, key = step.ledger, key_of(batch)
        known = step.before.batch(key)
        assert known is None or known["state"] == "open", f"a batch that is {known['state']} was handed out"
        assert not self.manual_only or batch["engine_scope"].split(":")[0] != "slot" or key[0] in ledger.sources
        assert set(pairs_of(batch["pairs"])) <= ledger.frozen[key[0]].keys()
        assert batch["engine_scope"] == ledger.scopes[key[0]]
        if known := known or step.after.batch(key):
            harmless = sum(read < batch["read_count"] for read in ledger.blameless[key])
            assert batch["deliveries"] == batch["read_count"] - harmless + known["deliveries_before"]
        if key in step.requeued:
            # before or after its message was lost, who knows
            ledger.hand_out(of_a_lost_message(batch), hides=False)
        else:
            ledger.hand_out(batch, hides=self.lasts and not step.has(LetBatchesReappear))

    def _judge_exactly(self, answer: Json, step: Step) -> None:
        before = step.before
        queues = ("scenario_evaluation_batches_manual", "scenario_evaluation_batches")[: 1 if self.manual_only else 2]
        visible = sum(message.visible and message.queue in queues for message in before.messages.values())
        expected = 0 if before.is_paused else min(self.quantity, visible)
        # what was stale in the first queue leaves room for more of the second
        assert expected <= len(answer["batches"]) + answer["stale"] <= visible


@dataclass(frozen=True)
class Complete(Operation):
    """Record what came of a batch, or of a part of it, that was handed out; 0 is the latest. Perhaps twice."""

    rank: ClassVar[int] = 2
    hand: int = 0
    seed: int = 0
    cut_off: bool = False
    repeated: bool = False

    async def ask(self, session: Worker, scene: Scene) -> Any:
        batch = scene.in_hand(self.hand)
        if batch is None:
            return NOTHING
        random = Random(self.seed)
        users = sorted({user_id for user_id, _ in pairs_of(batch["pairs"])})
        rest = random.sample(users, random.randint(1, len(users) - 1)) if self.cut_off and len(users) > 1 else None
        every = outcomes_of(batch, random)
        outcomes = {pair: outcome for pair, outcome in every.items() if pair[0] not in (rest or ())}
        said = await record(session, batch, outcomes, rest)
        again = await record(session, batch, outcomes, rest) if self.repeated else None
        return batch, outcomes, said, again

    def judge(self, answer: Any, step: Step) -> None:
        batch, outcomes, said, again = answer
        run_id, _ = key = key_of(batch)
        if said == "done":
            step.ledger.record(run_id, outcomes)
            step.ledger.hidden.pop(key, None)
        assert again in (None, "gone", "already_done")
        if step.is_alone:
            known = step.before.batch(key)
            assert said == ("gone" if known is None else "already_done" if known["state"] == "done" else "done")
            assert again is None or again == ("gone" if known is None else "already_done")


@dataclass(frozen=True)
class Release(Operation):
    """Give back a batch that was handed out, now or long ago. Perhaps twice."""

    hand: int = 0
    blameless: bool = True
    at_once: bool = True
    repeated: bool = False

    async def ask(self, session: Worker, scene: Scene) -> Any:
        batch = scene.in_hand(self.hand)
        if batch is None:
            return NOTHING
        delay = 0 if self.at_once else 600
        said = await session.release(batch, delay_seconds=delay, blameless=self.blameless)
        if self.repeated:
            assert await session.release(batch, delay_seconds=delay, blameless=self.blameless) in (said, False)
        return batch, said

    def judge(self, answer: Any, step: Step) -> None:
        batch, accepted = answer
        ledger, key = step.ledger, key_of(batch)
        if accepted:
            if self.blameless:
                ledger.blameless[key].add(batch["read_count"])
            if self._hides(batch, step):
                ledger.hidden[key] = batch["read_count"]
            else:
                ledger.hidden.pop(key, None)
        if step.is_alone:
            message = step.before.message_of(key)
            assert accepted == (is_open(key, step) and holds(batch, message))

    def _hides(self, batch: Json, step: Step) -> bool:
        """Where it was given back by several in one moment the last of them decides, and it may be claimed by now."""
        if self.at_once or sum(isinstance(operation, Release) for operation in step.done) == 1:
            return not self.at_once
        message = step.after.message_of(key_of(batch))
        return message is not None and not message.visible and message.read_count == batch["read_count"]


@dataclass(frozen=True)
class Split(Operation):
    """Take apart a batch that was handed out, now or long ago."""

    hand: int = 0

    async def ask(self, session: Worker, scene: Scene) -> Any:
        batch = scene.in_hand(self.hand)
        return NOTHING if batch is None else (batch, await session.split(batch))

    def judge(self, answer: Any, step: Step) -> None:
        batch, accepted = answer
        key = key_of(batch)
        users = {user_id for user_id, _ in pairs_of(batch["pairs"])}
        if accepted:
            step.ledger.hidden.pop(key, None)
            assert step.after.batch(key) is None
        if step.is_alone:
            message = step.before.message_of(key)
            assert accepted == (is_open(key, step) and holds(batch, message) and len(users) > 1)
            before, after = (picture.runs.get(key[0]) for picture in (step.before, step.after))
            if accepted and before and after:
                singles = [after.batches[number] for number in after.batches.keys() - before.batches.keys()]
                assert [single["deliveries_before"] for single in singles] == [2] * len(users)


@dataclass(frozen=True)
class Finish(Operation):
    run: int = 0

    async def ask(self, session: Worker, scene: Scene) -> Any:
        run = scene.run(self.run)
        return NOTHING if run is None else (run.id, await session.finish(run.id))

    def judge(self, answer: Any, step: Step) -> None:
        run_id, said = answer
        if said["ended_now"]:
            assert step.before.runs[run_id].is_open
            assert said["invocation"]["status"] in ("succeeded", "partial", "failed")
        if step.is_alone:
            run = step.before.runs[run_id]
            assert said["ended_now"] == (run.is_open and run.enumeration_done and not run.open_batches)


@dataclass(frozen=True)
class HandBack(Operation):
    """The end of a slice; it answers dispatch number `dispatch` of those under way, -1: none."""

    dispatch: int = -1
    progressed: bool = False
    engine_answers: bool = False
    engine_error: str | None = None
    retry_after_seconds: int | None = None

    async def ask(self, session: Worker, scene: Scene) -> Any:
        under_way = scene.picture.under_way
        dispatch_id = under_way[self.dispatch % len(under_way)] if under_way and self.dispatch >= 0 else None
        await session.hand_back(
            dispatch_id=dispatch_id,
            progressed=self.progressed,
            engine_answers=self.engine_answers,
            engine_error=self.engine_error,
            retry_after_seconds=self.retry_after_seconds,
        )
        return dispatch_id

    def judge(self, answer: Any, step: Step) -> None:
        assert answer is None or step.after.dispatches[answer]["ended_at"]
        if step.is_alone:
            self._judge_exactly(step.before, step.after, step.ledger.has_secrets)

    def _judge_exactly(self, before: Picture, after: Picture, has_secrets: bool) -> None:
        if self.engine_error:
            assert after.is_paused
            assert {run.error for run in after.open_runs} <= {self.engine_error}
            assert after.settings["engine_outages"] == before.settings["engine_outages"] + (not before.is_paused)
            if before.is_paused:
                # No shorter; and longer only where the engine asked for that.
                assert after.settings["engine_paused_until"] >= before.settings["engine_paused_until"]
                if self.retry_after_seconds is None:
                    assert after.settings["engine_paused_until"] == before.settings["engine_paused_until"]
        elif self.engine_answers and not before.is_paused:
            assert not after.is_paused
            assert {run.error for run in after.open_runs} <= {None}
            assert after.settings["engine_outages"] == 0
        else:
            assert after.settings["engine_paused_until"] == before.settings["engine_paused_until"]
        if self.progressed and not self.engine_error and has_secrets and after.open_runs and not after.is_paused:
            assert after.under_way, "there is more to do, and nobody was asked"


def is_open(key: BatchKey, step: Step) -> bool:
    batch = step.before.batch(key)
    return batch is not None and batch["state"] == "open"


def holds(batch: Json, message: Message | None) -> bool:
    """Nobody was given the batch since."""
    return message is not None and message.read_count == batch["read_count"]


async def record(session: Worker, batch: Json, outcomes: Mapping[Pair, str], rest: list[str] | None) -> str:
    notable = [(*pair, outcome) for pair, outcome in outcomes.items() if outcome != "not_triggered"]
    return await session.complete_with(batch, notable, by_scenario(outcomes), rest=rest)


def outcomes_of(batch: Json, random: Random) -> dict[Pair, str]:
    return {
        pair: "skipped" if "skip" in group else random.choice(OUTCOMES)
        for group in batch["pairs"]
        for pair in pairs_of([group])
    }
