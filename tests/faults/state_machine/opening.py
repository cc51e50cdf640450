"""Opening runs: by a slot, by somebody's request, as a retry; and filling them with pairs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.integration.database.asked import ask, pairs_of, undone
from tests.integration.database.sql_core import Json, Pairs, Worker, mentor, minutes

from .operation import NOTHING, Operation, Scene, Step
from .picture import Picture, Run, moment

MAX_WORKERS = 2
MENTORS_OF_A_RETRY_PAGE = 2
# Of each batch its groups, of each group how many mentors, which of TYPES, and whether to skip it.
Page = tuple[tuple[tuple[int, int, bool], ...], ...]
TYPES = (("lapsed",), ("milestone",), ("lapsed", "milestone"), ("milestone", "onboarding", "lapsed"))


@dataclass(frozen=True)
class OpenSlot(Operation):
    """The due slot is `which` after the newest so far: 1 is the next night, -1 what a late clock says."""

    which: int = 0
    requested: str = "none"  # or "due", or "other"
    missed_for_good: bool = False

    async def ask(self, session: Worker, scene: Scene) -> Any:
        number = max(0, scene.ledger.newest_slot + self.which)
        due = scene.first_slot + minutes(number)
        requested = {"none": None, "due": due, "other": due - minutes(1)}[self.requested]
        answer = await session.open_slot(
            due,
            scene.picture.now + minutes(60),
            requested,
            missed_slot_max_gap_hours=0 if self.missed_for_good else 12,
            max_workers=MAX_WORKERS,
        )
        return number, due, requested, answer

    def judge(self, answer: Any, step: Step) -> None:
        number, due, requested, said = answer
        ledger = step.ledger
        ledger.newest_slot = max(ledger.newest_slot, number)
        run = said["invocation"]
        assert run is None or moment(run["scheduled_for"]) == (requested or due)
        if said["opened"]:
            key = slot_key(due)
            assert key not in ledger.slots, f"{key} was opened a second time"
            ledger.slots.add(key)
            ledger.opened.add(run["id"])
            ledger.scopes[run["id"]] = key
        if step.is_alone:
            self._judge_exactly(due, requested, said, step)

    def _judge_exactly(self, due: datetime, requested: datetime | None, said: Json, step: Step) -> None:
        before, after = step.before, step.after
        mark = before.settings["slot_high_water_mark"]
        is_new = mark is not None and due > moment(mark) and not self.missed_for_good and self.requested != "other"
        assert said["opened"] == is_new
        if is_new:
            overlaps = any(run.triggered_by == "schedule" and not before.is_overdue(run) for run in before.open_runs)
            opened = after.runs[said["invocation"]["id"]]
            assert (opened.status, opened.error) == (("skipped", "overlap") if overlaps else ("running", None))
        named = [
            run
            for run in after.runs.values()
            if run.idempotency_key == slot_key(requested or due) and not run.deleted_at
        ]
        assert (said["invocation"] or {}).get("id") == (named[0].id if named else None)
        spent = requested == due and due <= moment(after.settings["slot_high_water_mark"])
        assert said["not_a_slot"] == (requested is not None and not named and not spent)
        assert {run["id"] for run in said["open"]} == {run.id for run in after.open_runs}
        assert not any(after.is_overdue(run) for run in after.open_runs)


@dataclass(frozen=True)
class Open(Operation):
    """A run that somebody asks for: with the client's key number `key`, a retry of run `retry_of`; -1: without."""

    key: int = -1
    body: int = 0
    dry_run: bool = False
    retry_of: int = -1
    post_slice: bool = False
    repeated: bool = False

    async def ask(self, session: Worker, scene: Scene) -> Any:
        source = scene.run(self.retry_of) if self.retry_of >= 0 else None
        asked: Json = {
            "invocation_id": scene.new_id,
            "key": f"k{self.key}" if self.key >= 0 else None,
            "request_hash": f"body {self.body}",
            "dry_run": self.dry_run,
            "retry_of": source.id if source else None,
            "post_slice": self.post_slice,
        }
        said = await ask(session, **asked)
        again = await ask(session, **asked) if self.repeated else None
        return asked, said, again

    def judge(self, answer: Any, step: Step) -> None:
        asked, said, again = answer
        ledger, outcome = step.ledger, said["outcome"]
        run_id = asked["invocation_id"]
        if again and again["outcome"] == "opened" != outcome:
            assert not step.is_alone
            # what stood in its way was taken out of it by somebody else, between the two
            said, outcome = again, "opened"
        if outcome == "opened":
            assert run_id not in ledger.opened
            known = ledger.keys.get(asked["key"])
            pruned_meanwhile = not step.is_alone and known not in step.after.runs
            assert known is None or pruned_meanwhile, "a client's key stands for a second run"
            assert said["invocation"]["id"] == run_id
            ledger.opened.add(run_id)
            if asked["key"]:
                ledger.keys[asked["key"]] = run_id
            scope = f"manual:{run_id}"
            if asked["retry_of"]:
                ledger.sources[run_id] = asked["retry_of"]
                scope = ledger.scopes[asked["retry_of"]]
            if said["invocation"]["dry_run"]:
                scope = f"dry:{run_id}"
            ledger.scopes[run_id] = scope
        elif outcome == "same":
            assert ledger.keys.get(asked["key"], said["invocation"]["id"]) == said["invocation"]["id"] != run_id
        if again and outcome == "opened":
            assert again["outcome"] in ("opened", "deleted")
        elif again and step.is_alone:
            assert again["outcome"] == outcome
        if step.is_alone:
            expected = self._expected(asked, step.before)
            assert expected is None or outcome == expected, expected

    def _expected(self, asked: Json, before: Picture) -> str | None:
        """What has to be answered; None where it depends on a run whose time is over unnoticed."""
        known = [run for run in before.runs.values() if asked["key"] and run.idempotency_key == f"key:{asked['key']}"]
        if known:
            if known[0].deleted_at:
                return "deleted"
            return "same" if known[0].request_hash == asked["request_hash"] else "other_request"
        if not asked["retry_of"]:
            return "opened"
        source = before.runs[asked["retry_of"]]
        rivals = [run for run in before.open_runs if run.retry_of == source.id]
        if any(before.is_overdue(run) for run in (source, *rivals)):
            return None
        if source.deleted_at:
            return "retry_source_unknown"
        if source.is_open:
            return "retry_source_open"
        if source.enumeration_done and not {"failed", "not_evaluated"} & set(source.outcomes.values()):
            return "nothing_to_retry"
        return "retry_already_open" if rivals else "opened"


