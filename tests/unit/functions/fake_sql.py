"""The SQL functions, as far as one process sees them, over a fake database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from functions.runs.services import Services
from shared.queue_repository import QueueRepository
from shared.run_repository import RunRepository
from shared.scenario_table import ScenarioTable
from shared.scenario_types import DEFAULT_SCENARIO_TYPES
from shared.slice_repository import SliceRepository
from tests.unit.environment import make_config
from tests.unit.fake_database import FakeDatabase
from tests.unit.functions.fake_engine import FakeEngine
from tests.unit.functions.single_engine import SingleEngine

SLOT = "2026-11-23T02:00:00+00:00"
# What of a row of `scenario_evaluation_config` belongs to no version.
STAMPS = ("updated_at", "updated_by", "due_after")
RUN_ID = "8a4e3f0c-5d0e-4d3e-9d53-0f5e0c4f6a11"


def mentor_id(number: int) -> str:
    """A user id; in the order of the numbers."""
    return f"0171e38f-30f1-5e6c-9a4d-{number:012x}"


def mentor_row(number: int, *segments: str) -> dict[str, Any]:
    """A row of `active_peer_mentors`."""
    return {"user_id": mentor_id(number), "segments": list(segments)}


def summarized(**members: Any) -> dict[str, Any]:
    """An invocation as the database summarizes it, for a list: by default a scheduled run that succeeded."""
    counts = dict.fromkeys(("mentors", "batches", "batches_done", "evaluations", "not_triggered"), 1)
    counts |= dict.fromkeys(("mentors_skipped", "triggered", "suppressed", "skipped", "failed", "not_evaluated"), 0)
    absent = ("retry_of", "note", "error_code", "error_message", "reason", "requested_by")
    usual: dict[str, Any] = dict.fromkeys(absent)
    usual |= {"id": RUN_ID, "trigger": "schedule", "triggered_by": "pg_cron", "status": "success", "dry_run": False}
    usual |= {"users_evaluated": 1, "notifications_dispatched": 0, "mentors_remaining": 0, "pages_processed": 1}
    usual |= {"scheduled_for": SLOT, "lateness_seconds": 3, "invoked_at": "2026-11-23T02:00:03.204113+00:00"}
    usual |= {"started_at": "2026-11-23T02:00:03.201877+00:00", "finished_at": "2026-11-23T02:00:04.870316+00:00"}
    usual |= {"expires_at": "2026-11-23T22:00:03.201877+00:00", "counts": counts}
    usual |= {"skip_reasons": dict.fromkeys(("no_scenario_applies", "user_id_missing", "invalid_segments"), 0)}
    usual |= {"duration_ms": 1668 if members.get("finished_at", True) else None}
    return usual | members


def described(**members: Any) -> dict[str, Any]:
    """An invocation as the database describes it by itself: by default a scheduled run that succeeded."""
    scenarios = {"milestone": {"not_triggered": 1}}
    return summarized(scenarios=scenarios, failures=[], other_failures={"count": 0}) | members


def detailed(**members: Any) -> dict[str, Any]:
    """An invocation with everything that the database knows of it: by default the same, for all active mentors."""
    chosen = dict.fromkeys(("users", "sample_user_ids", "scenario_types")) | {"sample_user_ids": []}
    details = {"request": chosen, "config": {}, "enumeration_done": True, "not_evaluated_user_ids": []}
    details["retry"] = None
    return described(**details, dispatches=[], batch_results=[]) | members


def open_row(**members: Any) -> dict[str, Any]:
    """An open invocation in an answer of `scheduler_open_slot`: by default a scheduled one, enumerated already."""
    usual: dict[str, Any] = dict.fromkeys(("retry_of", "request", "enumeration_cursor"))
    usual |= {"id": RUN_ID, "scheduled_for": SLOT, "trigger": "schedule", "dry_run": False}
    usual |= ScenarioTable(DEFAULT_SCENARIO_TYPES).recorded()
    return usual | {"engine_scope": "slot:2026-11-23T02:00Z", "enumeration_done": True} | members


def slot_answer(**members: Any) -> dict[str, Any]:
    """What `scheduler_open_slot` answers; by default there is nothing to be done."""
    usual: dict[str, Any] = dict.fromkeys(("opened", "not_a_slot", "more_open", "alert_due", "poison_overdue"), False)
    usual["engine_answered_recently"] = False
    return usual | {"clock": SLOT, "invocation": None, "open": [], "canary": None, "ended": []} | members


def opened_now() -> dict[str, Any]:
    """What `scheduler_open_slot` answers to the call that opens a slot."""
    running = summarized(status="running", finished_at=None)
    return slot_answer(opened=True, invocation=running, open=[open_row(enumeration_done=False)])


def config_row(scenario_type: str, organization: str | None = None, **members: Any) -> dict[str, Any]:
    """A row of `scenario_evaluation_config`; by default it sets nothing."""
    usual: dict[str, Any] = dict.fromkeys(("enabled", "segments", "schedule"))
    usual |= {"updated_at": SLOT, "updated_by": "berit", "due_after": SLOT}
    return {"scenario_type": scenario_type, "organization": organization} | usual | members


def make_services(database: FakeDatabase, engine: FakeEngine | SingleEngine, **settings: str) -> Services:
    """The clients of a process whose every call goes to these two."""
    config = make_config(**settings)
    table = ScenarioTable(config.scenario_types)
    return Services(
        config=config,
        database=database,
        reader_database=database,
        slices=SliceRepository(database, config, table),
        queue=QueueRepository(database, config),
        runs=RunRepository(database, config, table),
        engine=engine.client(),
        table=table,
    )


class FakeSql:
    """What is queued is claimed, and what is claimed is recorded; whatever else is asked has a fixed answer.

    `answers` is what each function answers: a value, an error to raise, or a function of the arguments.
    """

    def __init__(self, rows: Sequence[dict[str, Any]] = (), *, most_rows: int = 10_000) -> None:
        self._segments = {row["user_id"]: row["segments"] for row in rows}
        self._waiting: list[dict[str, Any]] = []
        self._batches = 0
        self._opened: dict[str, dict[str, Any]] = {}
        self.config_rows: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {
            "scheduler_open_slot": slot_answer(),
            "scheduler_open": self._open,
            "scheduler_enqueue": self._enqueue,
            "scheduler_claim": self._claim,
            "scheduler_take_permit": True,
            "scheduler_complete": "done",
            "scheduler_split": True,
            "scheduler_finish": self._finish,
            "scheduler_list": {"items": [], "next": None, "total": 0},
            "scheduler_used_slots": [],
            "scheduler_audit_page": [],
            "scheduler_get": self._get,
            "scheduler_active_mentors": self._active,
            "scheduler_last_success": {"clock": SLOT, "run": None, "paused_at": None},
            "scheduler_schedule": {"clock": SLOT, "pause": None, "engine_pause": None},
            "scheduler_scenario_config": lambda arguments: self._changed_config(arguments["known_version"]),
            "scheduler_configure_scenario": self._configure,
        }
        nothing = ("release", "end_slice", "claim_alert", "settle_alert", "update", "delete", "unfinished")
        self.answers |= dict.fromkeys(f"scheduler_{name}" for name in (*nothing, "evaluations_page"))
        self.database = FakeDatabase(
            rows, most_rows=most_rows, functions={name: partial(self._answer, name) for name in self.answers}
        )

    def _answer(self, name: str, arguments: dict[str, Any]) -> Any:
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer(arguments) if callable(answer) else answer

    def _changed_config(self, known_version: str | None) -> dict[str, Any] | None:
        said = [{name: row[name] for name in row if name not in STAMPS} for row in self.config_rows]
        version = json.dumps(said) if said else ""
        return None if version == known_version else {"version": version, "rows": list(self.config_rows)}

    def _configure(self, arguments: dict[str, Any]) -> dict[str, Any] | None:
        key = arguments["scenario_type"], arguments["organization"]
        rows = {(row["scenario_type"], row["organization"]): row for row in self.config_rows}
        changed = arguments["changes"] | {"updated_by": arguments["updated_by"]}
        rows[key] = rows.get(key, config_row(*key)) | changed
        self.config_rows = [rows[each] for each in sorted(rows, key=lambda key: (key[0], key[1] or ""))]
        return self._changed_config(None)

    def _open(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if (changed := self._changed_config(arguments["scenario_version"])) is not None:
            return {"outcome": "scenarios_changed", "invocation": None, "canary": None, "scenario_config": changed}
        if arguments["is_refused"]:
            return {"outcome": "types_refused", "invocation": None, "canary": None}
        retry_of = arguments["retry_of"]
        chosen = {"id": arguments["invocation_id"], "dry_run": arguments["dry_run"], "note": arguments["note"]}
        chosen["triggered_by"] = arguments["triggered_by"]
        pending = dict.fromkeys(("started_at", "finished_at", "lateness_seconds")) | {"status": "pending"}
        invocation = described(trigger="retry" if retry_of else "manual", retry_of=retry_of, **chosen, **pending)
        self._opened[invocation["id"]] = invocation
        work = {"id": invocation["id"], "scheduled_for": SLOT, "trigger": invocation["trigger"], "retry_of": retry_of}
        work |= {"enumeration_cursor": None, "enumeration_done": False, "request": arguments["request"]}
        work["scenarios"] = arguments["config"]["scenarios"]
        return {"outcome": "opened", "invocation": invocation, "canary": None, "work": work}

    def _finish(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Nothing ends by itself."""
        opened = self._opened.get(arguments["invocation_id"], summarized(finished_at=None))
        return {"ended_now": False, "invocation": opened | {"status": "running"}, "failures": None}

    def _get(self, arguments: dict[str, Any]) -> dict[str, Any] | None:
        opened = self._opened.get(arguments["invocation_id"])
        return opened and detailed(**opened) | {"status": "running"}

    def queue(self, pairs: list[dict[str, Any]], **members: Any) -> None:
        """Puts a batch in the queue, by default one of a scheduled run, delivered for the first time."""
        self._batches += 1
        batch = {"invocation_id": RUN_ID, "batch_no": self._batches, "pairs": pairs, "deliveries": 1, "read_count": 1}
        scope = {"engine_scope": "slot:2026-11-23T02:00Z", "scheduled_for": SLOT, "dry_run": False, "is_poison": False}
        self._waiting.append(batch | scope | members)

    def _enqueue(self, arguments: dict[str, Any]) -> dict[str, bool]:
        invocation_id = arguments["invocation_id"]
        for pairs in arguments["batches"]:
            self.queue(pairs, invocation_id=invocation_id, engine_scope=f"manual:{invocation_id}")
        return {"accepted": True}

    def _claim(self, arguments: dict[str, Any]) -> dict[str, Any]:
        quantity = arguments["quantity"]
        claimed, self._waiting = self._waiting[:quantity], self._waiting[quantity:]
        return {"batches": claimed, "stale": 0, "engine_paused_until": None, "poison_waits": False}

    def _active(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """In no order, as SQL answers it."""
        return [
            {"user_id": user_id, "segments": self._segments[user_id]}
            for user_id in reversed(arguments["user_ids"])
            if user_id in self._segments
        ]

    def called(self) -> list[str]:
        """The names of the functions that were called, in order."""
        return [name for name, _ in self.database.called]

    def all_arguments_of(self, name: str) -> list[dict[str, Any]]:
        """The arguments of each call of a function."""
        return [arguments for called, arguments in self.database.called if called == name]

    def arguments_of(self, name: str) -> dict[str, Any]:
        """The arguments of the one call of a function."""
        (arguments,) = self.all_arguments_of(name)
        return arguments
