"""What a serverless platform has in front of a function's instances: one URL, and one request at a time for each."""

from __future__ import annotations

from collections.abc import Sequence

from .data_dir import DataDir
from .gateway import GLOBAL_OPTIONS, CaddyProcess
from .ports import LOCALHOST, free_port

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


class LoadBalancer(CaddyProcess):
    """Sends each request to an instance that has none, in turn; they need not be up yet."""

    def __init__(self, data_dir: DataDir, ports: Sequence[int], *, name: str = "load-balancer") -> None:
        port = free_port()
        upstreams = " ".join(f"{LOCALHOST}:{instance}" for instance in ports)
        super().__init__(
            data_dir, name, port, CADDYFILE.format(host=LOCALHOST, port=port, upstreams=upstreams), "/balancer"
        )
