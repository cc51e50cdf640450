"""Counts the requests to a project's Data API: a gateway before its gateway, which logs them.

For runs of their own, whose time does not count: it takes some.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.emulator.gateway import find_caddy
from tests.emulator.ports import LOCALHOST, free_port
from tests.emulator.processes import ChildProcess, http_status
from tests.emulator.project import Project

# Headers hold keys, and are left out.
CADDYFILE = """\
{{
	admin off
	persist_config off
	auto_https off
}}

http://{host}:{port} {{
	bind {host}
	log {{
		output file {log} {{
			roll_disabled
		}}
		format filter {{
			wrap json
			request>headers delete
		}}
	}}
	reverse_proxy {host}:{upstream} {{
		header_up Host {{upstream_hostport}}
	}}
}}
"""


class CountingGateway:
    """`async with` starts and stops it; the requests are known when it is over.

    Args:
        project: whose Data API it stands before.
    """

    def __init__(self, project: Project) -> None:
        self._port = free_port()
        folder = project.data_dir.folder("counting-gateway")
        name = f"counting-{uuid.uuid4().hex[:8]}"
        self._log = folder / f"{name}.requests"
        config = folder / f"{name}.Caddyfile"
        config.write_text(
            CADDYFILE.format(host=LOCALHOST, port=self._port, log=self._log, upstream=project.gateway.port),
            encoding="utf-8",
        )
        self._process = ChildProcess(
            name,
            [find_caddy(), "run", "--adapter", "caddyfile", "--config", config],
            data_dir=project.data_dir,
            env={"PATH": "", "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
        )
        self.requests: Counter[str] = Counter()
        """By what was asked for, such as `rpc/scheduler_claim`."""

    @property
    def url(self) -> str:
        """In place of the project's own."""
        return f"http://{LOCALHOST}:{self._port}"

    async def __aenter__(self) -> Self:
        await self._process.start()
        await self._process.until_ready(self._is_ready)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # what it has not written yet it writes before it ends
        await self._process.stop()
        self.requests = count_requests(self._log)

    async def _is_ready(self) -> bool:
        # a path that no client asks for, and that is not counted
        return await http_status(self._port, "/") is not None


def count_requests(log: Path) -> Counter[str]:
    """The requests to the Data API that a log holds, without their queries."""
    uris = (json.loads(line)["request"]["uri"] for line in log.read_text(encoding="utf-8").splitlines())
    paths = (urlsplit(uri).path for uri in uris)
    return Counter(path.removeprefix("/rest/v1/") for path in paths if path.startswith("/rest/v1/"))
