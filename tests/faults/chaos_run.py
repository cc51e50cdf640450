"""Plays a run that was drawn, and holds the product to its promises."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg

from tests.emulator.function import FunctionProcess
from tests.faults.chaos_plan import ChaosPlan, Fault, Moment, What
from tests.faults.oracle import check_chain, check_promises
from tests.faults.time_control import TimeControl
from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness, Pair, eventually

# Longer than any run takes on a busy machine.
TIMEOUT_SECONDS = 180
# What the function may answer while things break: that it works, and that its database is away.
HONEST_ANSWERS = (200, 202, 503)

# A function that is killed, or is not up yet, answers so.
BROKEN_OFF = (httpx.NetworkError, httpx.RemoteProtocolError)

RUNS = b"select scheduler.describe_invocation(id)::text from public.scheduler_invocations order by invoked_at"
RECORDED = b"select from public.scheduler_invocation_batches where state <> 'open' having count(*) >= %s"
CUT = (
    b"select pg_terminate_backend(pid) from pg_stat_activity"
    b" where datname = current_database() and usename = 'authenticator'"
)
NONE_AT_WORK = (
    b"select where not exists (select from pg_stat_activity"
    b" where datname = current_database() and usename = 'authenticator' and state <> 'idle')"
)
FAILED_TICKS = b"select return_message from cron.job_run_details where status = 'failed'"
BATCHES = (
    b"select invocation_id, batch_no, state, evaluations, deliveries, released_count"
    b" from public.scheduler_invocation_batches order by invocation_id, batch_no"
)
DISPATCHES = b"select id, requested_at::time, ended_at::time, status_code, error from scheduler.dispatches order by id"


@dataclass(frozen=True)
class Played:
    """How the run ended, and the faults that found it under way."""

    status: str
    struck: tuple[Fault, ...]


async def play(drawn: ChaosPlan, harness: Harness) -> Played:
    """From the first tick to the end that the run comes to by itself, and then every promise.

    An error has a note that tells what was drawn, how to have it again, and what happened.
    """
    playing = _Playing(drawn, harness)
    try:
        return await playing.to_the_end()
    except Exception as error:
        error.add_note(await playing.story())
        raise


class _Playing:
    def __init__(self, drawn: ChaosPlan, harness: Harness) -> None:
        self._drawn = drawn
        self._harness = harness
        self._project = harness.project
        self._time = TimeControl(harness)
        self._began = time.monotonic()
        self._events: list[str] = []
        self._struck: dict[Fault, datetime] = {}
        # Requests under way that pg_net does not make.
        self._served: set[asyncio.Task[str]] = set()
        self._away: defaultdict[What, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def to_the_end(self) -> Played:
        await self._prepare()
        faults = [asyncio.create_task(self._when_its_moment_comes(fault)) for fault in self._drawn.faults]
        try:
            run = await self._until_ended()
            self._note(f"the run {run['status']}")
            # Its moment never came: the run was shorter than it might have been.
            for fault, task in zip(self._drawn.faults, faults, strict=True):
                if fault not in self._struck:
                    task.cancel()
            for result in await asyncio.gather(*faults, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result
        finally:
            for task in faults:
                task.cancel()
            await asyncio.gather(*faults, return_exceptions=True)
        await self._until_still()
        await self._check(run)
        ended = datetime.fromisoformat(run["finished_at"])
        return Played(run["status"], tuple(fault for fault, at in self._struck.items() if at < ended))

    async def _prepare(self) -> None:
        drawn, harness = self._drawn, self._harness
        await harness.add_mentors(drawn.mentors)
        undecided, poison = drawn.undecided(harness.mentors), drawn.poison(harness.mentors)
        harness.engine.rules += drawn.engine.rules(drawn.seed, undecided, poison)
        await asyncio.gather(*(harness.start_function(drawn.env) for _ in range(drawn.functions)))
        await self._time.start()
        self._began = time.monotonic()

    async def _until_ended(self) -> dict[str, Any]:
        """Return the first invocation, when nothing is open; no time passes for a function that a fault has called."""
        return await self._time.until_ended(TIMEOUT_SECONDS, self._tolerating_no_database, self._served)

    @contextlib.contextmanager
    def _tolerating_no_database(self) -> Iterator[None]:
        """What we do to a database that was killed is lost, as a tick is. So is what deadlocks with a cancel."""
        try:
            yield
        except psycopg.errors.DeadlockDetected:
            self._note("a shift of time met a deadlock")
        except psycopg.OperationalError as error:
            if self._drawn.kind != "crashes":
                raise
            self._note(f"no database: {type(error).__name__}")

    async def _until_still(self) -> None:
        """What may still be recorded has been, also for a function that was killed meanwhile."""
        await self._time.until_quiet()
        await self._harness.engine.until(lambda engine: engine.in_flight == 0)
        await eventually(lambda: self._harness.rows(NONE_AT_WORK))

    async def _check(self, run: dict[str, Any]) -> None:
        harness = self._harness
        if run["status"] == "cancelled":
            # It may have been cancelled before all mentors were read: only with its retry it is about all of them.
            pairs = await check_chain(harness, [run, *await self._take_up(run)])
        else:
            pairs = await check_promises(harness, run)
        poison = self._drawn.poison(harness.mentors)
        expected = {pair: "failed" if pair[0] in poison else out for pair, out in harness.expected_pairs().items()}
        assert pairs == expected, _differences(pairs, expected)
        assert [one["trigger"] for one in await harness.invocations()][:2] in (["schedule"], ["schedule", "retry"])
        assert await harness.rows(FAILED_TICKS) == [] or self._drawn.kind == "crashes"
        lines = [line for function in self._project.functions for line in harness.log_lines(function)]
        assert [line for line in lines if line["event"] in ("internal_error", "database_refused")] == []

    async def _take_up(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        """The retry of a run that was cancelled, ended; none where nothing was left unfinished."""
        counts = (await self._harness.describe(run["id"]))["counts"]
        answer = await self._until_answered(lambda caller: caller.ask({"retry_of": run["id"]}, key="taken-up-again"))
        if answer.status_code == 409:
            assert (answer.json()["code"], counts["failed"] + counts["not_evaluated"]) == ("nothing_to_retry", 0)
            return []
        assert answer.is_success, answer.text
        await self._until_ended()
        await self._until_still()
        return [await self._harness.describe(answer.json()["id"])]

    async def _when_its_moment_comes(self, fault: Fault) -> None:
        await self._until(fault.moment)
        self._struck[fault] = datetime.now(UTC)
        self._note(f"{fault.what} begins")
        with self._tolerating_no_database():
            await self._strike(fault)
        self._note(f"{fault.what} is over")

    async def _until(self, moment: Moment) -> None:
        if moment.batches:
            await eventually(lambda: self._are_recorded(moment.batches), within=TIMEOUT_SECONDS)
        await self._harness.engine.until(
            lambda engine: len(engine.calls) >= moment.calls, timeout_seconds=TIMEOUT_SECONDS
        )
        # The one sleep that is right: between two events lie all the moments that no test names.
        await asyncio.sleep(moment.seconds_later)

    async def _are_recorded(self, batches: int) -> bool:
        found: list[tuple[Any, ...]] = []
        with self._tolerating_no_database():
            found = await self._harness.rows(RECORDED, [batches])
        return found != []

    async def _strike(self, fault: Fault) -> None:
        function = self._project.functions[fault.function]
        match fault.what:
            case "kill":
                await function.kill()
            case "connections_cut":
                async with self._project.connect(superuser=True) as connection:
                    await connection.execute(CUT)
            case "fire":
                await self._fire(function, fault.times)
            case "dispatch":
                ticks = (self._harness.execute(b"select scheduler.dispatch()") for _ in range(fault.times))
                await asyncio.gather(*ticks)
            case "time_passes":
                # Under workers that live: what they have in hand becomes visible to others.
                await self._time.let_time_pass()
            case "cancel":
                await self._cancel()
            case _:
                # What is taken away twice at a time comes back once.
                async with self._away[fault.what]:
                    await self._take_away(fault)

    async def _take_away(self, fault: Fault) -> None:
        project, engine = self._project, self._harness.engine
        stop, start = {
            "postgrest_away": (project.postgrest.kill, project.postgrest.start),
            "gateway_away": (project.gateway.kill, project.gateway.start),
            "engine_away": (engine.stop, engine.start),
            "postgres_crash": (project.server.kill, project.server.start),
        }[fault.what]
        await stop()
        await asyncio.sleep(fault.seconds)
        await start()
        if fault.what == "postgres_crash":
            await eventually(project.postgrest.is_ready)

    async def _fire(self, function: FunctionProcess, times: int) -> None:
        served = [asyncio.create_task(self._fire_once(function)) for _ in range(times)]
        self._served.update(served)
        try:
            self._note(f"fire was answered {', '.join(await asyncio.gather(*served))}")
        finally:
            self._served.difference_update(served)

    async def _fire_once(self, function: FunctionProcess) -> str:
        try:
            answer = await self._harness.fire(function)
        except BROKEN_OFF as error:
            return type(error).__name__
        assert answer.status_code in HONEST_ANSWERS, (answer.status_code, answer.text)
        return str(answer.status_code)

    async def _cancel(self) -> None:
        run, *_ = await eventually(self._harness.invocations, within=TIMEOUT_SECONDS)
        answer = await self._until_answered(lambda caller: caller.cancel(run["id"]))
        self._note(f"cancel was answered {answer.status_code}")
        assert answer.is_success or answer.json()["code"] == "already_ended", answer.text

    async def _until_answered(self, ask: Callable[[Caller], Awaitable[httpx.Response]]) -> httpx.Response:
        """An operator's request, made again until a function is there for it."""
        caller = Caller(self._harness, self._project.functions[0])
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while True:
                with contextlib.suppress(*BROKEN_OFF):
                    answer = await ask(caller)
                    if answer.status_code != 503:
                        return answer
                await asyncio.sleep(0.05)

    def _note(self, event: str) -> None:
        self._events.append(f"{time.monotonic() - self._began:8.3f} s  {event}")

    async def story(self) -> str:
        """What was drawn, what happened, and what is in the tables and at the ends of the logs now."""
        parts = [str(self._drawn), *self._events]
        with contextlib.suppress(psycopg.Error):
            parts += [str(row) for query in (RUNS, BATCHES, DISPATCHES) for row in await self._harness.rows(query)]
        parts += [f"{function.name}, at its end:\n{function.log_tail()}" for function in self._project.functions]
        return "\n".join(parts)


def _differences(pairs: Mapping[Pair, str], expected: Mapping[Pair, str]) -> str:
    wrong = Counter(
        f"{pairs.get(pair)} in place of {expected.get(pair)}"
        for pair in pairs.keys() | expected.keys()
        if pairs.get(pair) != expected.get(pair)
    )
    return ", ".join(f"{times} times {what}" for what, times in wrong.items())
