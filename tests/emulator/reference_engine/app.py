"""The engine: both protocols' endpoints and `GET /health` in front of public.evaluate_scenarios, once for each call."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID, uuid4

import httpx
from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 1024 * 1024
RPC_TIMEOUT_SECONDS = 10.0
# The Data API answers from a pool of ten connections that it shares with the scheduler, and refuses what waits too long
# for one. Calls beyond these wait here, where waiting costs nothing.
MAX_CALLS_IN_FLIGHT = 4

# PostgreSQL's text cannot hold a NUL, and no honest name or key has control characters.
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")]
MAX_KEY_LENGTH = 400
KeyPrefix = Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH, pattern=r"^[^\x00-\x1f]+$")]


class Evaluation(BaseModel):
    user_id: UUID
    scenario_types: list[Name]
    idempotency_key_prefix: KeyPrefix


class EvaluationCall(BaseModel):
    """`dry_run` has no default: guessing wrong would notify people. Unknown members are ignored."""

    dry_run: bool = Field(strict=True)
    evaluations: list[Evaluation]


class SingleCall(BaseModel):
    """A call about one pair. Unknown members are ignored."""

    user_id: UUID
    scenario_type: Name
    dry_run: bool = Field(strict=True)


Model = TypeVar("Model", EvaluationCall, SingleCall)


class RefusedError(HTTPException):
    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.code = code


def create_app() -> Starlette:
    """Builds the engine of the environment's `SUPABASE_URL`, `SUPABASE_SECRET_KEY` and `SCENARIO_ENGINE_TOKEN`."""
    token = os.environ["SCENARIO_ENGINE_TOKEN"]
    database = httpx.AsyncClient(
        base_url=f"{os.environ['SUPABASE_URL'].rstrip('/')}/rest/v1/",
        # opaque keys are no JWTs and belong on `apikey` alone
        headers={"apikey": os.environ["SUPABASE_SECRET_KEY"]},
        timeout=RPC_TIMEOUT_SECONDS,
    )
    in_flight = asyncio.Semaphore(MAX_CALLS_IN_FLIGHT)

    async def evaluations(request: Request) -> Response:
        _require_token(request, token)
        call = _parsed(EvaluationCall, await _bounded_body(request))
        async with in_flight:
            results = await _evaluated(call, database)
        # Already the JSON array of the contract: decoding it only to encode it again would be the costliest step here.
        return Response(b'{"results":' + results + b"}", media_type="application/json")

    async def evaluation(request: Request) -> Response:
        _require_token(request, token)
        call = _parsed(SingleCall, await _bounded_body(request))
        suffix = f":{call.scenario_type}"
        key = request.headers.get("idempotency-key") or f"{uuid4()}{suffix}"
        prefix = key.removesuffix(suffix)
        if not key.endswith(suffix) or not 1 <= len(prefix) <= MAX_KEY_LENGTH:
            raise RefusedError(422, "invalid_key", f"Idempotency-Key: expected one that ends in {suffix!r}")
        item = Evaluation(user_id=call.user_id, scenario_types=[call.scenario_type], idempotency_key_prefix=prefix)
        async with in_flight:
            results = await _evaluated(EvaluationCall(dry_run=call.dry_run, evaluations=[item]), database)
        return JSONResponse(_decision(json.loads(results)[0]))

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with database:
            yield

    return Starlette(
        routes=[
            Route("/v1/evaluations", evaluations, methods=["POST"]),
            Route("/api/v1/scenario-trigger-evaluations", evaluation, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _answer_error, ClientDisconnect: _answer_disconnect},
        lifespan=lifespan,
    )


async def _evaluated(call: EvaluationCall, database: httpx.AsyncClient) -> bytes:
    """Returns the JSON array of results, in the order of the call's pairs. No retries: the scheduler owns them."""
    pairs = [(item, scenario_type) for item in call.evaluations for scenario_type in item.scenario_types]
    arguments = {
        "user_ids": [str(item.user_id) for item, _ in pairs],
        "scenario_types": [scenario_type for _, scenario_type in pairs],
        "idempotency_keys": [f"{item.idempotency_key_prefix}:{scenario_type}" for item, scenario_type in pairs],
        "dry_run": call.dry_run,
    }
    status: int | None = None
    try:
        response = await database.post("rpc/evaluate_scenarios", json=arguments)
        status = response.status_code
        if response.is_success:
            return response.content
        # Its code alone: its message may quote rows.
        problem = f"the Data API answered {status} ({response.json()['code']})"
    except (httpx.TransportError, ValueError, KeyError, TypeError) as exc:
        problem = f"no answer of the Data API that could be read: {type(exc).__name__}"
    logger.warning("evaluation not possible: %s", problem)
    if status is None or status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS:
        headers = {"retry-after": "1"}
        raise RefusedError(503, "database_unavailable", "the engine cannot reach its database", headers)
    raise RefusedError(500, "internal_error", "the engine could not evaluate this call")


def _require_token(request: Request, token: str) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Compared as bytes: a header may hold any byte, and compare_digest refuses text beyond ASCII.
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not right:
        raise RefusedError(401, "unauthorized", "a known bearer token is required", {"www-authenticate": "Bearer"})


async def _bounded_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            message = f"the body is larger than {MAX_BODY_BYTES} bytes"
            raise RefusedError(413, "body_too_large", message, {"connection": "close"})
    return bytes(body)


def _decision(result: dict[str, Any]) -> dict[str, Any]:
    """Returns a result in the shape of a `single` answer, which knows no `suppressed`; raises a failure."""
    if result["outcome"] == "failed":
        error = result["error"]
        raise RefusedError(404 if error["code"] == "unknown_user" else 422, error["code"], error["message"])
    return {
        "id": result.get("notification_id") or str(uuid4()),
        "user_id": result["user_id"],
        "scenario_type": result["scenario_type"],
        "should_notify": result["outcome"] == "triggered",
        "evaluated_at": datetime.now(UTC).isoformat(),
        "evaluation_metadata": {"outcome": result["outcome"]},
    }


def _parsed(model: type[Model], body: bytes) -> Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise RefusedError(400, "malformed_json", first["msg"]) from exc
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise RefusedError(422, "invalid_call", f"{where}: {first['msg']}") from exc


async def _answer_error(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    code = exc.code if isinstance(exc, RefusedError) else exc.detail.lower().replace(" ", "_")
    return JSONResponse({"error": {"code": code, "message": exc.detail}}, exc.status_code, exc.headers)


async def _answer_disconnect(_: Request, __: Exception) -> Response:
    """The caller went away while sending its body: nothing was evaluated."""
    return Response(status_code=400)
