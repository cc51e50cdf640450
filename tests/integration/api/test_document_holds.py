"""The OpenAPI document says what is: whatever it allows and whatever it forbids, asked by schemathesis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.emulator.project import Project
from tests.integration.api.property_run import PropertyRun, run_schemathesis
from tests.integration.api.served import API, Served, served_by
from tests.scripted_engine import rules


@pytest.fixture
async def inhabited(project: Project, http: httpx.AsyncClient) -> AsyncIterator[Served]:
    """A run that ended well, and runs in other states."""
    async with served_by(project, http) as served:
        assert (await served.night.fire(served.function)).json()["status"] == "succeeded"
        # A good night is remembered for half a minute, and so is that there was none.
        assert (await served.call("GET", "/health/last-run", token="")).status_code == 200
        served.night.engine.rules.append(rules.refuse_calls_with({served.night.mentors[0]}))
        assert (await served.open_run())["status"] == "partial"
        served.night.engine.rules.clear()
        assert (await served.open_run({"dry_run": True}))["status"] == "succeeded"
        waits = {"Prefer": "respond-async"}
        assert (await served.open_run({"note": "waits"}, headers=waits))["status"] == "pending"
        given_up = await served.open_run({"note": "given up"}, headers=waits)
        assert (await served.call("PUT", f"{API}/{given_up['id']}", json={"status": "cancelled"})).status_code == 200
        yield served


async def ask(served: Served, folder: Path, *phases: str) -> PropertyRun:
    """Runs these phases; fails with what schemathesis says if it found anything, or if the function did."""
    page = (await served.call("GET", API, params={"limit": 2})).json()
    mentors = (await served.call("GET", f"{API}/active-peer-mentors", params={"limit": 5})).json()
    run = await run_schemathesis(
        served.function.url,
        admin_token=served.project.admin_token,
        dictionaries={
            "mentors": served.night.mentors,
            "invocations": [invocation["id"] for invocation in await served.night.invocations()],
            "cursors": [page["next_cursor"], mentors["next_cursor"]],
        },
        phases=phases,
        folder=folder,
    )
    assert run.exit_code == 0, run.output
    assert served.defects() == []
    assert served.night.engine.violations == []
    return run


async def operations_of(served: Served) -> dict[str, list[str]]:
    """Every operation of the document, `GET /health`, and the statuses that it names."""
    document = (await served.call("GET", "/openapi.json", token="")).json()
    return {
        f"{method.upper()} {path}": list(operation["responses"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


async def test_every_operation_keeps_to_the_document_whatever_it_is_asked(inhabited: Served, tmp_path: Path) -> None:
    run = await ask(inhabited, tmp_path, "examples", "coverage", "fuzzing")

    operations = await operations_of(inhabited)
    assert len(operations) == 10
    assert run.operations("coverage") >= operations.keys(), run.output
    assert run.operations("fuzzing") == operations.keys(), run.output
    # It got past the first check everywhere: an answer of the good kind, and of the other where there is one.
    for operation, statuses in operations.items():
        answered = {status for _, asked, status in run.answers if asked == operation}
        assert answered & {200, 201, 202, 204}, (operation, run.output)
        assert "422" not in statuses or 422 in answered, (operation, run.output)


async def test_what_was_opened_can_be_read_changed_and_deleted_by_its_links(inhabited: Served, tmp_path: Path) -> None:
    run = await ask(inhabited, tmp_path, "stateful")

    assert run.followed, run.output
    assert run.operations("stateful") >= {f"POST {API}"}, run.output
