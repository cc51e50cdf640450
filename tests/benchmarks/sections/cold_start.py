"""From nothing to the first answer, a small night, and a fire that has nothing to do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

import httpx

from tests.emulator.errors import EmulatorError
from tests.emulator.function import FunctionProcess
from tests.emulator.ports import LOCALHOST, free_port
from tests.emulator.processes import ChildProcess, http_status
from tests.emulator.project import Project, ProjectFactory

from ..contest import in_turn
from ..environment import deployed_python
from ..peers.contenders import GOOD_DENO, THIS_FUNCTION
from ..peers.counting_gateway import CountingGateway
from ..peers.deno import HERE, deno_command, deno_env
from ..peers.fast_engine import fast_engine, reset
from ..peers.figures import TYPES, Load
from ..peers.preparation import prepare
from ..peers.requirements import require_deno
from ..peers.scheduler import forget_everything
from ..peers.served import settings_of
from ..section import Conditions, Measured, Row, Section, at_most
from ..spread import Spread, percentile

EMPTY = "empty function that imports supabase and FastAPI"
STARTS = 5
MENTORS = 300
FIRES = 40
LOOK_SECONDS = 0.002
GIVE_UP_SECONDS = 30
# Of the empty function's time.
SHARE_OF_EMPTY = 1.25
NIGHT_MS, FIRE_MS = 2_000, 20

Run = Callable[[], Awaitable[Mapping[str, float]]]


async def measure(conditions: Conditions) -> Measured:
    """Starts this function, an empty one and the good Deno program, time and again."""
    python = str(await deployed_python())
    async with (
        ProjectFactory() as projects,
        projects.project() as project,
        fast_engine(project.data_dir, notable=1) as engine,
    ):
        stage = _Stage(project, engine, python)
        await prepare(project, MENTORS)
        starts = {THIS_FUNCTION: stage.night, EMPTY: stage.start_empty, GOOD_DENO: stage.start_deno}
        for start in starts.values():
            await start()
        found = await in_turn(
            # each start is short: several make a round
            Conditions(conditions.rounds * conditions.sized(STARTS, 1), conditions.quick, conditions.say),
            starts,
            lambda contender, took: f"{contender}: {', '.join(f'{what} {ms:.1f} ms' for what, ms in took.items())}",
        )
        requests = await stage.count_requests()
    ours = {what: Spread.of(took[what] for took in found[THIS_FUNCTION]) for what in found[THIS_FUNCTION][0]}
    rows = [
        *(
            Row(contender, "spawn to first answer", {}, {"milliseconds": Spread.of(took["start"] for took in runs)})
            for contender, runs in found.items()
        ),
        Row(THIS_FUNCTION, f"night of {MENTORS} mentors, from the spawn", {}, {"milliseconds": ours["night"]}),
        Row(
            THIS_FUNCTION,
            "second fire",
            {},
            {
                "milliseconds": ours["fire"],
                "p95_milliseconds": ours["fire p95"],
                "requests": Spread.of([requests]),
            },
        ),
    ]
    return Measured(
        rows,
        [
            at_most(
                "spawn to first answer, as a share of the empty function's",
                ours["start"].over(Spread.of(took["start"] for took in found[EMPTY])),
                SHARE_OF_EMPTY,
            ),
            at_most(f"night of {MENTORS} mentors, from the spawn, ms", ours["night"], NIGHT_MS, digits=0),
            at_most("second fire, ms", ours["fire"], FIRE_MS, digits=1),
            at_most("Data API requests of a second fire", Spread.of([requests]), 1, digits=0),
        ],
        [
            "The environment has nothing but requirements.txt installed. Files are in the system's cache: the first"
            f" start of each is not counted. {STARTS} starts of each make a round.",
            f"The second fire is the median of {FIRES}, one after the other, over one connection.",
        ],
    )


class _Stage:
    """Where they start.

    Args:
        project: whose night it is.
        engine: its URL.
        python: of the environment.
    """

    def __init__(self, project: Project, engine: str, python: str) -> None:
        self._project = project
        self._engine = engine
        self._python = python
        self._headers = {"Authorization": f"Bearer {project.invoke_token}"}
        self._schedule = ""

    async def night(self) -> dict[str, float]:
        """A start, a night, and fires after it: milliseconds, the night's with those of the start."""
        await forget_everything(self._project)
        await self._project.make_slot_due()
        slot = datetime.now(UTC) - timedelta(minutes=1)
        self._schedule = f"{slot.minute} {slot.hour} * * *"
        # the slot of the start before may have been the same: its keys are new to nobody
        await reset(self._engine)
        function = self._function({})
        function.stage()
        async with httpx.AsyncClient(trust_env=False, timeout=GIVE_UP_SECONDS, headers=self._headers) as client:
            started = time.perf_counter()
            await function.spawn()
            try:
                await _first_answer(function, function.port, "/health")
                answered = time.perf_counter()
                await _fire(client, function)
                over = time.perf_counter()
                fires = [await _timed(client, function) for _ in range(FIRES)]
            finally:
                await function.stop()
        return {
            "start": (answered - started) * 1000,
            "night": (over - started) * 1000,
            "fire": percentile(fires, 0.5),
            "fire p95": percentile(fires, 0.95),
        }

    async def count_requests(self) -> int:
        """What a fire after the night asks of the Data API, in a process that is new."""
        async with CountingGateway(self._project) as gateway:
            function = self._function({"SUPABASE_URL": gateway.url})
            await function.start()
            try:
                async with httpx.AsyncClient(trust_env=False, headers=self._headers) as client:
                    await _fire(client, function)
            finally:
                await function.stop()
        return gateway.requests.total()

    async def start_empty(self) -> dict[str, float]:
        """Milliseconds."""
        port = free_port()
        serve = ["-m", "functions_framework", "--target", "answer", "--asgi", "--host", LOCALHOST, "--port", str(port)]
        home = str(self._project.data_dir.folder("empty-function"))
        return await self._start(
            ChildProcess(
                "empty-function",
                [self._python, *serve, "--source", HERE / "empty_function.py"],
                data_dir=self._project.data_dir,
                env={"PATH": "", "HOME": home},
            ),
            port,
        )

    async def start_deno(self) -> dict[str, float]:
        """Milliseconds."""
        port = free_port()
        env = {
            **deno_env(self._project.data_dir),
            **settings_of(self._project, self._engine, Load.single(MENTORS, 1)),
            "PORT": str(port),
        }
        process = ChildProcess("good-deno", deno_command("good.ts"), data_dir=self._project.data_dir, env=env)
        return await self._start(process, port)

    async def _start(self, process: ChildProcess, port: int) -> dict[str, float]:
        started = time.perf_counter()
        await process.start()
        try:
            await _first_answer(process, port, "/")
            return {"start": (time.perf_counter() - started) * 1000}
        finally:
            await process.kill()

    def _function(self, env: Mapping[str, str]) -> FunctionProcess:
        types = json.dumps([{"type": name} for name in TYPES])
        settings = self._project.function_env(
            self._engine, {"EVALUATION_SCHEDULE": self._schedule, "SCENARIO_TYPES": types, **env}
        )
        return FunctionProcess(
            self._project.data_dir, settings, name="cold-function", restart=False, python=self._python
        )


async def _first_answer(process: ChildProcess | FunctionProcess, port: int, path: str) -> None:
    give_up = time.monotonic() + GIVE_UP_SECONDS
    while await http_status(port, path) != httpx.codes.OK:
        if time.monotonic() > give_up or not process.alive:
            raise EmulatorError(f"no answer on port {port}; the process's log ends:\n{process.log_tail()}")
        await asyncio.sleep(LOOK_SECONDS)


async def _fire(client: httpx.AsyncClient, function: FunctionProcess) -> None:
    answer = await client.post(f"{function.url}/")
    if answer.status_code != httpx.codes.OK or answer.json()["status"] != "succeeded":
        raise EmulatorError(f"the night did not succeed: {answer.status_code} {answer.text}")


async def _timed(client: httpx.AsyncClient, function: FunctionProcess) -> float:
    started = time.perf_counter()
    await _fire(client, function)
    return (time.perf_counter() - started) * 1000


COLD_START = Section(
    "cold-start",
    "cold start, a small night, and nothing to do",
    "The function is spawned as it is deployed and asked until it answers GET /health; then a night of 300 mentors with"
    " three types, and the same slot again. To compare: an empty function that imports supabase and FastAPI, and the"
    " good Deno program.",
    require_deno,
    measure,
)
