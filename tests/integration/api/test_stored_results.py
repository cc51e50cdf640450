"""All results of a run as one CSV, by the function as it is deployed."""

from __future__ import annotations

import csv

import httpx
import pytest

from functions.http.evaluations import CSV_PAGE
from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness

MORE = b"""
insert into public.scheduler_evaluations (invocation_id, user_id, scenario_type, outcome)
select id, gen_random_uuid(), 'milestone', 'triggered' from public.scheduler_invocations, generate_series(1, %s)
"""
BREAK_OFF = b"""
create or replace function public.scheduler_evaluations_page(
  p_invocation_id uuid, p_outcomes text[], p_code text, p_scenario_type text, p_limit integer, p_after_user_id uuid,
  p_after_scenario_type text
) returns json language plpgsql stable security definer set search_path = '' as $$
begin
  if p_after_user_id is not null then raise 'broken'; end if;
  return json_build_object('is_open', false, 'items', '[]'::json, 'next', json_build_array(p_invocation_id, 'x'));
end
$$
"""


async def test_a_csv_is_whole_or_visibly_broken_off(harness: Harness) -> None:
    await harness.add_mentors(20)
    function = await harness.start_function()
    caller, run = Caller(harness, function), await harness.run(function)
    path, in_csv = f"/{run['id']}/evaluations", {"Accept": "text/csv"}
    page = await caller.page(path)
    stored = [pair for pair, outcome in harness.expected_pairs().items() if outcome != "not_triggered"]
    assert [(each["user_id"], each["scenario_type"]) for each in page["data"]] == sorted(stored)

    await harness.execute(MORE, [CSV_PAGE])
    rows = [*csv.reader((await caller.send("GET", path, headers=in_csv)).text.splitlines())]
    assert len(rows) == 1 + CSV_PAGE + len(stored)
    assert {len(row) for row in rows} == {7}

    await harness.execute(BREAK_OFF)
    with pytest.raises(httpx.RemoteProtocolError):
        await caller.send("GET", path, headers=in_csv)
    assert [line["message"] for line in harness.log_lines(function) if line["event"] == "database_refused"]
