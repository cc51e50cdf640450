"""Calls a fake engine through one HTTP client and writes what that took.

`client_calls.py CLIENT URL CALLS IN_FLIGHT RESULT`: CLIENT is `module:class`, a `PostClient`. Each client gets its own
process: imports and memory are its own as well.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.post_client import PostClient

HEADERS = {"Authorization": "Bearer not-a-secret", "Content-Type": "application/json", "Accept": "application/json"}
# Changes with every call of the product.
CALL_HEADERS = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
# About one user and one type, and all of them different.
BODY = (
    b'{"invocation_id":"00000000-0000-0000-0000-000000000000","scheduled_for":"2026-01-01T02:00:00+00:00",'
    b'"dry_run":false,"evaluations":[{"user_id":"%08x-0000-4000-8000-000000000000",'
    b'"scenario_types":["inactivity"],"idempotency_key_prefix":"benchmark:%08x"}]}'
)


async def call_all(client: PostClient, bodies: Iterator[bytes], in_flight: int) -> None:
    async def worker() -> None:
        for body in bodies:
            answer = await client.post(body, CALL_HEADERS, timeout_seconds=60, max_bytes=2**20)
            if answer.status != 200 or not answer.content:
                raise RuntimeError(f"expected 200 and a body, found {answer.status}")

    async with asyncio.TaskGroup() as workers:
        for _ in range(in_flight):
            workers.create_task(worker())


async def measure(client: PostClient, calls: int, in_flight: int) -> dict[str, float]:
    """Returns seconds and CPU seconds of all threads, after a first call on each connection."""
    bodies = [BODY % (number, number) for number in range(calls + in_flight)]
    await call_all(client, iter(bodies[:in_flight]), in_flight)
    cpu, started = time.process_time(), time.perf_counter()
    await call_all(client, iter(bodies[in_flight:]), in_flight)
    return {"wall_seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


def main(client_name: str, url: str, calls: int, in_flight: int, result: Path) -> None:
    module, _, name = client_name.partition(":")
    started = time.perf_counter()
    connect = getattr(importlib.import_module(module), name)
    imported = time.perf_counter() - started
    import uvloop  # as the product's server does; after the clock

    figures = uvloop.run(measure(connect(url, HEADERS, connect_seconds=5), calls, in_flight))
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    assert peak is not None
    figures |= {"import_seconds": imported, "peak_megabytes": int(peak.group(1)) / 1024}
    result.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
