"""From nothing to the first answer, a small run, and a call that has nothing to do."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx

from tests.emulator.errors import EmulatorError
from tests.emulator.function import FunctionProcess
from tests.emulator.ports import LOCALHOST
from tests.emulator.project import Project
from tests.emulator.staging import ROOT

from ..comparison import in_turn, project_and_engine
from ..peers.contenders import GOOD, GOOD_DENO, THIS_FUNCTION, ServedContender, settings_of
from ..peers.counting_gateway import counting_gateway
from ..peers.fast_engine import HERE, reset
from ..peers.figures import TYPES, Load
from ..peers.preparation import prepare
from ..peers.scheduler import forget_everything
from ..section import Conditions, Measured, Row, Section, at_most
from ..spread import Spread, percentile

EMPTY = "empty function that imports supabase and FastAPI"
STARTS = 5
MENTORS = 300
FIRES = 40
# Of the empty function's time.
SHARE_OF_EMPTY = 1.25
RUN_MS, FIRE_MS = 2_000, 20


async def measure(conditions: Conditions) -> Measured:
    python = await asyncio.to_thread(_deployed_python)
    serve = ("-P", "-m", "functions_framework", "--target", "answer", "--asgi", "--host", LOCALHOST)
    empty = ServedContender("empty-function", lambda: [python, *serve, "--source", HERE / "empty_function.py"])
    slot = datetime.now(UTC) - timedelta(minutes=1)
    types = json.dumps([{"type": name} for name in TYPES])
    settings = {"EVALUATION_SCHEDULE": f"{slot.minute} {slot.hour} * * *", "SCENARIO_TYPES": types}
    async with project_and_engine(notable=1) as (project, engine):
        await prepare(project, MENTORS)
        env = project.function_env(engine, settings)
        starts: dict[str, Callable[[], Awaitable[dict[str, float]]]] = {
            THIS_FUNCTION: partial(_run, project, engine, env, python),
            EMPTY: partial(_start, project, engine, empty),
            GOOD_DENO: partial(_start, project, engine, GOOD),
        }
        for warm_up in starts.values():
            await warm_up()
        found = await in_turn(
            # each start is short: several make a round
            Conditions(conditions.rounds * conditions.sized(STARTS, 1), conditions.quick, conditions.say),
            starts,
            lambda contender, took: f"{contender}: {', '.join(f'{what} {ms:.1f} ms' for what, ms in took.items())}",
        )
        async with counting_gateway(project) as gateway:
            await _spawn_and_call(project, env | {"SUPABASE_URL": gateway.url}, python, calls=1)
    requests = Spread.of([gateway.requests.total()])
    ours = {what: Spread.of(took[what] for took in found[THIS_FUNCTION]) for what in found[THIS_FUNCTION][0]}
    start = {contender: Spread.of(took["start"] for took in runs) for contender, runs in found.items()}
    small_run = f"run of {MENTORS} mentors, from the spawn"
    fires = {"milliseconds": ours["fire"], "p95_milliseconds": ours["fire p95"], "requests": requests}
    share = start[THIS_FUNCTION].over(start[EMPTY])
    return Measured(
        [
            *(Row(contender, "spawn to first answer", {}, {"milliseconds": took}) for contender, took in start.items()),
            Row(THIS_FUNCTION, small_run, {}, {"milliseconds": ours["run"]}),
            Row(THIS_FUNCTION, "second call", {}, fires),
        ],
        [
            at_most("spawn to first answer, as a share of the empty function's", share, SHARE_OF_EMPTY),
            at_most(f"{small_run}, ms", ours["run"], RUN_MS, digits=0),
            at_most("second call, ms", ours["fire"], FIRE_MS, digits=1),
            at_most("Data API requests of a second call", requests, 1, digits=0),
        ],
        [
            "The environment has nothing but requirements.txt installed. Files are in the system's cache: the first"
            f" start of each is not counted. {STARTS} starts of each make a round.",
            f"The second call is the median of {FIRES}, one after the other, over one connection.",
        ],
    )


async def _run(project: Project, engine: str, env: dict[str, str], python: Path) -> dict[str, float]:
    """Returns the milliseconds of a start, a run with its start, and calls after it."""
    await forget_everything(project)
    await project.make_slot_due()
    # it has seen the keys of the slot
    await reset(engine)
    start, run, *fires = await _spawn_and_call(project, env, python, calls=1 + FIRES)
    return {"start": start, "run": start + run, "fire": percentile(fires, 0.5), "fire p95": percentile(fires, 0.95)}


async def _start(project: Project, engine: str, contender: ServedContender) -> dict[str, float]:
    settings = settings_of(project, engine, Load(MENTORS, 1))
    started = time.perf_counter()
    async with contender.serve(project, settings):
        return {"start": (time.perf_counter() - started) * 1000}


async def _spawn_and_call(project: Project, env: dict[str, str], python: Path, *, calls: int) -> list[float]:
    """Returns milliseconds from the spawn to the first answer, and of each call of the slot."""
    function = FunctionProcess(project.data_dir, env, name="cold-function", restart=False, python=python)
    headers = {"Authorization": f"Bearer {project.invoke_token}"}
    async with httpx.AsyncClient(trust_env=False, timeout=30, headers=headers) as client:
        started = time.perf_counter()
        try:
            await function.start()
            first_answer = (time.perf_counter() - started) * 1000
            return [first_answer, *[await _call(client, function.url) for _ in range(calls)]]
        finally:
            await function.stop()


async def _call(client: httpx.AsyncClient, url: str) -> float:
    started = time.perf_counter()
    answer = await client.post(f"{url}/")
    took = time.perf_counter() - started
    if answer.status_code != httpx.codes.OK or answer.json()["status"] != "success":
        raise EmulatorError(f"the run did not succeed: {answer.status_code} {answer.text}")
    return took * 1000


def _deployed_python() -> Path:
    """Returns Python of an environment with what is deployed alone, made when the requirements have changed."""
    requirements = ROOT / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / "build" / f"benchmark-environment-{digest}"
    python, complete = folder / "bin" / "python", folder / ".complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        commands: list[list[str | Path]] = [[sys.executable, "-m", "venv", folder], [*pip, "-r", requirements]]
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise EmulatorError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
        complete.touch()
    return python


COLD_START = Section(
    "cold-start",
    "cold start, a small run, and a second call",
    "The function is spawned as it is deployed and asked until it answers GET /health; then a run of 300 mentors with"
    " three types, and the same slot again. To compare: an empty function that imports supabase and FastAPI, and the"
    " good Deno program.",
    measure,
)
