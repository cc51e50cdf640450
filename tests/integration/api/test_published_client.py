"""A client made from the published examples alone: it sends and reads only the members that these show."""

from __future__ import annotations

from typing import Any

from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules

TOTALS = ("total_active_mentors", "total_evaluated", "total_dispatched", "total_suppressed", "total_errors")
SUMMARY = dict.fromkeys(TOTALS, int) | {"duration_ms": int, "completed": bool}
CREATED = dict.fromkeys(("id", "invoked_at", "status", "triggered_by", "reason"), str)
NUMBERS = dict.fromkeys(("users_evaluated", "notifications_dispatched", "duration_ms"), int)
RUN = {"id": str, "invoked_at": str, "status": str, **NUMBERS, "error_message": (str, type(None))}
BATCH = dict.fromkeys(("batch_index", "user_count", "notifications_sent", "duration_ms"), int)
PLACE = dict.fromkeys(("page", "limit", "total"), int)


def published(shape: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What such a client sees."""
    assert [name for name, kind in shape.items() if not isinstance(found[name], kind)] == [], found
    return {name: found[name] for name in shape}


async def test_a_client_of_the_published_examples_works(harness: Harness) -> None:
    await harness.add_mentors(30)
    tokens = {"SCHEDULER_ADMIN_TOKENS": f"anna:{harness.project.admin_token}"}
    function = await harness.start_function(tokens | {"EVALUATION_BATCH_SIZE": "20", "ENGINE_MAX_ATTEMPTS": "1"})
    caller = Caller(harness, function)
    triggered, suppressed = map([*harness.expected_pairs().values()].count, ("triggered", "suppressed"))

    summary = published(SUMMARY, (await harness.fire(function)).json())
    assert [summary[name] for name in (*TOTALS, "completed")] == [30, 30, triggered, suppressed, 0, True]
    harness.engine.rules.append(rules.respond(503))
    created = published(CREATED, await caller.run({"reason": "after an incident", "triggered_by": "Berit"}))
    assert (created["status"], created["reason"]) == ("running", "after an incident")
    verdict = {"status": "failed", "error_message": "the engine is away"}
    assert (await caller.send("PUT", f"/{created['id']}", json=verdict)).status_code == 200
    assert (await caller.send("PUT", f"/{created['id']}", json=verdict)).status_code == 409

    page = await caller.page(page=1, limit=20)
    failed, scheduled = [published(RUN, run) for run in page["data"]]
    assert published(PLACE, page["pagination"]) == {"page": 1, "limit": 20, "total": 2}
    assert (failed["status"], failed["error_message"]) == ("failed", "the engine is away")
    assert (await caller.page(page=2, limit=1))["data"] == page["data"][1:]
    seen = await caller.see(scheduled["id"])
    assert published(RUN, seen) == scheduled
    assert (seen["users_evaluated"], seen["notifications_dispatched"]) == (30, triggered)
    batches = [published(BATCH, batch) for batch in seen["batch_results"]]
    assert [(batch["batch_index"], batch["user_count"]) for batch in batches] == [(1, 20), (2, 10)]
    assert sum(batch["notifications_sent"] for batch in batches) == triggered
    mentors = (await caller.page("/active-peer-mentors"))["data"]
    assert {mentor["user_id"] for mentor in mentors} == {*harness.mentors}

    # The token says who calls, the request only for whom.
    assert [run["triggered_by"] for run in page["data"]] == ["anna", "invoke"]
    assert (page["data"][0]["requested_by"], page["data"][0]["error_code"]) == ("Berit", "marked_failed")
    assert await harness.queue_lengths() == [0, 0, 0]
    assert (await caller.delete(failed["id"])).status_code == 204
    assert (await caller.page(page=1))["pagination"]["total"] == 1
