"""What a serverless platform has in front of a function's instances: one URL, and one request at a time for each."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .data_dir import DataDir, write_private
from .gateway import GLOBAL_OPTIONS, find_caddy
from .ports import LOCALHOST, free_port
from .processes import ChildProcess, http_status

# An instance that is busy is passed over, and one that refuses connections is not asked again for a moment; who finds
# none waits for one, as requests do that wait for an instance to start.
CADDYFILE = (
    GLOBAL_OPTIONS
    + """\

http://{host}:{port} {{
	bind {host}
	handle /balancer {{
		respond 200
	}}
	handle {{
		reverse_proxy {upstreams} {{
			lb_policy round_robin
			lb_try_duration 30s
			lb_try_interval 20ms
			fail_duration 200ms
			unhealthy_request_count 1
		}}
	}}
}}
"""
)
READY = 200


class LoadBalancer(ChildProcess):
    """Sends each request to an instance that has none, in turn.

    Args:
        data_dir: where its settings and its log go.
        ports: of the instances, which need not be up yet.
        name: of its log.
    """

    def __init__(self, data_dir: DataDir, ports: Sequence[int], *, name: str = "load-balancer") -> None:
        self.port = free_port()
        home = data_dir.folder(name)
        config = home / "Caddyfile"
        upstreams = " ".join(f"{LOCALHOST}:{port}" for port in ports)
        write_private(config, CADDYFILE.format(host=LOCALHOST, port=self.port, upstreams=upstreams))
        super().__init__(
            name,
            [find_caddy(), "run", "--adapter", "caddyfile", "--config", config],
            data_dir=data_dir,
            env={"PATH": os.defpath, "HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home)},
        )

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://{LOCALHOST}:{self.port}"

    async def is_ready(self) -> bool:
        return await http_status(self.port, "/balancer") == READY

    async def stop(self, timeout_seconds: float = 1) -> None:
        await super().stop(timeout_seconds)
