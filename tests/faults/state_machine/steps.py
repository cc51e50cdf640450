"""What workers, an operator, the platform and time can do, each as a value: one call of the real SQL functions.

`take` does it and returns the answer, or NOTHING where there is nothing to do it to. `judge` holds the answer against the
snapshots of before and after, and enters it into the ledger. Fields are small numbers that pick from what there is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from tests.integration.database.asked import ask, pairs_of, undone
from tests.integration.database.sql_core import Json, Pairs, Worker, mentor, minutes

from .invariants import Ledger, is_aged, may_be_pruned
from .snapshot import Run, Snapshot, by_scenario, key_of, moment

NOTHING = object()
MAX_WORKERS = 2
OUTCOMES = (("triggered", "not_triggered"), ("failed",))


@dataclass
class Scene:
    """What a step finds."""

    session: Worker
    before: Snapshot
    ledger: Ledger
    # Slot number 0; the others are a minute apart.
    first_slot: datetime
    # The id of the next run whose caller chooses it.
    new_id: str

    def run(self, index: int) -> Run | None:
        """Return the newest run that is open for 0; the others follow."""
        ordered = sorted(reversed(list(self.before.runs.values())), key=lambda run: not run.is_open)
        return ordered[index % len(ordered)] if ordered else None

    def held(self, worker: str, index: int) -> Json | None:
        """Return a batch that the worker was handed out, the latest for 0."""
        batches = self.ledger.held.get(worker, ())[::-1]
        return batches[index % len(batches)] if batches else None


class Step(ABC):
    """One step; a frozen dataclass, so that a failing sequence prints as what would do it again."""

    prunes: ClassVar[bool] = False

    @abstractmethod
    async def take(self, scene: Scene) -> Any: ...

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        """Most of what time and the platform do has no answer: the invariants judge it."""
        return


@dataclass(frozen=True)
class Claim(Step):
    """`lasts`: the visibility time is long; else it is over at once. A worker holds `quantity` batches at most.

    The one place that knows which queues a claim reads: here all of them.
    """

    worker: str
    quantity: int = 1
    lasts: bool = True

    async def take(self, scene: Scene) -> Any:
        room = self.quantity - len(scene.ledger.held.get(self.worker, ()))
        return await scene.session.claim(room, 600 if self.lasts else 0) if room > 0 else NOTHING

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        before, ledger, batches = scene.before, scene.ledger, answer["batches"]
        visible = [message for message in before.messages if message.visible]
        if before.is_paused:
            assert not batches and answer["engine_paused_until"], "the engine is paused, and a batch was handed out"
        else:
            assert min(1, len(visible)) <= len(batches) + answer["stale"] <= len(visible)
        assert answer["stale"] <= len(ledger.strays), "the message of a batch was thrown away"
        for batch in batches:
            key, known, message = key_of(batch), before.batch(key_of(batch)), before.message_of(key_of(batch))
            assert known and known["state"] == "open", "a batch that is not open was handed out"
            assert message and message.visible, f"batch {key} was handed out while it was hidden"
            assert batch["read_count"] == message.read_count + 1
            released = sum(read < batch["read_count"] for read in ledger.blameless.get(key, ()))
            assert batch["deliveries"] == batch["read_count"] - released + known["deliveries_before"]
            assert batch["pairs"] == known["pairs"] and set(pairs_of(batch["pairs"])) <= ledger.frozen[key[0]].keys()
            assert batch["engine_scope"] == ledger.scopes[key[0]], "the engine would see another key"
            assert self.lasts != next(each.visible for each in after.messages if each.msg_id == message.msg_id)
        ledger.claims += len(batches)
        ledger.held[self.worker] = (*ledger.held.get(self.worker, ()), *batches)


@dataclass(frozen=True)
class Complete(Step):
    """Record a batch that was handed out; its pairs came to these outcomes, each by turns.

    A batch's second delivery comes to `outcomes[1]`, and so on: that the first to record wins is seen by what is recorded.
    `rest`: so many users at its end are cut off and go on in a batch of their own. `repeated`: the answer was lost, and the
    call is made again.
    """

    worker: str
    outcomes: tuple[tuple[str, ...], ...] = OUTCOMES
    rest: int = 0
    hand: int = 0
    repeated: bool = False

    async def take(self, scene: Scene) -> Any:
        batch = scene.held(self.worker, self.hand)
        users = sorted({user_id for user_id, _ in pairs_of(batch["pairs"])}) if batch else []
        if batch is None or self.rest >= len(users):
            return NOTHING
        rest = users[len(users) - self.rest :]
        skipped = {pair for group in batch["pairs"] if "skip" in group for pair in pairs_of([group])}
        turns = self.outcomes[batch["read_count"] % len(self.outcomes) - 1]
        outcomes = {
            pair: "skipped" if pair in skipped else turns[number % len(turns)]
            for number, pair in enumerate(pairs_of(batch["pairs"]))
            if pair[0] not in rest
        }
        notable = [(*pair, outcome) for pair, outcome in outcomes.items() if outcome != "not_triggered"]
        said = [
            await scene.session.complete_with(batch, notable, by_scenario(outcomes), rest=rest or None)
            for _ in range(2 if self.repeated else 1)
        ]
        return batch, outcomes, said

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        batch, outcomes, (said, *again) = answer
        known = scene.before.batch(key_of(batch))
        assert said == ("gone" if known is None else "already_done" if known["state"] == "done" else "done")
        assert again in ([], ["gone" if said == "gone" else "already_done"])
        if said == "done":
            scene.ledger.record(batch["invocation_id"], outcomes)
        scene.ledger.drop(self.worker, batch)


@dataclass(frozen=True)
class Release(Step):
    worker: str
    blameless: bool = True
    at_once: bool = True
    hand: int = 0
    repeated: bool = False

    async def take(self, scene: Scene) -> Any:
        batch = scene.held(self.worker, self.hand)
        if batch is None:
            return NOTHING
        delay = 0 if self.at_once else 600
        for _ in range(2 if self.repeated else 1):
            said = await scene.session.release(batch, delay_seconds=delay, blameless=self.blameless)
        return batch, said

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        (batch, accepted), key = answer, key_of(answer[0])
        assert accepted == scene.before.holds(batch), "what another worker holds is not this one's to release"
        scene.ledger.drop(self.worker, batch)
        if accepted:
            message = after.message_of(key)
            assert message and message.visible == self.at_once
            if self.blameless:
                scene.ledger.blameless[key] = scene.ledger.blameless.get(key, frozenset()) | {batch["read_count"]}


@dataclass(frozen=True)
class Split(Step):
    worker: str
    hand: int = 0

    async def take(self, scene: Scene) -> Any:
        batch = scene.held(self.worker, self.hand)
        return NOTHING if batch is None else (batch, await scene.session.split(batch))

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        (batch, accepted), key = answer, key_of(answer[0])
        users = {user_id for user_id, _ in pairs_of(batch["pairs"])}
        assert accepted == (scene.before.holds(batch) and len(users) > 1)
        if accepted:
            scene.ledger.drop(self.worker, batch)
            was, run = scene.before.runs[key[0]], after.runs[key[0]]
            assert key[1] not in run.batches, "a batch was split, and is still there"
            singles = [run.batches[number] for number in run.batches.keys() - was.batches.keys()]
            assert [single["deliveries_before"] for single in singles] == [2] * len(users)


@dataclass(frozen=True)
class Die(Step):
    """The worker is cut off: what it held stays hidden until its visibility time is over."""

    worker: str

    async def take(self, scene: Scene) -> Any:
        return None if scene.ledger.held.get(self.worker) else NOTHING

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        scene.ledger.held[self.worker] = ()


@dataclass(frozen=True)
class Finish(Step):
    run: int = 0

    async def take(self, scene: Scene) -> Any:
        run = scene.run(self.run)
        return NOTHING if run is None else (run, await scene.session.finish(run.id))

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        run, said = answer
        assert said["ended_now"] == (run.is_open and run.enumeration_done and not run.open_batches)
        assert said["invocation"]["status"] == after.runs[run.id].status


@dataclass(frozen=True)
class HandBack(Step):
    """The end of a slice."""

    progressed: bool = False
    engine_answers: bool = False
    engine_error: str | None = None

    async def take(self, scene: Scene) -> Any:
        under_way = [row["id"] for row in scene.before.dispatches if row["ended_at"] is None]
        await scene.session.hand_back(
            dispatch_id=under_way[0] if under_way else None,
            progressed=self.progressed,
            engine_answers=self.engine_answers,
            engine_error=self.engine_error,
        )

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        before, errors = scene.before, {run.error for run in after.open_runs}
        if self.engine_error:
            assert after.is_paused and errors <= {self.engine_error}
            assert after.settings["engine_outages"] == before.settings["engine_outages"] + (not before.is_paused)
        elif self.engine_answers and not before.is_paused:
            assert not after.is_paused and errors <= {None}
        else:
            assert after.settings["engine_paused_until"] == before.settings["engine_paused_until"]
        if self.progressed and not self.engine_error and after.open_runs and not after.is_paused:
            assert after.under_way, "there is more to do, and no slice was asked for"


@dataclass(frozen=True)
class Cancel(Step):
    run: int = 0

    async def take(self, scene: Scene) -> Any:
        run = scene.run(self.run)
        return NOTHING if run is None else (run, await scene.session.update(run.id, cancel=True))

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        run, said = answer
        assert (said is None) == (run.deleted_at is not None)
        assert said is None or said["ended_otherwise"] == (not run.is_open and run.status != "cancelled")
        if run.is_open:
            scene.ledger.cancelled.add(run.id)


@dataclass(frozen=True)
class Delete(Step):
    run: int = 0

    async def take(self, scene: Scene) -> Any:
        run = scene.run(self.run)
        return NOTHING if run is None else (run, await scene.session.delete(run.id))

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        run, said = answer
        assert said == (None if run.deleted_at else "open" if run.is_open else "deleted")


@dataclass(frozen=True)
class Prune(Step):
    """By a copy that does not commit (`world.py`)."""

    prunes: ClassVar[bool] = True

    async def take(self, scene: Scene) -> Any:
        await scene.session.run("call scheduler.prune_within_transaction()")

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        before = scene.before
        stay = {run.id for run in before.runs.values() if may_be_pruned(run, before, readers=before)} & after.runs.keys()
        assert not stay, f"{stay} could have been pruned"


@dataclass(frozen=True)
class Fire(Step):
    """The trigger, for the slot `which` after the newest that was fired so far: 0 fires that one again."""

    which: int = 0

    async def take(self, scene: Scene) -> Any:
        marked = scene.before.settings["slot_high_water_mark"]
        newest = max(moment(marked), scene.first_slot) if scene.ledger.slots else scene.first_slot
        due = newest + minutes(self.which)
        following = scene.before.now.replace(second=0, microsecond=0) + minutes(60)
        return due, await scene.session.open_slot(due, following, max_workers=MAX_WORKERS)

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        (due, said), before, ledger = answer, scene.before, scene.ledger
        key = f"slot:{due:%Y-%m-%dT%H:%MZ}"
        assert said["opened"] == (due > moment(before.settings["slot_high_water_mark"]))
        assert not said["opened"] or key not in ledger.slots, f"{key} was opened a second time"
        assert not any(after.is_overdue(run) for run in after.open_runs)
        if said["opened"]:
            ledger.slots.add(key)
            ledger.open(said["invocation"]["id"], key)
            overlaps = any(run.triggered_by == "schedule" and not before.is_overdue(run) for run in before.open_runs)
            assert said["invocation"]["status"] == ("skipped" if overlaps else "running")


@dataclass(frozen=True)
class Open(Step):
    """A manual run, or a retry of run `retry_of`; -1: of none. `repeated`: the answer was lost, the call is made again."""

    retry_of: int = -1
    repeated: bool = False

    async def take(self, scene: Scene) -> Any:
        source = scene.run(self.retry_of) if self.retry_of >= 0 else None
        asked = {"invocation_id": scene.new_id, "key": scene.new_id, "retry_of": source and source.id}
        said = [await ask(scene.session, **asked, post_slice=True) for _ in range(2 if self.repeated else 1)]
        return source, said

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        source, (said, *again) = answer
        outcome, run_id, ledger = said["outcome"], scene.new_id, scene.ledger
        assert all(other["outcome"] == outcome for other in again)
        assert outcome == self._expected(source and after.runs[source.id], run_id, after)
        if outcome != "opened":
            return
        ledger.open(run_id, ledger.scopes[source.id] if source else f"manual:{run_id}")
        if source:
            ledger.sources[run_id] = source.id

    def _expected(self, source: Run | None, new_id: str, after: Snapshot) -> str:
        """Return what has to be answered, from what is there afterwards: opening a run expires others first."""
        if source is None:
            return "opened"
        if source.deleted_at:
            return "retry_source_unknown"
        if source.is_open:
            return "retry_source_open"
        if source.enumeration_done and not {"failed", "not_evaluated"} & set(source.outcomes.values()):
            return "nothing_to_retry"
        has_rival = any(run.retry_of == source.id and run.id != new_id for run in after.open_runs)
        return "retry_already_open" if has_rival else "opened"


@dataclass(frozen=True)
class Enqueue(Step):
    """One page of run `run`: of each batch its groups, of each group how many users, which types, and whether to skip it."""

    run: int = 0
    page: tuple[tuple[tuple[int, tuple[str, ...], bool], ...], ...] = ()
    done: bool = False
    stale: bool = False

    async def take(self, scene: Scene) -> Any:
        run = scene.run(self.run)
        if run is None:
            return NOTHING
        cursor = run.enumeration_cursor
        batches, following = await self._page(scene.session, run)
        expected = "stale" if self.stale else cursor
        done = self.done or following == cursor
        accepted = await scene.session.enqueue(run.id, batches, expected=expected, following=following, done=done)
        return run, batches, accepted

    async def _page(self, session: Worker, run: Run) -> tuple[Sequence[Pairs], str | None]:
        cursor = run.enumeration_cursor
        if run.triggered_by == "retry":
            page = await undone(session, run.retry_of, after=cursor, mentors=2)
            if page is None or page["last_user_id"] is None:
                return [], cursor
            return [
                [{"scenario_types": row["scenario_types"], "user_ids": [row["user_id"]]}] for row in page["mentors"]
            ], page["last_user_id"]
        number, batches = int(cursor or 0), []
        for groups in self.page:
            batch: Pairs = []
            for users, types, is_skipped in groups:
                skip = {"skip": "mentor_not_active"} if is_skipped else {}
                user_ids = [mentor(number + offset) for offset in range(users)]
                batch.append({"scenario_types": list(types), "user_ids": user_ids, **skip})
                number += users
            batches.append(batch)
        return batches, str(number) if batches else cursor

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        run, batches, accepted = answer
        assert accepted == (run.is_open and not run.enumeration_done and not self.stale)
        if accepted:
            scene.ledger.freeze(run.id, [pair for batch in batches for pair in pairs_of(batch)])


@dataclass(frozen=True)
class Reappear(Step):
    """The visibility time of the hidden message number `which` is over, None: of all."""

    which: int | None = 0

    async def take(self, scene: Scene) -> Any:
        hidden = [message for message in scene.before.messages if not message.visible]
        if self.which is not None:
            hidden = hidden[self.which : self.which + 1]
        for message in hidden:
            await scene.session.run(
                f"update pgmq.q_{message.queue} set vt = clock_timestamp() - interval '1 second' where msg_id = %s",
                message.msg_id,
            )
        return None if hidden else NOTHING


@dataclass(frozen=True)
class RunOutOfTime(Step):
    """The run's time is over; unless `noticed` by the next tick, the run is still open."""

    run: int = 0
    noticed: bool = False

    async def take(self, scene: Scene) -> Any:
        run = scene.run(self.run)
        if run is None or not run.is_open or scene.before.is_overdue(run):
            return NOTHING
        await scene.session.run(
            "update public.scheduler_invocations set expires_at = now() - interval '1 second' where id = %s", run.id
        )
        if self.noticed:
            await scene.session.run("select scheduler.expire()")


