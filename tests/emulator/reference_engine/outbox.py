"""The engine's one way into the database: public.evaluate_scenarios over the Data API, once per call."""

from __future__ import annotations

import asyncio

import httpx

from .contract import EvaluationCall

RPC_TIMEOUT_SECONDS = 10.0

# The Data API answers from a pool of ten connections that it shares with the scheduler, and refuses what waits too long
# for one. Calls beyond these wait here, where waiting costs nothing.
MAX_CALLS_IN_FLIGHT = 4


class DatabaseUnavailableError(Exception):
    """The Data API did not answer, or said that it cannot: the same call may work in a moment."""


class DatabaseRefusedError(Exception):
    """The Data API answered that this call is wrong (no rights, no such function): repeating it will not help."""


class Outbox:
    """Decides pairs and queues notifications. No retries: the scheduler owns them."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._in_flight = asyncio.Semaphore(MAX_CALLS_IN_FLIGHT)

    async def evaluate(self, call: EvaluationCall) -> bytes:
        """The JSON array of results, in the order of the call's pairs."""
        pairs = [(item, scenario_type) for item in call.evaluations for scenario_type in item.scenario_types]
        arguments = {
            "user_ids": [str(item.user_id) for item, _ in pairs],
            "scenario_types": [scenario_type for _, scenario_type in pairs],
            "idempotency_keys": [f"{item.idempotency_key_prefix}:{scenario_type}" for item, scenario_type in pairs],
            "dry_run": call.dry_run,
        }
        try:
            async with self._in_flight:
                response = await self._client.post("rpc/evaluate_scenarios", json=arguments)
        except httpx.TransportError as exc:
            raise DatabaseUnavailableError(f"no answer from the Data API: {type(exc).__name__}") from exc
        if response.is_success:
            return response.content
        problem = f"the Data API answered {response.status_code} ({_postgrest_code(response)})"
        if response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise DatabaseUnavailableError(problem)
        raise DatabaseRefusedError(problem)


def data_api_client(supabase_url: str, secret_key: str) -> httpx.AsyncClient:
    """A client for the project's Data API. Its opaque keys are no JWTs and belong on `apikey` alone."""
    headers = {"apikey": secret_key}
    if secret_key.startswith("eyJ"):
        headers["authorization"] = f"Bearer {secret_key}"
    return httpx.AsyncClient(
        base_url=f"{supabase_url.rstrip('/')}/rest/v1/",
        headers=headers,
        timeout=RPC_TIMEOUT_SECONDS,
    )


def _postgrest_code(response: httpx.Response) -> str:
    """The error's code alone: its message may quote rows."""
    try:
        return str(response.json()["code"])
    except (ValueError, KeyError, TypeError):
        return "no code"
