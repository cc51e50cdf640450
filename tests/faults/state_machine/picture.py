"""What the tables say at one moment, read in one statement, and what follows from it by counting pair by pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from tests.integration.database.asked import pairs_of
from tests.integration.database.sql_core import Json, Session

NIGHTLY, MANUAL = "scenario_evaluation_batches", "scenario_evaluation_batches_manual"
OPEN = ("pending", "running")
NOTABLE = ("triggered", "suppressed", "skipped", "failed")

Pair = tuple[str, str]
# Of a batch: its invocation's id and its own number.
BatchKey = tuple[str, int]

LOOK = f"""
select jsonb_build_object(
  'now', clock_timestamp(),
  'settings', (select to_jsonb(s) from scheduler.settings as s),
  'runs', (
    select coalesce(jsonb_agg(to_jsonb(i) || jsonb_build_object(
        'described', scheduler.describe_invocation(i.id),
        'undone', public.scheduler_undone(i.id, null, 100000)
      ) order by i.created_at, i.id), '[]')
      from public.scheduler_invocations as i
  ),
  'batches', (
    select coalesce(jsonb_agg(to_jsonb(b) order by b.batch_no), '[]') from public.scheduler_invocation_batches as b
  ),
  'rows', (select coalesce(jsonb_agg(to_jsonb(e)), '[]') from public.scheduler_evaluations as e),
  'messages', (
    select coalesce(jsonb_agg(to_jsonb(m)), '[]')
      from (
        select '{NIGHTLY}' as queue, msg_id, read_ct, vt <= clock_timestamp() as visible, message from pgmq.q_{NIGHTLY}
        union all
        select '{MANUAL}', msg_id, read_ct, vt <= clock_timestamp(), message from pgmq.q_{MANUAL}
      ) as m
  ),
  'dispatches', (select coalesce(jsonb_agg(to_jsonb(d) order by d.id), '[]') from scheduler.dispatches as d)
)
"""


class Message(NamedTuple):
    """What waits in a queue."""

    queue: str
    msg_id: int
    read_count: int
    visible: bool


class Run:
    """An invocation with its batches and its rows."""

    def __init__(self, row: Json) -> None:
        self.described: Json = row.pop("described")
        self.undone: Json = row.pop("undone")
        self.row = row
        self.id: str = row["id"]
        self.batches: dict[int, Json] = {}
        self.rows: dict[Pair, Json] = {}

    def __getattr__(self, column: str) -> Any:
        return self.row[column]

    @property
    def is_open(self) -> bool:
        return self.row["status"] in OPEN

    @property
    def queue(self) -> str:
        return NIGHTLY if self.row["triggered_by"] == "schedule" else MANUAL

    @property
    def open_batches(self) -> list[int]:
        return [number for number, batch in self.batches.items() if batch["state"] == "open"]

    @cached_property
    def outcomes(self) -> dict[Pair, str | None]:
        """What came of each pair, None while it is open: from its batch's state and the rows, not from any count."""
        return {pair: outcome for batch in self.batches.values() for pair, outcome in self.outcomes_of(batch)}

    def outcomes_of(self, batch: Json) -> Iterator[tuple[Pair, str | None]]:
        of_no_row = {"open": None, "done": "not_triggered", "abandoned": "not_evaluated"}[batch["state"]]
        for pair in pairs_of(batch["pairs"]):
            yield pair, self.rows[pair]["outcome"] if pair in self.rows else of_no_row

    def outcomes_at_its_end(self) -> Counter[str | None]:
        """How many pairs had come to what when it ended: what was recorded later was not evaluated by then."""
        ended = moment(self.row["finished_at"])
        return Counter(
            outcome if moment(batch["finished_at"]) <= ended else "not_evaluated"
            for batch in self.batches.values()
            for _, outcome in self.outcomes_of(batch)
        )


class Picture:
    """Everything that is in the tables."""

    def __init__(self, seen: Json) -> None:
        self.now = moment(seen["now"])
        self.settings: Json = seen["settings"]
        self.dispatches: dict[int, Json] = {row["id"]: row for row in seen["dispatches"]}
        self.runs: dict[str, Run] = {row["id"]: Run(row) for row in seen["runs"]}
        for batch in seen["batches"]:
            self.runs[batch["invocation_id"]].batches[batch["batch_no"]] = batch
        for row in seen["rows"]:
            self.runs[row["invocation_id"]].rows[row["user_id"], row["scenario_type"]] = row
        self.messages: dict[tuple[str, int], Message] = {
            (row["queue"], row["msg_id"]): Message(row["queue"], row["msg_id"], row["read_ct"], row["visible"])
            for row in seen["messages"]
        }

    @property
    def open_runs(self) -> list[Run]:
        return [run for run in self.runs.values() if run.is_open]

    @property
    def under_way(self) -> list[int]:
        """Slices that were asked for and are not known to have ended."""
        return [number for number, dispatch in self.dispatches.items() if dispatch["ended_at"] is None]

    @property
    def is_paused(self) -> bool:
        until = self.settings["engine_paused_until"]
        return until is not None and moment(until) > self.now

    def is_overdue(self, run: Run) -> bool:
        """Past its time, which nobody has noticed yet."""
        return run.is_open and moment(run.expires_at) <= self.now

    def batch(self, key: BatchKey) -> Json | None:
        run = self.runs.get(key[0])
        return run.batches.get(key[1]) if run else None

    def message_of(self, key: BatchKey) -> Message | None:
        batch = self.batch(key)
        return self.messages.get((self.runs[key[0]].queue, batch["msg_id"])) if batch else None


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def by_scenario(outcomes: Mapping[Pair, str | None]) -> dict[str, dict[str, int]]:
    """{scenario type: {outcome: count}}, without the open ones."""
    counted: dict[str, dict[str, int]] = {}
    for (_, scenario_type), outcome in outcomes.items():
        if outcome:
            of_type = counted.setdefault(scenario_type, {})
            of_type[outcome] = of_type.get(outcome, 0) + 1
    return counted


def last_good(runs: Iterable[Run]) -> str | None:
    """The night of which the dead-man's check would speak."""
    good = [
        run
        for run in runs
        if run.triggered_by == "schedule"
        and not run.dry_run
        and run.status in ("succeeded", "partial")
        and (run.mentors_skipped or run.batches)
    ]
    return max(good, key=lambda run: moment(run.finished_at)).id if good else None


async def look(session: Session) -> Picture:
    return Picture(await session.value(LOOK))