@dataclass(frozen=True)
class Enqueue(Operation):
    """One page of run `run`."""

    run: int = 0
    page: Page = ()
    skipped: int = 0
    done: bool = False
    stale: bool = False

    async def ask(self, session: Worker, scene: Scene) -> Any:
        run = scene.run(self.run, first=lambda run: run.is_open and not run.enumeration_done)
        if run is None:
            return NOTHING
        cursor = run.enumeration_cursor
        batches, following = await self._page(session, run, None if self.stale else cursor)
        expected = ("0" if cursor is None else None) if self.stale else cursor
        done = self.done or following == cursor
        accepted = await session.enqueue(
            run.id, batches, expected=expected, following=following, done=done, skipped=self.skipped
        )
        return run.id, batches, accepted

    async def _page(self, session: Worker, run: Run, cursor: str | None) -> tuple[list[Pairs], str | None]:
        """Two workers that read from the same place read the same, or at least begin at the same mentor."""
        if run.triggered_by == "retry":
            return await retry_page(session, run, cursor)
        number, batches = int(cursor or 0), []
        for groups in self.page:
            frozen: Pairs = []
            for mentors, types, is_skipped in groups:
                users = [mentor(number + offset) for offset in range(mentors)]
                number += mentors
                skip = {"skip": "mentor_not_active"} if is_skipped else {}
                frozen.append({"scenario_types": list(TYPES[types]), "user_ids": users, **skip})
            batches.append(frozen)
        number += self.skipped
        return batches, str(number) if number > int(cursor or 0) else cursor

    def judge(self, answer: Any, step: Step) -> None:
        run_id, batches, accepted = answer
        if accepted:
            step.ledger.freeze(run_id, [pair for frozen in batches for pair in pairs_of(frozen)])
        if step.is_alone:
            run = step.before.runs[run_id]
            assert accepted == (run.is_open and not run.enumeration_done and not self.stale)


async def retry_page(session: Worker, run: Run, cursor: str | None) -> tuple[list[Pairs], str | None]:
    """What its source left undone, each mentor's in a group of her own. Nothing once the source is pruned."""
    page = await undone(session, run.retry_of, after=cursor, mentors=MENTORS_OF_A_RETRY_PAGE)
    if page is None or page["last_user_id"] is None:
        return [], cursor
    frozen = [{"scenario_types": row["scenario_types"], "user_ids": [row["user_id"]]} for row in page["mentors"]]
    return [frozen] if frozen else [], page["last_user_id"]


def slot_key(slot: datetime) -> str:
    return f"slot:{slot:%Y-%m-%dT%H:%MZ}"
