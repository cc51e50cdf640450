"""The release or the project changes while a run is open: the run ends with every mentor evaluated once."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from shared.version import VERSION
from tests.emulator.postgres import PostgresBinaries
from tests.emulator.project import ProjectFactory
from tests.emulator.staging import ROOT
from tests.faults.oracle import check_success
from tests.faults.time_control import TimeControl
from tests.integration.deploy.deployer import Deployer
from tests.integration.project_logs import project_without_leaks
from tests.integration.scheduled_runs.harness import Harness, eventually
from tests.scripted_engine.rules import When, act_then, first, never_answer, only, respond

MENTORS = 100
# A call for each batch, one after another.
ONE_BY_ONE = {"EVALUATION_BATCH_SIZE": "10", "ENGINE_USERS_PER_CALL": "10", "ENGINE_MAX_CONCURRENCY": "1"}
LATER = "99.0.0"
# What a later version may do to the database: a column, a parameter with a default, a further member of an answer.
LATER_MIGRATION = """
alter table public.scheduler_invocation_batches add column release text;

alter function public.scheduler_complete(uuid, integer, integer, jsonb, jsonb, integer, integer, text, uuid[])
set schema scheduler;
create function public.scheduler_complete(
  p_invocation_id uuid, p_batch_no integer, p_deliveries integer, p_results jsonb, p_scenario_counts jsonb,
  p_users_evaluated integer, p_duration_ms integer, p_worker text, p_remaining uuid[] default null,
  p_release text default null
) returns text
language plpgsql security definer set search_path = '' as $$
declare
  v_state constant text := scheduler.scheduler_complete(
    p_invocation_id, p_batch_no, p_deliveries, p_results, p_scenario_counts, p_users_evaluated, p_duration_ms, p_worker,
    p_remaining
  );
begin
  update public.scheduler_invocation_batches
     set release = p_release
   where invocation_id = p_invocation_id and batch_no = p_batch_no;
  return v_state;
end
$$;
revoke all on function
  public.scheduler_complete(uuid, integer, integer, jsonb, jsonb, integer, integer, text, uuid[], text)
from public, anon, authenticated;
grant execute on function
  public.scheduler_complete(uuid, integer, integer, jsonb, jsonb, integer, integer, text, uuid[], text)
to service_role;

alter function scheduler.summarize_invocation(uuid) rename to summarize_invocation_of_before;
create function scheduler.summarize_invocation(p_invocation_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select scheduler.summarize_invocation_of_before(p_invocation_id) || '{"of_later": {"deep": true}}'
$$;
revoke all on function scheduler.summarize_invocation(uuid) from public, anon, authenticated, service_role;
"""
SIX_RECORDED = b"select from public.scheduler_invocation_batches where state = 'done' having count(*) = 6"
RUN_OF_ITS_OWN = b"""
insert into public.scheduler_invocations
  (idempotency_key, trigger, triggered_by, status, scheduled_for, started_at, expires_at, engine_scope)
values ('slot:own', 'schedule', 'pg_cron', 'running', now(), now(), now() + interval '1 hour', 'slot:own')
"""
PAGE = (ROOT / "docs" / "deployment.md").read_text()
MOVE = "**Moving to another project.**"


def later_release(folder: Path) -> Path:
    """What a later version's repository has of deploy.sh and what it deploys."""
    folder.mkdir()
    for part in ("functions", "shared", "supabase"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".temp"))
    for part in ("deploy.sh", ".env.example"):
        shutil.copy(ROOT / part, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "supabase" / "migrations" / "20991130000000_of_later.sql").write_text(LATER_MIGRATION)
    for file, before, after in (
        ("version.py", f'"{VERSION}"', f'"{LATER}"'),
        ("queue_repository.py", '"scheduler_complete",', f'"scheduler_complete",\nrelease="{LATER}",'),
    ):
        text = (folder / "shared" / file).read_text()
        assert text.count(before) == 1
        (folder / "shared" / file).write_text(text.replace(before, after))
    return folder


def after(times: int) -> When:
    """For all calls but the first."""
    passes = first(times)
    return lambda call: not passes(call)


async def open_a_run(deployer: Deployer, http: httpx.AsyncClient) -> Harness:
    """Deploys, and has a slice evaluate three of ten batches; the engine rejects the others."""
    harness = Harness(deployer.project, deployer.engine, http)
    deployer.write_settings(EVALUATION_SCHEDULE=harness.schedule, **ONE_BY_ONE)
    await deployer.succeed()
    await harness.add_mentors(MENTORS)
    await harness.project.make_slot_due()
    deployer.engine.rules = [only(after(3), respond(401))]
    answer = (await fire(deployer, http)).json()
    assert (answer["error_code"], answer["remaining"]) == ("engine_rejected", 70)
    return harness


