"""The outermost layer: who may call, how much may be sent, and what an error looks like.

It stands before the routes, so that a stranger learns nothing but that he is one.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.auth import Role, TokenCheck
from shared.errors import RequestError
from shared.observability import log_event, log_exception, start_trace, trace_id

MAX_BODY_BYTES = 1024 * 1024
OPEN_PATHS = frozenset({"/health"})


class Border:
    """An ASGI layer that lets known callers with a readable body pass, and answers for whatever fails behind it.

    Args:
        app: the application behind it.
        tokens: who is known.
    """

    def __init__(self, app: ASGIApp, tokens: TokenCheck) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        start_trace(request.headers.get("traceparent"))
        try:
            self._check_caller(request)
            body = await _read_body(request)
            _check_media_type(request, body)
            await self._app(scope, _replay(body, receive), send)
        except RequestError as error:
            answer = problem(error.status, error.code, error.detail, field=error.field, headers=error.headers)
            await answer(scope, receive, send)
        except ClientDisconnect:
            log_event("caller_left", "The caller left before the request was read")
        except Exception as error:  # the border at which a defect of ours becomes an answer
            log_exception("internal_error", "A defect: this request was answered with 500", error)
            answer = problem(500, "internal_error", f"an error of ours; the log has it under trace id {trace_id()}")
            await answer(scope, receive, send)

    def _check_caller(self, request: Request) -> None:
        path = request.url.path
        if path in OPEN_PATHS:
            return
        role = self._tokens.role_of(request.headers.get("authorization"))
        if role is None:
            log_event("caller_refused", "A caller without a known token was refused", path=path[:200])
            raise RequestError(
                401,
                "unauthorized",
                "expected Authorization: Bearer with a known token",
                headers={"WWW-Authenticate": 'Bearer realm="scheduler"'},
            )
        if role is Role.INVOKE and (request.method, path) != ("POST", "/"):
            raise RequestError(403, "forbidden", "this token may only POST /; an admin token is needed here")


async def _read_body(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise RequestError(413, "body_too_large", f"expected a body of at most {MAX_BODY_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _check_media_type(request: Request, body: bytes) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and media_type != "application/json" and not media_type.endswith("+json"):
        raise RequestError(
            415, "unsupported_media_type", f"expected Content-Type: application/json, found {media_type or 'none'}"
        )


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands out the body once more, and then whatever the server says."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return unread.pop() if unread else await receive()

    return replayed


def problem(
    status: int, code: str, detail: str, *, field: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An RFC 9457 answer.

    Args:
        status: the HTTP status.
        code: a stable, machine-readable name of the problem.
        detail: what was expected and what was found; never an internal message.
        field: the member, header or parameter at fault, if one is.
        headers: headers that belong to the answer.
    """
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    if field is not None:
        content["field"] = field
    return JSONResponse(content, status, headers, media_type="application/problem+json")
