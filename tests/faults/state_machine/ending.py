"""Ending runs early, and taking them away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tests.integration.database.sql_core import Worker

from .operation import NOTHING, Operation, Scene, Step
from .picture import Picture, Run, last_good, moment


@dataclass(frozen=True)
class Update(Operation):
    """Cancel run `run`, or set its note, or both."""

    run: int = 0
    cancel: bool = True
    note: str | None = None

    async def ask(self, session: Worker, scene: Scene) -> Any:
        run = scene.run(self.run)
        if run is None:
            return NOTHING
        return run.id, await session.update(run.id, cancel=self.cancel, set_note=bool(self.note), note=self.note)

    def judge(self, answer: Any, step: Step) -> None:
        run_id, said = answer
        if said and self.cancel and not said["ended_otherwise"]:
            step.ledger.cancelled.add(run_id)
        if step.is_alone:
            run = step.before.runs[run_id]
            assert (said is None) == (run.deleted_at is not None)
            if said:
                assert said["ended_otherwise"] == (self.cancel and not run.is_open and run.status != "cancelled")
                assert said["ended_otherwise"] or not self.note or step.after.runs[run_id].note == self.note
                assert said["ended_otherwise"] or not self.cancel or step.after.runs[run_id].status == "cancelled"


@dataclass(frozen=True)
class Delete(Operation):
    run: int = 0

    async def ask(self, session: Worker, scene: Scene) -> Any:
        run = scene.run(self.run)
        return NOTHING if run is None else (run.id, await session.delete(run.id))

    def judge(self, answer: Any, step: Step) -> None:
        run_id, said = answer
        if said == "deleted":
            assert run_id not in step.ledger.deleted, "deleted a second time"
            step.ledger.deleted.add(run_id)
        if step.is_alone:
            run = step.before.runs[run_id]
            assert said == (None if run.deleted_at else "open" if run.is_open else "deleted")


@dataclass(frozen=True)
class Prune(Operation):
    as_owner: ClassVar[bool] = True
    commits_itself: ClassVar[bool] = True

    async def ask(self, session: Worker, scene: Scene) -> Any:
        await session.run("call scheduler.prune()")

    def judge(self, answer: Any, step: Step) -> None:
        if step.is_alone:
            gone = {run.id for run in step.before.runs.values() if may_be_pruned(run, step.before)}
            assert step.before.runs.keys() - step.after.runs.keys() == gone


def may_be_pruned(run: Run, picture: Picture) -> bool:
    return is_past_retention(run, picture) and run.id != last_good(picture.runs.values()) and not is_read(run, picture)


def is_past_retention(run: Run, picture: Picture) -> bool:
    keep = picture.settings["retention_days"] * 86400
    return not run.is_open and (
        run.deleted_at is not None or (picture.now - moment(run.finished_at)).total_seconds() > keep
    )


def is_read(run: Run, picture: Picture) -> bool:
    """A retry has not yet read all that this run left undone."""
    return any(other.retry_of == run.id and not other.enumeration_done for other in picture.runs.values())
