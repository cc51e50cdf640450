"""The OpenAPI document says what is: whatever it allows and whatever it forbids, asked by schemathesis."""

from __future__ import annotations

from pathlib import Path

from tests.integration.api.property_run import run_schemathesis
from tests.integration.api.served import API, Served
from tests.scripted_engine import rules


async def test_every_operation_keeps_to_the_document(served: Served, tmp_path: Path) -> None:
    night, waits = served.night, {"Prefer": "respond-async"}
    assert (await night.fire(served.function)).json()["status"] == "succeeded"
    # That a run ended well is remembered for half a minute, and so is that none did.
    assert (await served.call("GET", "/health/last-run", token="")).status_code == 200
    night.engine.rules.append(rules.refuse_calls_with({night.mentors[0]}))
    await served.open_run()
    night.engine.rules.clear()
    await served.open_run({"dry_run": True})
    await served.open_run({"note": "waits"}, headers=waits)
    given_up = await served.open_run({"note": "given up"}, headers=waits)
    assert (await served.call("PUT", f"{API}/{given_up}", json={"status": "cancelled"})).status_code == 200
    runs = await night.invocations()
    assert {run["status"] for run in runs} == {"succeeded", "partial", "pending", "cancelled"}
    pages = [await served.call("GET", f"{API}{path}?limit=2") for path in ("", "/active-peer-mentors")]

    run = await run_schemathesis(
        served.function.url,
        admin_token=night.project.admin_token,
        dictionaries={
            "mentors": night.mentors,
            "invocations": [run["id"] for run in runs],
            "cursors": [page.json()["next_cursor"] for page in pages],
        },
        folder=tmp_path,
    )

    assert run.exit_code == 0, run.output
    assert served.defects() == []
    assert night.engine.violations == []
    document = (await served.call("GET", "/openapi.json", token="")).json()
    operations = {
        f"{method.upper()} {path}": operation["responses"]
        for path, of_path in document["paths"].items()
        for method, operation in of_path.items()
    }
    assert len(operations) == 10
    for phase in ("coverage", "fuzzing"):
        assert run.operations(phase) >= operations.keys(), run.output
    # What was opened is read, changed and deleted by the links of the document alone.
    assert run.followed, run.output
    assert f"POST {API}" in run.operations("stateful"), run.output
    # It got past the first check everywhere: an answer of the good kind, and of the other where there is one.
    for operation, documented in operations.items():
        answered = {status for (_, asked), found in run.statuses.items() if asked == operation for status in found}
        assert answered & {200, 201, 202, 204}, (operation, run.output)
        assert "422" not in documented or 422 in answered, (operation, run.output)
