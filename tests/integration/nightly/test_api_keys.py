"""Both kinds of API key serve the running function."""

from __future__ import annotations

import pytest

from tests.integration.nightly.night import Night


@pytest.mark.parametrize("kind", ["secret_key", "service_role_jwt"])
async def test_a_night_runs_with_a_key_of_either_kind(night: Night, kind: str) -> None:
    await night.add_mentors(150)
    key = getattr(night.project, kind)
    assert key.startswith({"secret_key": "sb_secret_", "service_role_jwt": "eyJ"}[kind])
    function = await night.start_function({"SUPABASE_SECRET_KEY": key})

    invocation = (await night.fire(function)).json()

    assert invocation["status"] == "succeeded"
    assert await night.recorded_pairs(invocation["id"]) == night.expected_pairs()
    await night.check_truth(invocation)


async def test_a_legacy_anon_key_can_do_nothing(night: Night) -> None:
    await night.add_mentors(5)
    function = await night.start_function({"SUPABASE_SECRET_KEY": night.project.anon_jwt})

    answer = await night.fire(function)

    assert answer.status_code == 500
    assert answer.json()["code"] in ("database_key_rejected", "database_refused")
    assert await night.invocations() == []
    assert night.engine.calls == []