@dataclass(frozen=True)
class Expire(Step):
    async def take(self, scene: Scene) -> Any:
        await scene.session.run("select scheduler.expire()")

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        assert not any(after.is_overdue(run) for run in after.open_runs)


@dataclass(frozen=True)
class Age(Step):
    """What has ended did so a year ago."""

    async def take(self, scene: Scene) -> Any:
        ended = [run.id for run in scene.before.runs.values() if not run.is_open and not is_aged(run)]
        # Both together, so that what was recorded late stays late.
        for table, column in (("scheduler_invocations", "id"), ("scheduler_invocation_batches", "invocation_id")):
            await scene.session.run(
                f"update public.{table} set finished_at = finished_at - interval '1 year' where {column} = any(%s::uuid[])",
                ended,
            )
        return None if ended else NOTHING


@dataclass(frozen=True)
class EndPause(Step):
    async def take(self, scene: Scene) -> Any:
        await scene.session.run(
            "update scheduler.settings set engine_paused_until = clock_timestamp() - interval '1 second'"
            " where engine_paused_until is not null"
        )


@dataclass(frozen=True)
class Dispatch(Step):
    """The tick of the minute. `answered`: slices asked for before have been answered."""

    answered: bool = False

    async def take(self, scene: Scene) -> Any:
        if self.answered:
            await scene.session.run(
                "insert into net._http_response (id, status_code) select request_id, 200 from scheduler.dispatches"
                " where request_id is not null and ended_at is null"
            )
        return await scene.session.value("select scheduler.dispatch()")

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        assert not any(after.is_overdue(run) for run in after.open_runs)
        for run in after.open_runs:
            assert all(after.message_of((run.id, number)) for number in run.open_batches), "messages stay lost"
        assert after.is_paused or not after.open_runs or after.under_way, "there is work, and no slice was asked for"
        scene.ledger.lost = False
        self._forget_requeued(scene, after)

    def _forget_requeued(self, scene: Scene, after: Snapshot) -> None:
        """How often a message that was lost had been read is unknown; its holders' reads are of another message."""
        for run in after.runs.values():
            for number, batch in run.batches.items():
                known = scene.before.batch((run.id, number))
                if known and known["msg_id"] != batch["msg_id"]:
                    scene.ledger.blameless.pop((run.id, number), None)
                    for worker, held in scene.ledger.held.items():
                        scene.ledger.held[worker] = tuple(
                            {**each, "read_count": -1} if key_of(each) == (run.id, number) else each for each in held
                        )


@dataclass(frozen=True)
class Lose(Step):
    """Every other message, or every one, is taken out of the queues by hand."""

    every: int = 1

    async def take(self, scene: Scene) -> Any:
        for message in scene.before.messages[:: self.every]:
            await scene.session.run(f"delete from pgmq.q_{message.queue} where msg_id = %s", message.msg_id)

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        scene.ledger.lost = scene.ledger.lost or bool(scene.before.messages)


@dataclass(frozen=True)
class Stray(Step):
    """A message is put into a queue by hand: a copy of one that waits there, or nonsense."""

    copy: bool = True

    async def take(self, scene: Scene) -> Any:
        if not scene.before.messages:
            return NOTHING
        message = scene.before.messages[0]
        run_id, number = message.batch if self.copy else ("nonsense", "1")
        body = f'{{"invocation_id": "{run_id}", "batch_no": {number}}}'
        return message.queue, await scene.session.value("select pgmq.send(%s, %s::jsonb)", message.queue, body)

    def judge(self, answer: Any, scene: Scene, after: Snapshot) -> None:
        scene.ledger.strays.add(answer)
