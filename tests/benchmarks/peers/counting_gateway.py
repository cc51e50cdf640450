"""Counts the requests to a project's Data API: a gateway before its gateway, which logs them.

For runs of their own, whose time does not count: it takes some.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.emulator.gateway import GLOBAL_OPTIONS, find_caddy
from tests.emulator.ports import LOCALHOST, free_port
from tests.emulator.processes import ChildProcess, http_status
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


@dataclass(frozen=True)
class CountingGateway:
    """In place of the project's own URL; the requests are known once it is over, by `rpc/scheduler_claim` and such."""

    url: str
    requests: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def counting_gateway(project: Project) -> AsyncIterator[CountingGateway]:
    """Stands before the project's Data API for as long as the block runs."""
    port = free_port()
    folder = project.data_dir.folder("counting-gateway")
    log, config = folder / f"{port}.requests", folder / f"{port}.Caddyfile"
    config.write_text(CADDYFILE.format(host=LOCALHOST, port=port, log=log, upstream=project.gateway.port))
    command: list[str | Path] = [find_caddy(), "run", "--adapter", "caddyfile", "--config", config]
    env = {"PATH": "", "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    process = ChildProcess(f"counting-{port}", command, data_dir=project.data_dir, env=env)
    gateway = CountingGateway(f"http://{LOCALHOST}:{port}")

    async def is_ready() -> bool:
        # a path that no client asks for, and that is not counted
        return await http_status(port, "/") is not None

    await process.start()
    try:
        await process.until_ready(is_ready)
        yield gateway
    finally:
        # what it has not written yet it writes before it ends
        await process.stop()
    paths = [urlsplit(json.loads(line)["request"]["uri"]).path for line in log.read_text().splitlines()]
    gateway.requests.update(path.removeprefix(DATA_API) for path in paths if path.startswith(DATA_API))
