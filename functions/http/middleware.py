"""What every request passes before it is routed: trace context, header fields, tokens, body limit; and last errors.

Tokens are checked before a route is matched, so unauthenticated callers only ever see a 401. A body is read only by
a route that needs one; the server discards any other after the answer.
"""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions.http.dashboard import PATHS as DASHBOARD_PATHS
from functions.http.problems import to_response
from shared.auth import Caller, Role, TokenCheck
from shared.errors import RequestError, UnknownCallerError
from shared.logs import log_event, start_trace
from shared.sanitize import sanitize
from shared.sign_in import SignIn

MAX_BODY_BYTES = 1024 * 1024
_JSON = re.compile(r"application/([a-z0-9][a-z0-9!#$&^_.-]*\+)?json")
STATIC_PATHS = frozenset({"/openapi.json", "/docs", *DASHBOARD_PATHS})
OPEN_PATHS = STATIC_PATHS | {"/health", "/health/last-run"}
# Fields of one value: two different ones have no meaning. All others are lists, or ignored when they are not.
SINGLE_FIELDS = (
    *("Authorization", "Content-Type", "Content-Encoding", "Idempotency-Key"),
    *("X-CloudScheduler-ScheduleTime", "X-Scheduler-Dispatch"),
)
# Of every answer but the static ones, which set their own: any other may hold user ids, or repeat a caller's text.
PRIVATE_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class RequestGate:
    """An ASGI middleware that lets known callers pass, and answers for errors that no handler took."""

    def __init__(self, app: ASGIApp, tokens: TokenCheck, sign_in: SignIn | None = None) -> None:
        self._app = app
        self._tokens = tokens
        self._sign_in = sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_static = scope["path"] in STATIC_PATHS
        has_begun = has_ended = False

        async def send_on(message: Message) -> None:
            nonlocal has_begun, has_ended
            if message["type"] == "http.response.start" and not (is_static and message["status"] < 400):
                MutableHeaders(scope=message).update(PRIVATE_HEADERS)
            has_begun = True
            has_ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        headers = Headers(scope=scope)
        start_trace(headers.get("traceparent"), headers.get("x-cloud-trace-context"))
        try:
            headers = _combine(headers)
            caller = await self._check_caller(scope, headers)
            # HEAD is served wherever GET is: the server leaves the body out.
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            state = {**scope.get("state", {}), "caller": caller}
            routed = {**scope, "method": method, "headers": headers.raw, "state": state}
            await self._app(routed, _limit_body(receive, headers), send_on)
        except ClientDisconnect:
            log_event("client_disconnected", "The caller left before the request was read")
        except Exception as error:  # any exception, defects included, becomes an answer here
            answer = to_response(error)
            if not has_begun:
                await answer(scope, receive, send_on)
            elif not has_ended:
                raise  # the server closes the connection, so the caller sees that the answer is not whole

    async def _check_caller(self, scope: Scope, headers: Headers) -> Caller | None:
        # Not request.url.path: what that is made of includes the Host header and the query, which a caller can garble.
        path: str = scope["path"]
        # Always first, and of all known tokens: what follows depends on the presented token alone.
        caller = self._tokens.caller_of(headers.get("authorization"))
        if path in OPEN_PATHS:
            return caller
        refusal = "expected Authorization: Bearer with a known token"
        if caller is None and self._sign_in is not None:
            try:
                caller = await self._sign_in.caller_of(headers.get("authorization"))
            except UnknownCallerError as error:
                refusal = str(error)
        if caller is None:
            # The address is personal data and is not logged.
            log_event("caller_refused", "A caller without a known token was refused", path=sanitize(path))
            raise RequestError(401, "unauthorized", refusal, headers={"WWW-Authenticate": 'Bearer realm="scheduler"'})
        if caller.role is Role.INVOKE and (scope["method"], path) != ("POST", "/"):
            raise RequestError(403, "forbidden", "this token may only POST /; an admin token is needed here")
        if caller.role is Role.VIEWER and scope["method"] not in ("GET", "HEAD"):
            raise RequestError(403, "forbidden", "a viewer may only GET and HEAD; the role operator is needed here")
        return caller


def _combine(headers: Headers) -> Headers:
    """Returns the fields with the lines of each name as one (RFC 9110, 5.3); equal lines count once."""
    lines: dict[bytes, dict[bytes, None]] = {}
    for name, value in headers.raw:
        lines.setdefault(name, {})[value] = None
    for field in SINGLE_FIELDS:
        if len(lines.get(field.lower().encode(), ())) > 1:
            raise RequestError(400, "repeated_header", f"{field}: expected one value, found several", field=field)
    return Headers(raw=[(name, b", ".join(values)) for name, values in lines.items()])


def _limit_body(receive: Receive, headers: Headers) -> Receive:
    """Returns a `receive` that refuses what is no JSON, and what is longer than `MAX_BODY_BYTES`."""
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        if body := message.get("body"):
            if size == 0:
                _check_media_type(headers)
            size += len(body)
            if size > MAX_BODY_BYTES:
                raise RequestError(413, "body_too_large", f"expected a body of at most {MAX_BODY_BYTES} bytes")
        return message

    return limited


def _check_media_type(headers: Headers) -> None:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not _JSON.fullmatch(media_type):
        expected = f"expected Content-Type: application/json, found {media_type or 'none'}"
        raise RequestError(415, "unsupported_media_type", expected)
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        expected = f"expected no Content-Encoding, found {coding or 'none'}"
        raise RequestError(415, "unsupported_media_type", expected)
