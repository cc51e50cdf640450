"""What the function as deployed writes: each line one JSON object, whatever wrote it, and in its request's trace.

That every line is one that docs/log-events.schema.json describes is checked of every test (tests/log_schema.py).
"""

from __future__ import annotations

from typing import Any

import psutil

from tests.integration.scheduled_runs.harness import Harness, eventually

TRACE = "0af7651916cd43dd8448eb211c80319c"


async def test_every_line_has_the_platforms_trace_and_form(harness: Harness) -> None:
    """A killed worker is reported by gunicorn's own process, in which nothing of ours runs but its log's filter."""
    function = await harness.start_function({"GOOGLE_CLOUD_PROJECT": "my-project"})

    answer = await harness.http.post(f"{function.url}/", headers={"X-Cloud-Trace-Context": f"{TRACE}/17;o=1"})

    assert answer.status_code == 401
    (line,) = (line for line in harness.log_lines(function) if line["event"] == "caller_refused")
    assert line["trace_id"] == TRACE
    assert line["logging.googleapis.com/trace"] == f"projects/my-project/traces/{TRACE}"
    assert line["logging.googleapis.com/spanId"] == f"{17:016x}"
    assert line["logging.googleapis.com/trace_sampled"] is True

    (worker,) = psutil.Process(function.pid).children()
    worker.kill()

    async def said() -> list[dict[str, Any]]:
        return [line for line in harness.log_lines(function) if line["event"] == "log"]

    (line,) = await eventually(said)
    assert (line["logger"], line["severity"]) == ("gunicorn.error", "ERROR")
    assert f"(pid:{worker.pid}) was sent SIGKILL" in line["message"]
    await function.until_ready()
