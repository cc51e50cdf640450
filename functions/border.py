"""The outermost layer: who may call, how much may be sent, and what becomes of an error.

It stands before the routes, so that a stranger learns nothing but that he is one.
"""

from __future__ import annotations

import logging
import re

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.caller_address import caller_address
from functions.dashboard_routes import PATHS as DASHBOARD_PATHS
from functions.error_answers import answer_for
from shared.auth import Role, TokenCheck
from shared.errors import RequestError
from shared.failed_checks import FailedCheckLimit
from shared.foreign_text import printable
from shared.observability import log_event, log_exception, start_trace

MAX_BODY_BYTES = 1024 * 1024
_JSON = re.compile(r"application/([a-z0-9][a-z0-9!#$&^_.-]*\+)?json")
STATIC_PATHS = frozenset({"/openapi.json", "/docs", *DASHBOARD_PATHS})
OPEN_PATHS = STATIC_PATHS | {"/health", "/health/last-run"}
# Of every answer but the static ones, which set their own: any other may hold user ids, or repeat a caller's text.
PRIVATE_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Border:
    """An ASGI layer that lets known callers with a readable body pass, and answers for whatever fails behind it.

    Args:
        app: the application behind it.
        tokens: who is known.
        failed_checks: how many failed checks an address has; by default as `FailedCheckLimit` says.
        trusted_proxy_count: how many proxies in front append to `X-Forwarded-For`.
    """

    def __init__(
        self,
        app: ASGIApp,
        tokens: TokenCheck,
        *,
        failed_checks: FailedCheckLimit | None = None,
        trusted_proxy_count: int = 0,
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._failed_checks = FailedCheckLimit() if failed_checks is None else failed_checks
        self._trusted_proxy_count = trusted_proxy_count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request.

        Raises:
            Exception: whatever failed after the answer had begun. Nothing can be answered then, and the server closes
                the connection, which tells the caller that the answer is not whole.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        sender = _Sender(send, is_static=scope["path"] in STATIC_PATHS)
        start_trace(request.headers.get("traceparent"), request.headers.get("x-cloud-trace-context"))
        try:
            self._check_caller(request)
            body = await _read_body(request)
            _check_media_type(request, body)
            await self._app(scope, _replay(body, receive), sender)
        except ClientDisconnect:
            log_event("caller_left", "The caller left before the request was read")
        except Exception as error:  # whatever it is, a defect of ours included, becomes an answer here
            if sender.has_begun:
                log_exception("internal_error", "A defect: it came after this request's answer had begun", error)
                if not sender.has_ended:
                    raise
                return
            await answer_for(error)(scope, receive, sender)

    def _check_caller(self, request: Request) -> None:
        # Not request.url.path: what that is made of includes the Host header and the query, which a caller can garble.
        path: str = request.scope["path"]
        if path in OPEN_PATHS:
            return
        role = self._tokens.role_of(request.headers.get("authorization"))
        if role is None:
            raise self._refusal(request.scope)
        if role is Role.INVOKE and (request.method, path) != ("POST", "/"):
            raise RequestError(403, "forbidden", "this token may only POST /; an admin token is needed here")

    def _refusal(self, scope: Scope) -> RequestError:
        """The answer to a caller without a known token; the address is personal data and is not logged."""
        verdict = self._failed_checks.count(caller_address(scope, self._trusted_proxy_count))
        path = printable(scope["path"])
        if verdict.retry_after_seconds is None:
            log_event("caller_refused", "A caller without a known token was refused", path=path)
            return RequestError(
                401,
                "unauthorized",
                "expected Authorization: Bearer with a known token",
                headers={"WWW-Authenticate": 'Bearer realm="scheduler"'},
            )
        if verdict.newly_limited:
            log_event(
                "caller_limited",
                "An address has too many failed token checks; its further ones are answered with 429 and not logged",
                level=logging.WARNING,
                path=path,
            )
        return RequestError(
            429,
            "too_many_failed_checks",
            "too many requests without a known token came from this address; one with a known token is served",
            headers={"Retry-After": str(verdict.retry_after_seconds)},
        )


class _Sender:
    """Passes an answer on with `PRIVATE_HEADERS`, unless it is static, and remembers how far it got."""

    def __init__(self, send: Send, *, is_static: bool) -> None:
        self._send = send
        self._is_static = is_static
        self.has_begun = False
        self.has_ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not (self._is_static and message["status"] < 400):
            MutableHeaders(scope=message).update(PRIVATE_HEADERS)
        self.has_begun = True
        self.has_ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)


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
    if not body:
        return
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not _JSON.fullmatch(media_type):
        raise RequestError(
            415, "unsupported_media_type", f"expected Content-Type: application/json, found {media_type or 'none'}"
        )
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise RequestError(415, "unsupported_media_type", f"expected no Content-Encoding, found {coding or 'none'}")


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands out the body once more, and then whatever the server says."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return unread.pop() if unread else await receive()

    return replayed
