"""Counts the requests to a project's Data API: a gateway before its gateway, which logs them.

For runs of their own, whose time does not count: it takes some.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.emulator.gateway import GLOBAL_OPTIONS, CaddyProcess
from tests.emulator.ports import LOCALHOST, free_port
from tests.emulator.project import Project

# Headers hold keys, and are left out.
CADDYFILE = (
    GLOBAL_OPTIONS
    + """\
http://{host}:{port} {{
	bind {host}
	log {{
		output file {log}
		format filter {{
			request>headers delete
		}}
	}}
	reverse_proxy {host}:{upstream}
}}
"""
)
DATA_API = "/rest/v1/"
# It writes its log to the end before it ends.
STOP_SECONDS = 5


@dataclass(frozen=True)
class CountingGateway:
    """In place of the project's own URL; the requests are known once it is over, by `rpc/scheduler_claim` and such."""

    url: str
    requests: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def counting_gateway(project: Project) -> AsyncIterator[CountingGateway]:
    port = free_port()
    log = project.data_dir.folder("counting-gateway") / f"{port}.requests"
    text = CADDYFILE.format(host=LOCALHOST, port=port, log=log, upstream=project.gateway.port)
    # "/" is a path that no client requests, and that is not counted
    process = CaddyProcess(project.data_dir, f"counting-{port}", port, text, "/")
    gateway = CountingGateway(process.url)
    await process.start()
    try:
        yield gateway
    finally:
        await process.stop(STOP_SECONDS)
    paths = [urlsplit(json.loads(line)["request"]["uri"]).path for line in log.read_text().splitlines()]
    gateway.requests.update(path.removeprefix(DATA_API) for path in paths if path.startswith(DATA_API))
