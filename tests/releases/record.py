"""Plays what a project may have gone through, and keeps what is in its tables then."""

from __future__ import annotations

from typing import Any

import httpx

from tests.emulator.function import FunctionProcess
from tests.emulator.project import MIGRATIONS, ProjectFactory
from tests.integration.nightly.night import Night, night
from tests.scripted_engine import rules

from .kept import Release
from .rows import read_rows

MENTORS = 12
# Several batches a run, so that one can be left open and others done.
BATCH_SIZE = 4

DESCRIBED = (
    b"select id::text, scheduler.describe_invocation(id) from public.scheduler_invocations where deleted_at is null"
)


async def record(version: str) -> Release:
    """The release that the present code would be."""
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as http,
        ProjectFactory() as projects,
        projects.project() as project,
        night(project, http) as played,
    ):
        await _play(played)
        async with project.connect(superuser=True) as connection:
            rows = await read_rows(connection)
            told = dict(await (await connection.execute(DESCRIBED)).fetchall())
        return Release(
            version=version,
            migrations={file.name: None for file in sorted(MIGRATIONS.glob("*.sql"))},
            rows=rows,
            told=told,
            mentors=played.mentors,
        )


async def _play(night: Night) -> None:
    """A night that is partial, its retry, a dry run, one cancelled, one deleted, and one that waits for the engine."""
    mentors = await night.add_mentors(MENTORS)
    function = await night.start_function(
        {"EVALUATION_BATCH_SIZE": str(BATCH_SIZE), "TIME_BUDGET_SECONDS": "5", "ENGINE_TIMEOUT_SECONDS": "2"}
    )
    night.engine.rules.append(rules.items_refused(mentors[:2], "no_device"))
    first = (await night.fire(function)).json()
    night.engine.rules.clear()
    assert first["status"] == "partial", first

    await _ask(night, function, {"retry_of": first["id"], "note": "the phones are registered now"})
    await _ask(night, function, {"dry_run": True})
    gone = await _ask(night, function, {"user_ids": mentors[2:4]})
    await _change(night, function, "DELETE", gone["id"])

    # Down for everybody: batches wait, and nobody is failed.
    night.engine.rules.append(rules.respond(503, headers={"Retry-After": "600"}))
    cancelled = await _ask(night, function, {"user_ids": mentors[4:6]}, open_still=True)
    await _change(night, function, "PUT", cancelled["id"], {"status": "cancelled"})
    await _ask(night, function, {"user_ids": mentors[6:], "note": "open when the release changed"}, open_still=True)
    night.engine.rules.clear()


async def _ask(
    night: Night, function: FunctionProcess, body: dict[str, Any], *, open_still: bool = False
) -> dict[str, Any]:
    answer = await night.http.post(
        f"{function.url}/api/v1/scheduler-invocations",
        json=body,
        headers={"Authorization": f"Bearer {night.project.admin_token}"},
    )
    found: dict[str, Any] = answer.json()
    assert (found.get("finished_at") is None) == open_still, found
    return found


async def _change(
    night: Night, function: FunctionProcess, method: str, invocation_id: str, body: dict[str, Any] | None = None
) -> None:
    answer = await night.http.request(
        method,
        f"{function.url}/api/v1/scheduler-invocations/{invocation_id}",
        json=body,
        headers={"Authorization": f"Bearer {night.project.admin_token}"},
    )
    assert answer.is_success, answer.text
