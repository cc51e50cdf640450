"""From nothing to the first answer, a small run, and a call that has nothing to do."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from tests.emulator.errors import EmulatorError
from tests.emulator.function import FunctionProcess
from tests.emulator.ports import LOCALHOST
from tests.emulator.project import Project
from tests.emulator.staging import ROOT

from ..contest import in_turn, project_and_engine
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
    """Starts this function, an empty one and the good Deno program, time and again."""
    python = await asyncio.to_thread(_deployed_python)
    async with project_and_engine(notable=1) as (project, engine):
        stage = _Stage(project, engine, python)
        await prepare(project, MENTORS)
        starts = {THIS_FUNCTION: stage.run, EMPTY: stage.start_empty, GOOD_DENO: stage.start_deno}
        for warm_up in starts.values():
            await warm_up()
        found = await in_turn(
            # each start is short: several make a round
            Conditions(conditions.rounds * conditions.sized(STARTS, 1), conditions.quick, conditions.say),
            starts,
            lambda contender, took: f"{contender}: {', '.join(f'{what} {ms:.1f} ms' for what, ms in took.items())}",
        )
        requests = Spread.of([await stage.count_requests()])
    ours = {what: Spread.of(took[what] for took in found[THIS_FUNCTION]) for what in found[THIS_FUNCTION][0]}
    start = {contender: Spread.of(took["start"] for took in runs) for contender, runs in found.items()}
    small_run = f"night of {MENTORS} mentors, from the spawn"
    fires = {"milliseconds": ours["fire"], "p95_milliseconds": ours["fire p95"], "requests": requests}
    share = start[THIS_FUNCTION].over(start[EMPTY])
    return Measured(
        [
            *(Row(contender, "spawn to first answer", {}, {"milliseconds": took}) for contender, took in start.items()),
            Row(THIS_FUNCTION, small_run, {}, {"milliseconds": ours["run"]}),
            Row(THIS_FUNCTION, "second fire", {}, fires),
        ],
        [
            at_most("spawn to first answer, as a share of the empty function's", share, SHARE_OF_EMPTY),
            at_most(f"{small_run}, ms", ours["run"], RUN_MS, digits=0),
            at_most("second fire, ms", ours["fire"], FIRE_MS, digits=1),
            at_most("Data API requests of a second fire", requests, 1, digits=0),
        ],
        [
            "The environment has nothing but requirements.txt installed. Files are in the system's cache: the first"
            f" start of each is not counted. {STARTS} starts of each make a round.",
            f"The second fire is the median of {FIRES}, one after the other, over one connection.",
        ],
    )


class _Stage:
    """Starts each of them on a project, with the interpreter of the deployed function's environment."""

    def __init__(self, project: Project, engine: str, python: Path) -> None:
        self._project = project
        self._engine = engine
        self._python = python
        self._schedule = ""

    async def run(self) -> dict[str, float]:
        """A start, a run, and calls after it: milliseconds, the run's with those of the start."""
        await forget_everything(self._project)
        await self._project.make_slot_due()
        slot = datetime.now(UTC) - timedelta(minutes=1)
        self._schedule = f"{slot.minute} {slot.hour} * * *"
        # the slot of the start before may have been the same: the engine has seen its keys
        await reset(self._engine)
        async with self._client() as client:
            start, run, *fires = await self._fire(client, self._project.supabase_url, FIRES)
        return {"start": start, "run": run, "fire": percentile(fires, 0.5), "fire p95": percentile(fires, 0.95)}

    async def count_requests(self) -> int:
        """What a call after the run asks of the Data API, in a process that is new."""
        async with counting_gateway(self._project) as gateway, self._client() as client:
            await self._fire(client, gateway.url, 0)
        return gateway.requests.total()

    async def start_empty(self) -> dict[str, float]:
        serve = ("-P", "-m", "functions_framework", "--target", "answer", "--asgi", "--host", LOCALHOST)
        command = [self._python, *serve, "--source", HERE / "empty_function.py"]
        return await self._start(ServedContender("empty-function", lambda: command))

    async def start_deno(self) -> dict[str, float]:
        return await self._start(GOOD)

    async def _start(self, contender: ServedContender) -> dict[str, float]:
        settings = settings_of(self._project, self._engine, Load.single(MENTORS, 1))
        started = time.perf_counter()
        async with contender.serve(self._project, settings):
            return {"start": (time.perf_counter() - started) * 1000}

    def _client(self) -> httpx.AsyncClient:
        """Made before the clock runs: it reads certificates."""
        headers = {"Authorization": f"Bearer {self._project.invoke_token}"}
        return httpx.AsyncClient(trust_env=False, timeout=30, headers=headers)

    async def _fire(self, client: httpx.AsyncClient, supabase_url: str, more: int) -> list[float]:
        """Milliseconds from the spawn to the first answer and to that of the slot's call, and of more such calls."""
        types = json.dumps([{"type": name} for name in TYPES])
        settings = {"EVALUATION_SCHEDULE": self._schedule, "SCENARIO_TYPES": types, "SUPABASE_URL": supabase_url}
        env = self._project.function_env(self._engine, settings)
        function = FunctionProcess(
            self._project.data_dir, env, name="cold-function", restart=False, python=self._python
        )
        spawned = time.perf_counter()
        try:
            await function.start()
            first_answer = time.perf_counter() - spawned
            calls = [await _call(client, function.url) for _ in range(1 + more)]
        finally:
            await function.stop()
        return [first_answer * 1000, first_answer * 1000 + calls[0], *calls[1:]]


async def _call(client: httpx.AsyncClient, url: str) -> float:
    """The milliseconds that the slot's call takes."""
    started = time.perf_counter()
    answer = await client.post(f"{url}/")
    took = time.perf_counter() - started
    if answer.status_code != httpx.codes.OK or answer.json()["status"] != "succeeded":
        raise EmulatorError(f"the run did not succeed: {answer.status_code} {answer.text}")
    return took * 1000


def _deployed_python() -> Path:
    """Of an environment with nothing but what is deployed, made on first use and when the requirements change."""
    requirements = ROOT / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / "build" / f"benchmark-environment-{digest}"
    python, complete = folder / "bin" / "python", folder / ".complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
        for command in ([sys.executable, "-m", "venv", folder], pip):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise EmulatorError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
        complete.touch()
    return python


COLD_START = Section(
    "cold-start",
    "cold start, a small night, and nothing to do",
    "The function is spawned as it is deployed and asked until it answers GET /health; then a night of 300 mentors with"
    " three types, and the same slot again. To compare: an empty function that imports supabase and FastAPI, and the"
    " good Deno program.",
    measure,
)
