"""The engine's HTTP face: `POST /v1/evaluations` and `GET /health`."""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .contract import EvaluationCall
from .outbox import DatabaseRefusedError, DatabaseUnavailableError, Outbox

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 1024 * 1024


class CallRefusedError(Exception):
    """A call that is answered with an error, and what the caller is told about it."""

    def __init__(self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def create_app(*, token: str, database: httpx.AsyncClient) -> Starlette:
    """The engine over this Data API client, which it closes when it stops."""
    outbox = Outbox(database)

    async def evaluations(request: Request) -> Response:
        _require_token(request, token)
        call = _parsed(await _bounded_body(request))
        try:
            results = await outbox.evaluate(call)
        except DatabaseUnavailableError as exc:
            logger.warning("evaluation not possible now: %s", exc)
            raise CallRefusedError(
                503, "database_unavailable", "the engine cannot reach its database", headers={"retry-after": "1"}
            ) from exc
        except DatabaseRefusedError as exc:
            logger.error("evaluation failed: %s", exc)
            raise CallRefusedError(500, "internal_error", "the engine could not evaluate this call") from exc
        # Already the JSON array of the contract: decoding it only to encode it again would be the costliest step here.
        return Response(b'{"results":' + results + b"}", media_type="application/json")

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with database:
            yield

    return Starlette(
        routes=[
            Route("/v1/evaluations", evaluations, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ],
        exception_handlers={
            CallRefusedError: _answer_refusal,
            HTTPException: _answer_routing_error,
            ClientDisconnect: _answer_nobody,
        },
        lifespan=lifespan,
    )


def _require_token(request: Request, token: str) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Compared as bytes: a header may hold any byte, and compare_digest refuses text beyond ASCII.
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not right:
        raise CallRefusedError(
            401, "unauthorized", "a known bearer token is required", headers={"www-authenticate": "Bearer"}
        )


async def _bounded_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise CallRefusedError(
                413,
                "body_too_large",
                f"the body is larger than {MAX_BODY_BYTES} bytes",
                headers={"connection": "close"},
            )
    return bytes(body)


def _parsed(body: bytes) -> EvaluationCall:
    try:
        return EvaluationCall.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise CallRefusedError(400, "malformed_json", first["msg"]) from exc
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise CallRefusedError(422, "invalid_call", f"{where}: {first['msg']}") from exc


async def _answer_refusal(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, CallRefusedError)
    return JSONResponse({"error": {"code": exc.code, "message": str(exc)}}, exc.status, exc.headers)


async def _answer_routing_error(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    code = exc.detail.lower().replace(" ", "_")
    return JSONResponse({"error": {"code": code, "message": exc.detail}}, exc.status_code, exc.headers)


async def _answer_nobody(_: Request, __: Exception) -> Response:
    """The caller went away while sending its body: nothing was evaluated, and nobody reads this."""
    return Response(status_code=400)
