"""What the tables say at one moment, read in one statement, and what follows from it by counting pair by pair."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from tests.integration.database.requests import pairs_of
from tests.integration.database.sql_core import Json

OPEN = ("pending", "running")
WITH_A_ROW = ("triggered", "suppressed", "skipped", "failed")
OUTCOMES = (*WITH_A_ROW, "not_triggered", "not_evaluated")
# Columns that only say when or by which process, and one on which but a log depends; whether a time is past is kept,
# see `Snapshot.key`.
NOT_STATE = (
    "id",
    "invocation_id",
    "msg_id",
    "config",
    "duration_ms",
    "worker",
    "request_id",
    "headers",
    "end_is_logged",
)

Pair = tuple[str, str]
# Of a batch: its invocation's id and its own number.
BatchKey = tuple[str, int]


def look(queues: Iterable[str]) -> str:
    """Return the statement that reads everything; which batch a message is for is read from the message alone."""
    messages = " union all ".join(
        f"select '{queue}' as queue, msg_id, read_ct, vt <= clock_timestamp() as visible,"
        f" message ->> 'invocation_id' as run, message ->> 'batch_no' as batch_no from pgmq.q_{queue}"
        for queue in queues
    )
    return f"""
    select jsonb_build_object(
      'now', clock_timestamp(),
      'settings', (select to_jsonb(s) from scheduler.settings as s),
      'runs', (select coalesce(jsonb_agg(to_jsonb(i) order by i.invoked_at, i.id), '[]')
                 from public.scheduler_invocations as i),
      'batches', (select coalesce(jsonb_agg(to_jsonb(b) order by b.batch_no), '[]')
                    from public.scheduler_invocation_batches as b),
      'rows', (select coalesce(jsonb_agg(to_jsonb(e) order by e.user_id, e.scenario_type), '[]')
                 from public.scheduler_evaluations as e),
      'messages', (select coalesce(jsonb_agg(to_jsonb(m) order by m.queue, m.msg_id), '[]') from ({messages}) as m),
      'dispatches', (select coalesce(jsonb_agg(to_jsonb(d) order by d.id), '[]') from scheduler.dispatches as d)
    )"""


DESCRIBE = """
  select jsonb_object_agg(i.id, jsonb_build_object(
           'described', scheduler.describe_invocation(i.id),
           'unfinished', public.scheduler_unfinished(i.id, null, 100000)))
    from public.scheduler_invocations as i
"""


class Message(NamedTuple):
    """What waits in a queue."""

    queue: str
    msg_id: int
    read_count: int
    visible: bool
    batch: tuple[str, str]


class Run:
    """An invocation with its batches and its rows."""

    def __init__(self, row: Json) -> None:
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
    def chain(self) -> str:
        """The first run of its chain of retries, itself where it is none."""
        return self.row["first_run"] or self.id

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

    def is_late(self, batch: Json) -> bool:
        """Recorded after the run had ended."""
        ends = self.finished_at, batch["finished_at"]
        return all(ends) and moment(ends[1]) > moment(ends[0])

    def outcomes_at_its_end(self) -> Counter[str | None]:
        """How many pairs had come to what when it ended: what was recorded later was not evaluated by then."""
        return Counter(
            "not_evaluated" if self.is_late(batch) else outcome
            for batch in self.batches.values()
            for _, outcome in self.outcomes_of(batch)
        )


class Snapshot:
    """Everything that is in the tables."""

    def __init__(self, seen: Json) -> None:
        self.now = moment(seen["now"])
        self.settings: Json = seen["settings"]
        self.dispatches: list[Json] = seen["dispatches"]
        self.runs: dict[str, Run] = {row["id"]: Run(row) for row in seen["runs"]}
        for batch in seen["batches"]:
            self.runs[batch["invocation_id"]].batches[batch["batch_no"]] = batch
        for row in seen["rows"]:
            self.runs[row["invocation_id"]].rows[row["user_id"], row["scenario_type"]] = row
        self.messages = [
            Message(row["queue"], row["msg_id"], row["read_ct"], row["visible"], (row["run"], row["batch_no"]))
            for row in seen["messages"]
        ]

    @property
    def open_runs(self) -> list[Run]:
        return [run for run in self.runs.values() if run.is_open]

    def chain_of(self, run: Run) -> list[Run]:
        return [other for other in self.runs.values() if other.chain == run.chain]

    @property
    def under_way(self) -> int:
        """Slices that were asked for and are not known to have ended."""
        return sum(dispatch["ended_at"] is None for dispatch in self.dispatches)

    def is_overdue(self, run: Run) -> bool:
        """Past its time, and not yet ended."""
        return run.is_open and moment(run.expires_at) <= self.now

    def batch(self, key: BatchKey) -> Json | None:
        run = self.runs.get(key[0])
        return run.batches.get(key[1]) if run else None

    def message_of(self, key: BatchKey) -> Message | None:
        """The message that hands this batch out, in whichever queue."""
        batch = self.batch(key)
        mine = [
            message
            for message in self.messages
            if batch and message[:2] == (batch["queue"], batch["msg_id"]) and message.batch == (key[0], str(key[1]))
        ]
        assert len(mine) <= 1, f"batch {key} waits in more than one queue"
        return mine[0] if mine else None

    def holds(self, batch: Json) -> bool:
        """Whether the batch, as it was handed out, is still open and was handed out to no other worker since."""
        known, message = self.batch(key_of(batch)), self.message_of(key_of(batch))
        return bool(known and known["state"] == "open" and message and message.read_count == batch["read_count"])

    def key(self) -> str:
        """Two moments with the same key lead to the same: times are past or not, ids are numbered by their order."""
        runs = list(self.runs)

        def plain(row: Mapping[str, Any]) -> Json:
            return {
                name: self._is_past(value) if name.endswith(("_at", "_until", "_since")) else value
                for name, value in row.items()
                if name not in NOT_STATE
            }

        return json.dumps(
            [
                plain(self.settings),
                [
                    [plain(run.row), list(run.rows.values())]
                    + [[plain(batch), run.is_late(batch)] for batch in run.batches.values()]
                    for run in self.runs.values()
                ],
                [[message.queue, message.read_count, message.visible, message.batch] for message in self.messages],
                [plain(dispatch) for dispatch in self.dispatches],
                runs,
            ],
            sort_keys=True,
        )

    def _is_past(self, value: str | None) -> bool | None:
        return None if value is None else moment(value) <= self.now


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def key_of(batch: Json) -> BatchKey:
    return batch["invocation_id"], batch["batch_no"]


def by_scenario(outcomes: Mapping[Pair, str | None]) -> dict[str, dict[str, int]]:
    """Return {scenario type: {outcome: count}}, without the open ones."""
    counted: dict[str, dict[str, int]] = defaultdict(Counter)
    for (_, scenario_type), outcome in outcomes.items():
        if outcome:
            counted[scenario_type][outcome] += 1
    return dict(counted)


def last_success(runs: Iterable[Run]) -> str | None:
    """Return the run of which the dead-man's check would speak, which prune keeps."""
    good = [
        run for run in runs if run.trigger == "schedule" and not run.dry_run and run.status in ("success", "partial")
    ]
    return max(good, key=lambda run: moment(run.finished_at)).id if good else None
