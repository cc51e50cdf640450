"""What time brings: ticks, answers, visibility and deadlines that run out. Time itself is moved in the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tests.integration.database.sql_core import Worker

from .opening import MAX_WORKERS
from .operation import NOTHING, Operation, Scene, Step
from .picture import MANUAL, NIGHTLY, moment


@dataclass(frozen=True)
class Owned(Operation):
    """Done by the database itself, or to it."""

    as_owner: ClassVar[bool] = True

    def judge(self, answer: Any, step: Step) -> None:
        pass


@dataclass(frozen=True)
class LetBatchesReappear(Owned):
    """The visibility of every claimed batch is over."""

    async def ask(self, session: Worker, scene: Scene) -> Any:
        for queue in (NIGHTLY, MANUAL):
            # what somebody holds is his at this moment: to wait for it would be a lock that the product never takes
            await session.run(
                f"update pgmq.q_{queue} set vt = clock_timestamp() - interval '1 second' where msg_id in"
                f" (select msg_id from pgmq.q_{queue} for update skip locked)"
            )

    def judge(self, answer: Any, step: Step) -> None:
        step.ledger.hidden.clear()


@dataclass(frozen=True)
class LetTimeRunOut(Owned):
    """The run's time is over; nobody has noticed yet."""

    run: int = 0

    async def ask(self, session: Worker, scene: Scene) -> Any:
        run = scene.run(self.run)
        if run is None:
            return NOTHING
        await session.run(
            "update public.scheduler_invocations set expires_at = now() - interval '1 second'"
            " where id = %s and status in ('pending', 'running')",
            run.id,
        )
        return run.id


@dataclass(frozen=True)
class Expire(Owned):
    async def ask(self, session: Worker, scene: Scene) -> Any:
        await session.run("select scheduler.expire()")

    def judge(self, answer: Any, step: Step) -> None:
        if step.is_alone:
            assert not any(step.after.is_overdue(run) for run in step.after.open_runs)


@dataclass(frozen=True)
class LetThePauseEnd(Owned):
    async def ask(self, session: Worker, scene: Scene) -> Any:
        await session.run(
            "update scheduler.settings set engine_paused_until = clock_timestamp() - interval '1 second'"
            " where engine_paused_until is not null"
        )


@dataclass(frozen=True)
class FallDue(Owned):
    async def ask(self, session: Worker, scene: Scene) -> Any:
        await session.run("update scheduler.settings set next_due_at = clock_timestamp() - interval '1 second'")


@dataclass(frozen=True)
class Dispatch(Owned):
    """The tick of the minute."""

    async def ask(self, session: Worker, scene: Scene) -> Any:
        return await session.value("select scheduler.dispatch()")

    def judge(self, answer: Any, step: Step) -> None:
        ledger = step.ledger
        if not step.is_alone:
            return
        before, after = step.before, step.after
        assert not any(after.is_overdue(run) for run in after.open_runs)
        for number in set(before.under_way) & (ledger.answers.keys() | ledger.given_up):
            assert after.dispatches[number]["ended_at"], "a slice that is over counts as one under way"
        for number in ledger.answers.keys() - ledger.given_up:
            row = after.dispatches[number]
            assert (row["status_code"], row["error"]) == ledger.answers[number]
        needed = {(run.queue, run.batches[number]["msg_id"]) for run in after.open_runs for number in run.open_batches}
        assert needed <= after.messages.keys(), "the messages of open batches stay lost"
        new = [number for number in after.under_way if number not in before.dispatches]
        assert answer == len(new)
        next_due = before.settings["next_due_at"]
        is_due = next_due is None or moment(next_due) <= before.now
        works = bool(after.open_runs) and not after.is_paused
        if ledger.has_secrets:
            assert bool(after.under_way) >= (is_due or works), "there is something to do, and nobody was asked"
        else:
            assert answer == 0
            errors = [row["error"] for number, row in after.dispatches.items() if number not in before.dispatches]
            assert errors == (["vault_secret_missing"] if is_due or works else [])
        assert len(new) <= (MAX_WORKERS if works else is_due)


@dataclass(frozen=True)
class Answer(Owned):
    """The function has answered a slice, or pg_net could not reach it."""

    status_code: int | None = 200
    error: str | None = None

    async def ask(self, session: Worker, scene: Scene) -> Any:
        dispatches, answered = scene.picture.dispatches, scene.ledger.answers
        posted = [number for number, row in dispatches.items() if row["request_id"] and number not in answered]
        posted.sort(key=lambda number: dispatches[number]["ended_at"] is not None)
        if not posted:
            return NOTHING
        await session.run(
            "insert into net._http_response (id, status_code, error_msg)"
            " select request_id, %s, %s from scheduler.dispatches where id = %s",
            *(self.status_code, self.error, posted[0]),
        )
        return posted[0]

    def judge(self, answer: Any, step: Step) -> None:
        step.ledger.answers.setdefault(answer, (self.status_code, self.error))


@dataclass(frozen=True)
class LetSlicesGrowOld(Owned):
    """Slices under way were asked for ten minutes ago, and a crash emptied the queue of pg_net: no answer is theirs."""

    async def ask(self, session: Worker, scene: Scene) -> Any:
        await session.run("delete from net.http_request_queue where true")
        await session.run(
            "update scheduler.dispatches set requested_at = requested_at - interval '10 minutes' where ended_at is null"
        )

    def judge(self, answer: Any, step: Step) -> None:
        step.ledger.given_up |= set(step.before.under_way)


@dataclass(frozen=True)
class LetRunsGrowOld(Owned):
    """What has ended did so a year ago."""

    async def ask(self, session: Worker, scene: Scene) -> Any:
        for table in ("scheduler_invocations", "scheduler_invocation_batches"):
            # both together, so that what was recorded late stays late
            run_id = "id" if table == "scheduler_invocations" else "invocation_id"
            await session.run(
                f"update public.{table} set finished_at = finished_at - interval '1 year'"
                f" where finished_at is not null and {run_id} = any (%s::uuid[])",
                [run.id for run in scene.picture.runs.values() if not run.is_open],
            )
