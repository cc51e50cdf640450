"""A night on the real stack against the fast engine: what the whole function makes of the time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil

from tests.emulator.project import Project

LATENCY_SECONDS = 0.02
IN_FLIGHT = 64


@dataclass(frozen=True)
class NightFigures:
    """Of one run."""

    wall_seconds: float
    evaluations: int
    share_of_ideal: float
    peak_megabytes: float


async def measure_night(project: Project, engine_url: str, *, mentors: int, users_per_call: int) -> NightFigures:
    """One scheduled run over HTTP, from the call to the recorded end."""
    await project.seed(mentors)
    await project.make_slot_due()
    slot = datetime.now(UTC) - timedelta(minutes=1)
    function = await project.start_function(
        {
            "EVALUATION_SCHEDULE": f"{slot.minute} {slot.hour} * * *",
            "ENGINE_USERS_PER_CALL": str(users_per_call),
            "ENGINE_MAX_CONCURRENCY": str(IN_FLIGHT),
            "TIME_BUDGET_SECONDS": "600",
            "BATCH_VISIBILITY_SECONDS": "700",
        },
        engine_url=engine_url,
    )
    async with httpx.AsyncClient(trust_env=False, timeout=700) as client:
        await client.get(f"{function.url}/health")
        started = time.perf_counter()
        answer = await client.post(f"{function.url}/", headers={"Authorization": f"Bearer {project.invoke_token}"})
        wall = time.perf_counter() - started
    invocation = answer.json()
    if answer.status_code != 200 or invocation["status"] != "succeeded":
        raise RuntimeError(f"the run did not succeed: {answer.status_code} {invocation}")
    workers = psutil.Process(function.pid).children(recursive=True)
    peak = max(_peak_megabytes(process.pid) for process in workers)
    await function.stop()
    mentors_evaluated = invocation["counts"]["mentors"]
    ideal = mentors_evaluated / users_per_call * LATENCY_SECONDS / IN_FLIGHT
    return NightFigures(wall, invocation["counts"]["evaluations"], ideal / wall, peak)


def _peak_megabytes(pid: int) -> float:
    """The high-water mark of resident memory that Linux keeps."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
