"""What the function as deployed writes: each line one JSON object, whatever wrote it, and in its request's trace.

That every line is one that docs/log-events.schema.json describes is checked of every test (tests/log_schema.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

import psutil

from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness, eventually
from tests.scripted_engine import rules

TRACE = "0af7651916cd43dd8448eb211c80319c"
PUBLISHED = (
    *("scheduler_run_started", "scheduler_run_partial", "mentor_evaluation_error"),
    *("scheduler_run_completed", "scheduler_run_failed"),
)


async def test_each_published_event_is_in_the_log_once(harness: Harness) -> None:
    """A scheduled run that an outage interrupts, and a manual one that an operator marks as failed."""
    poison, *_ = mentors = await harness.add_mentors(20)
    function = await harness.start_function()
    caller = Caller(harness, function)
    harness.engine.rules = [rules.respond(401)]
    assert (await harness.fire(function)).status_code == 202
    harness.engine.rules = [rules.refuse_calls_with([poison])]
    await harness.execute(b"update scheduler.settings set engine_paused_until = now()")

    run = (await harness.fire(function)).json()

    started, left, failed, completed = lines = harness.log_lines(function, *PUBLISHED)
    assert [line["event"] for line in lines] == [*PUBLISHED[:4]]
    for line in (started, completed):
        assert (line["invocation_id"], line["triggered_by"]) == (run["id"], "invoke")
    assert left["remaining_unprocessed_count"] == 20
    assert (failed["peer_mentor_id"], failed["error_type"]) == (poison, "evaluation_logic_error")
    summary = {name: run[name] for name in run if name in ("status", "completed") or name.startswith("total_")}
    summary["duration_ms"] = (await harness.describe(run["id"]))["duration_ms"]
    assert completed == completed | summary | {"status": "partial", "total_errors": 2, "pages_processed": 1}

    harness.engine.rules = [rules.respond(401)]
    manual = await caller.run({"user_ids": mentors[:3], "reason": "asked for by Ann Miller"})
    marked = {"status": "failed", "error_message": "wrong texts, says Ann Miller"}
    assert (await caller.send("PUT", f"/{manual['id']}", json=marked)).status_code == 200
    await asyncio.gather(*(harness.fire(function) for _ in range(3)))

    started, left, failed = lines = harness.log_lines(function, *PUBLISHED)[4:]
    assert [line["event"] for line in lines] == [*PUBLISHED[:2], "scheduler_run_failed"]
    assert (started["triggered_by"], left["remaining_unprocessed_count"]) == ("admin", 3)
    assert (failed["invocation_id"], failed["error_code"]) == (manual["id"], "marked_failed")
    assert "Ann Miller" not in function.log_path.read_text()


async def test_every_line_has_the_platforms_trace_and_form(harness: Harness) -> None:
    """A killed worker is reported by gunicorn's own process, in which nothing of ours runs but its log's filter."""
    function = await harness.start_function({"GOOGLE_CLOUD_PROJECT": "my-project"})

    answer = await harness.http.post(f"{function.url}/", headers={"X-Cloud-Trace-Context": f"{TRACE}/17;o=1"})

    assert answer.status_code == 401
    (line,) = harness.log_lines(function, "caller_refused")
    assert line["trace_id"] == TRACE
    assert line["logging.googleapis.com/trace"] == f"projects/my-project/traces/{TRACE}"
    assert line["logging.googleapis.com/spanId"] == f"{17:016x}"
    assert line["logging.googleapis.com/trace_sampled"] is True

    (worker,) = psutil.Process(function.pid).children()
    worker.kill()

    async def said() -> list[dict[str, Any]]:
        return harness.log_lines(function, "log")

    (line,) = await eventually(said)
    assert (line["logger"], line["severity"], line["component"]) == ("gunicorn.error", "ERROR", "scenario-scheduler")
    assert f"(pid:{worker.pid}) was sent SIGKILL" in line["message"]
    await function.until_ready()