async def fire(deployer: Deployer, http: httpx.AsyncClient) -> httpx.Response:
    bearer = {"Authorization": f"Bearer {deployer.settings['SCHEDULER_INVOKE_TOKENS']}"}
    return await http.post(f"{deployer.service.url}/", json={}, headers=bearer)


async def scheduled_run(harness: Harness) -> dict[str, object]:
    (run,) = [run for run in await harness.invocations() if run["trigger"] == "schedule"]
    return run


async def copy_history(left: Harness, harness: Harness) -> int:
    """Runs the documented command, and returns its exit code."""
    command = re.findall(r"^ *```bash\n(.*?)^ *```", PAGE.partition(MOVE)[2], re.DOTALL | re.MULTILINE)[0]
    env = {
        "PATH": f"{PostgresBinaries.find().bin}:{os.environ['PATH']}",
        "OLD_DATABASE_URL": left.project.database_url,
        "DATABASE_URL": harness.project.database_url,
    }
    argv = ["bash", "-euo", "pipefail", "-c", command]
    return (await asyncio.to_thread(subprocess.run, argv, env=env, capture_output=True)).returncode


@pytest.mark.parametrize("direction", ["upgrade", "rollback"])
async def test_a_run_is_finished_by_another_release(
    deployer: Deployer, http: httpx.AsyncClient, tmp_path: Path, direction: str
) -> None:
    """The engine has acted on the batch in hand, and its answer is lost with the process of before."""
    releases = (ROOT, None), (later_release(tmp_path / "later"), LATER)
    (deployer.root, before), (next_root, afterwards) = releases if direction == "upgrade" else releases[::-1]
    harness = await open_a_run(deployer, http)
    time_control, process = TimeControl(harness), deployer.service.process
    lost: list[asyncio.Task[httpx.Response]] = []

    async def continue_on_the_migrated_database(*_: object) -> None:
        await time_control.let_time_pass()
        enough = after(3)
        in_hand = only(lambda call: deployer.service.process is process and enough(call), act_then(never_answer()))
        deployer.engine.rules = [in_hand]
        lost.append(asyncio.create_task(fire(deployer, http)))
        await deployer.engine.until(lambda engine: engine.in_flight > 0)
        await eventually(lambda: harness.rows(SIX_RECORDED))

    deployer.root = next_root
    deployer.cloud.before_revision = continue_on_the_migrated_database
    deployed = await deployer.succeed()
    with pytest.raises(httpx.TransportError):
        await lost[0]

    assert ("20991130000000" in deployed) == (direction == "upgrade")
    await time_control.until_ended()
    run = await scheduled_run(harness)
    await check_success(harness, run)
    recorded_by = b"select release from public.scheduler_invocation_batches where invocation_id = %s"
    recorded = Counter(release for (release,) in await harness.rows(recorded_by, [run["id"]]))
    assert recorded == {before: 6, afterwards: 4}


async def test_an_open_run_moves_to_another_project(
    deployer: Deployer, projects: ProjectFactory, http: httpx.AsyncClient
) -> None:
    """By the documented commands. Where the old project continues as well, the engine acts on no pair again."""
    left = await open_a_run(deployer, http)
    deployer.engine.rules.clear()
    await left.execute(
        b"insert into public.scenario_evaluation_config (scenario_type, organization) values ('milestone', 'harbour')"
    )
    function_env = deployer.service.env
    await deployer.succeed("--uninstall", answer="uninstall\n")
    async with project_without_leaks(projects, "postgres") as project:
        deployer.project, deployer.cloud.database_url = project, project.database_url
        deployer.write_settings(
            DATABASE_URL=project.database_url,
            SUPABASE_URL=project.supabase_url,
            SUPABASE_SECRET_KEY=project.secret_key,
        )
        await project.start_net()
        await deployer.succeed()
        harness = Harness(project, deployer.engine, http)
        await harness.add_mentors(MENTORS)
        assert (await fire(deployer, http)).json() == {"status": "idle"}, "the slot is not due in a new project"

        await harness.execute(RUN_OF_ITS_OWN)
        assert await copy_history(left, harness) != 0
        assert [run["trigger"] for run in await harness.invocations()] == ["schedule"], "nothing was copied"
        await harness.execute(b"delete from public.scheduler_invocations where idempotency_key = 'slot:own'")
        assert await copy_history(left, harness) == 0
        configured = b"select scenario_type, organization from public.scenario_evaluation_config"
        assert await harness.rows(configured) == await left.rows(configured) == [("milestone", "harbour")]
        await TimeControl(harness).until_ended()
        run = await scheduled_run(harness)
        await check_success(harness, run)
        assert run["id"] == (await scheduled_run(left))["id"]

    acts = dict(deployer.engine.acts)
    await left.execute(b"update scheduler.settings set engine_paused_until = null where singleton")
    function = await left.project.start_function(function_env)
    await left.fire(function)
    await check_success(left, await scheduled_run(left))
    assert deployer.engine.acts == acts
