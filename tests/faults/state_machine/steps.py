"""What workers, an operator, the platform and time can do: each calls a real SQL function, and judges the answer.

A step does nothing where there is nothing to do it to; else it reads the tables afterwards (`scene.look()`). Numbers
pick from what there is. What was answered is entered into the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tests.integration.database.requests import ask, pairs_of, unfinished
from tests.integration.database.sql_core import Json, Pairs, Worker, mentor, minutes

from .invariants import Ledger, evaluated_users, may_be_pruned
from .snapshot import Run, Snapshot, by_scenario, key_of, moment

MAX_WORKERS = 2
POISON = "scenario_evaluation_batches_poison"
# By delivery, so that two workers that record one batch never agree; of each, by turns what its pairs came to.
OUTCOMES = (("triggered", "not_triggered"), ("failed",), ("suppressed", "failed"))
# Of each batch its groups; of each group how many users, which scenario types, and whether it is skipped.
Page = Sequence[Sequence[tuple[int, tuple[str, ...], bool]]]
TWO_USERS: Page = [[(2, ("lapsed",), False)]]


@dataclass
class Scene:
    """What a step finds, and what it leaves behind."""

    session: Worker
    read: str
    before: Snapshot
    ledger: Ledger
    # Slot number 0; the others are a minute apart.
    first_slot: datetime
    # The id of the next run whose caller chooses it.
    new_id: str
    after: Snapshot | None = None

    async def look(self) -> Snapshot:
        self.after = Snapshot(await self.session.value(self.read))
        return self.after

    def run(self, index: int) -> Run | None:
        """Return the newest run that is open for 0; the others follow."""
        newest_first = list(self.before.runs.values())[::-1]
        ordered = sorted(newest_first, key=lambda run: not run.is_open)
        return ordered[index % len(ordered)] if ordered else None

    def held(self, worker: str, index: int) -> Json | None:
        """Return a batch that the worker was handed out, the latest for 0."""
        batches = self.ledger.held.get(worker, ())[::-1]
        return batches[index % len(batches)] if batches else None


async def claim(scene: Scene, worker: str, quantity: int = 1, lasts: bool = True) -> None:
    """Hold `quantity` batches at most; `lasts`: the visibility time is long, else it is over at once.

    A poison batch is claimed where nothing else is left, one at a time.
    """
    before, ledger = scene.before, scene.ledger
    room = quantity - len(ledger.held.get(worker, ()))
    if room <= 0:
        return
    poison, others = (
        sum(message.visible for message in before.messages if (message.queue == POISON) == is_poison)
        for is_poison in (True, False)
    )
    answer = await scene.session.claim(room, 600 if lasts else 0)
    assert answer["poison_waits"] == bool(poison and not others)
    if answer["poison_waits"]:
        answer, others = await scene.session.claim(room, 600 if lasts else 0, poison="last"), 1
    after, batches = await scene.look(), answer["batches"]
    assert min(1, others) <= len(batches) <= min(room, others), "batches are visible, and none was handed out"
    assert not answer["stale"], "the message of a batch was thrown away"
    for batch in batches:
        key, known, message = key_of(batch), before.batch(key_of(batch)), before.message_of(key_of(batch))
        assert known, f"batch {key} was handed out, and does not exist"
        assert known["state"] == "open", f"batch {key} was handed out, and is {known['state']}"
        assert message, f"batch {key} was handed out by another message than its own"
        assert message.visible, f"batch {key} was handed out while it was hidden"
        assert batch["read_count"] == message.read_count + 1
        released = sum(read < batch["read_count"] for read in ledger.uncounted.get(key, ()))
        assert batch["deliveries"] == batch["read_count"] - released + known["deliveries_before"]
        assert batch["pairs"] == known["pairs"]
        assert batch["is_poison"] == (message.queue == POISON)
        assert batch["engine_scope"] == ledger.scopes[key[0]], "the engine would see another key"
        assert all(each.visible != lasts for each in after.messages if each[:2] == message[:2])
    ledger.claims += len(batches)
    ledger.held[worker] = (*ledger.held.get(worker, ()), *batches)


async def complete(scene: Scene, worker: str, remaining: int = 0, hand: int = 0, repeated: bool = False) -> None:
    """Record a batch; the last `remaining` of its users are cut off. `repeated`: the call is made again."""
    batch = scene.held(worker, hand)
    users = sorted({user_id for user_id, _ in pairs_of(batch["pairs"])}) if batch else []
    if batch is None or remaining >= len(users):
        return
    cut_off, turns = users[len(users) - remaining :], OUTCOMES[batch["read_count"] % len(OUTCOMES) - 1]
    skipped = {pair for group in batch["pairs"] if "skip" in group for pair in pairs_of([group])}
    outcomes = {
        pair: "skipped" if pair in skipped else turns[number % len(turns)]
        for number, pair in enumerate(pairs_of(batch["pairs"]))
        if pair[0] not in cut_off
    }
    stored_rows = [(*pair, outcome) for pair, outcome in outcomes.items() if outcome != "not_triggered"]
    known, counts = scene.before.batch(key_of(batch)), by_scenario(outcomes)
    expected = "gone" if known is None else "already_done" if known["state"] == "done" else "done"
    for again in (False, True)[: 1 + repeated]:
        said = await scene.session.complete_with(
            batch, stored_rows, counts, users_evaluated=evaluated_users(outcomes), remaining=cut_off or None
        )
        assert said == ("already_done" if again and expected == "done" else expected), f"the answer was {said!r}"
    await scene.look()
    if expected == "done":
        scene.ledger.record(batch["invocation_id"], outcomes)
    scene.ledger.drop(worker, batch)


async def release(
    scene: Scene, worker: str, count_delivery: bool = False, at_once: bool = True, hand: int = 0, repeated: bool = False
) -> None:
    batch = scene.held(worker, hand)
    if batch is None:
        return
    accepted = False
    for _ in range(1 + repeated):
        accepted = await scene.session.release(
            batch, delay_seconds=0 if at_once else 600, count_delivery=count_delivery
        )
        assert accepted == scene.before.holds(batch), "what another worker holds is not this one's to release"
    message, key = (await scene.look()).message_of(key_of(batch)), key_of(batch)
    scene.ledger.drop(worker, batch)
    if accepted:
        assert message
        assert message.visible == at_once
        if not count_delivery:
            scene.ledger.uncounted[key] = scene.ledger.uncounted.get(key, frozenset()) | {batch["read_count"]}


async def split(scene: Scene, worker: str, hand: int = 0) -> None:
    batch = scene.held(worker, hand)
    if batch is None:
        return
    accepted, after, (run_id, number) = await scene.session.split(batch), await scene.look(), key_of(batch)
    users = {user_id for user_id, _ in pairs_of(batch["pairs"])}
    is_poison = batch["is_poison"]
    assert accepted == (scene.before.holds(batch) and not is_poison), "what another worker holds is not its to split"
    if accepted:
        scene.ledger.drop(worker, batch)
        was, now = scene.before.runs[run_id].batches, after.runs[run_id].batches
        assert number not in now, "a batch was split, and is still there"
        singles = [now[single] for single in now.keys() - was.keys()]
        assert [(single["queue"], single["deliveries_before"]) for single in singles] == [(POISON, 2)] * len(users)


async def die(scene: Scene, worker: str) -> None:
    """The worker is cut off: what it held stays hidden until its visibility time is over."""
    if scene.ledger.held.get(worker):
        scene.ledger.held[worker] = ()
        await scene.look()


async def finish(scene: Scene, run: int = 0) -> None:
    if found := scene.run(run):
        said = await scene.session.finish(found.id)
        await scene.look()
        is_over = found.is_open and found.enumeration_done and not found.open_batches
        assert said["ended_now"] == is_over, f"a run with open batches {found.open_batches} was ended, or ended again"


async def end(scene: Scene, run: int = 0, verdict: str = "cancelled") -> None:
    if found := scene.run(run):
        said = await scene.session.update(found.id, status=verdict)
        await scene.look()
        assert (said is None) == (found.deleted_at is not None)
        agrees = found.status == verdict == "cancelled"
        assert said is None or said["ended_otherwise"] == (not found.is_open and not agrees)
        if found.is_open:
            scene.ledger.verdicts[found.id] = verdict


async def delete(scene: Scene, run: int = 0) -> None:
    if found := scene.run(run):
        said = await scene.session.delete(found.id)
        await scene.look()
        assert said == (None if found.deleted_at else "open" if found.is_open else "deleted")


async def prune(scene: Scene) -> None:
    """By a copy that does not commit (`harness.py`)."""
    await scene.session.run("call scheduler.prune_within_transaction()")
    before, after = scene.before, await scene.look()
    stay = {run.id for run in before.runs.values() if may_be_pruned(run, before, readers=before)} & after.runs.keys()
    assert not stay, f"{stay} could have been pruned"


async def fire(scene: Scene, which: int = 0) -> None:
    """Trigger the slot `which` after the newest that was triggered so far; 0: that one again."""
    before, ledger = scene.before, scene.ledger
    mark = moment(before.settings["slot_high_water_mark"])
    due = (mark if ledger.slots else scene.first_slot) + minutes(which)
    # Another following slot each time: else the call would find nothing new, and not look at this one.
    said = await scene.session.open_slot(due, before.now + minutes(60), max_workers=MAX_WORKERS)
    await scene.look()
    key = f"slot:{due:%Y-%m-%dT%H:%MZ}"
    assert not said["opened"] or key not in ledger.slots, f"{key} was opened a second time"
    assert said["opened"] == (due > mark)
    if said["opened"]:
        ledger.slots.add(key)
        ledger.open(said["invocation"]["id"], key)
        overlaps = any(run.trigger == "schedule" and not before.is_overdue(run) for run in before.open_runs)
        assert said["invocation"]["status"] == ("skipped" if overlaps else "running")


async def open_run(scene: Scene, retry_of: int = -1, repeated: bool = False) -> None:
    """Open a manual run, or a retry of run `retry_of`; `repeated`: the answer was lost, and the call is made again."""
    found, new_id = scene.run(retry_of) if retry_of >= 0 else None, scene.new_id
    said = [
        await ask(
            scene.session, invocation_id=new_id, key=new_id, retry_of=found.id if found else None, request_slice=True
        )
        for _ in range(1 + repeated)
    ]
    after = await scene.look()
    # As it is afterwards: opening a run expires others first.
    named = after.runs[found.id] if found else None
    chain = after.chain_of(named) if named else []
    source = max((run for run in chain if not run.is_open), key=lambda run: moment(run.finished_at), default=None)
    rivals = [run for run in chain if run.is_open and run.id != new_id]
    expected = "opened"
    if named and named.deleted_at:
        expected = "retry_source_unknown"
    elif named and named.is_open:
        expected = "retry_source_open"
    elif source and source.enumeration_done and not {"failed", "not_evaluated"} & set(source.outcomes.values()):
        expected = "nothing_to_retry"
    elif rivals:
        expected = "retry_already_open"
    assert {answer["outcome"] for answer in said} == {expected}
    if expected == "opened":
        scene.ledger.open(new_id, scene.ledger.scopes[source.id] if source else f"manual:{new_id}")
        if source:
            scene.ledger.sources[new_id] = source.id


async def enqueue(scene: Scene, run: int = 0, page: Page = (), done: bool = False, stale: bool = False) -> None:
    """Freeze one page of a run; of a retry, what its source left unfinished. `stale`: read by another worker before."""
    found = scene.run(run)
    if found is None:
        return
    cursor = found.enumeration_cursor
    batches, following = await _page(scene.session, found, page)
    accepted = await scene.session.enqueue(
        found.id, batches, expected="stale" if stale else cursor, following=following, done=done or following == cursor
    )
    await scene.look()
    assert accepted == (found.is_open and not found.enumeration_done and not stale)
    if accepted:
        scene.ledger.freeze(found.id, [pair for batch in batches for pair in pairs_of(batch)])


async def _page(session: Worker, run: Run, page: Page) -> tuple[list[Pairs], str | None]:
    cursor, batches = run.enumeration_cursor, list[Pairs]()
    if run.trigger == "retry":
        left = await unfinished(session, run.retry_of, after=cursor, mentors=2)
        for row in left["mentors"] if left else ():
            batches.append([{"scenario_types": row["scenario_types"], "user_ids": [row["user_id"]]}])
        return batches, left["last_user_id"] if batches else cursor
    number = int(cursor or 0)
    for groups in page:
        batches.append([])
        for users, types, is_skipped in groups:
            skip = {"skip": "mentor_not_active"} if is_skipped else {}
            user_ids = [mentor(number + offset) for offset in range(users)]
            batches[-1].append({"scenario_types": list(types), "user_ids": user_ids, **skip})
            number += users
    return batches, str(number) if batches else cursor


async def reappear(scene: Scene, which: int | None = 0) -> None:
    """The visibility time of the hidden message number `which` is over; None: of all."""
    hidden = [message for message in scene.before.messages if not message.visible]
    for message in hidden if which is None else hidden[which : which + 1]:
        await scene.session.run(
            f"update pgmq.q_{message.queue} set vt = clock_timestamp() - interval '1 second' where msg_id = %s",
            message.msg_id,
        )
    if hidden if which is None else hidden[which:]:
        await scene.look()


async def run_out_of_time(scene: Scene, run: int = 0, noticed: bool = True) -> None:
    """The run's time is over; unless `noticed` by the next tick, the run is still open."""
    found = scene.run(run)
    if found and found.is_open:
        await scene.session.run(
            "update public.scheduler_invocations set expires_at = now() - interval '1 second' where id = %s", found.id
        )
        if noticed:
            await scene.session.run("select scheduler.expire()")
        await scene.look()


async def expire(scene: Scene) -> None:
    await scene.session.run("select scheduler.expire()")
    after = await scene.look()
    assert not any(after.is_overdue(run) for run in after.open_runs)


async def dispatch(scene: Scene, lost: int = 0) -> None:
    """Tick; before, every message but each `lost`-th is taken out of the queues by hand, 0: none is."""
    taken = scene.before.messages[::lost] if lost else []
    for message in taken:
        await scene.session.run(f"delete from pgmq.q_{message.queue} where msg_id = %s", message.msg_id)
    await scene.session.run("select scheduler.dispatch()")
    after = await scene.look()
    assert not any(after.is_overdue(run) for run in after.open_runs)
    assert not after.open_runs or after.under_way, "there is work, and no slice was asked for"
    for run_id, number in {(message.batch[0], int(message.batch[1])) for message in taken}:
        # How often a message that was lost had been read is unknown; its holders' reads are of another message.
        scene.ledger.uncounted.pop((run_id, number), None)
        for worker, held in scene.ledger.held.items():
            scene.ledger.held[worker] = tuple(
                {**batch, "read_count": -1} if key_of(batch) == (run_id, number) else batch for batch in held
            )
