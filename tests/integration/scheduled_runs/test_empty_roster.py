"""A scheduled run that reads no mentor, on the running function: what it becomes is a setting."""

from __future__ import annotations

import pytest

from tests.integration.scheduled_runs.harness import Harness


@pytest.mark.parametrize(
    ("settings", "ended", "health"),
    [({}, ("failed", "no_active_mentors"), 503), ({"EMPTY_ROSTER": "success"}, ("success", None), 200)],
)
async def test_a_run_without_mentors_ends_as_configured(
    harness: Harness, settings: dict[str, str], ended: tuple[str, str | None], health: int
) -> None:
    function = await harness.start_function(settings)
    answer = await harness.fire(function)
    run = answer.json()
    assert (answer.status_code, run["completed"], run["status"], run["error_code"]) == (200, True, *ended)
    assert {value for name, value in run.items() if name.startswith("total_") or name == "remaining"} == {0}
    assert (await harness.http.get(f"{function.url}/health/last-run")).status_code == health
    assert harness.engine.calls == []
