"""`POST /`: what pg_cron, Cloud Scheduler and curl call; and whether all is well.

A process that has just started answers these, so they do without FastAPI and the contract's models, whose imports would
take longer than all that a slice needs. What somebody sends is validated by `contract.py` nevertheless, which is
imported once there is something to validate: pg_cron sends nothing but its dispatch. `run_operations.py` describes
these routes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from functions.answered_invocation import answered, answered_time
from functions.last_run import LastGoodRun, default_max_age_hours
from functions.refusals import no_json, not_served, unreadable_body
from functions.scheduled_run import run_slice
from shared.errors import RequestError
from shared.slots import to_slot
from shared.version import VERSION

if TYPE_CHECKING:
    from functions.work import Work

SCHEDULE_TIME_HEADER = "X-CloudScheduler-ScheduleTime"
DISPATCH_HEADER = "X-Scheduler-Dispatch"
# Any bigint but the longest, as PostgreSQL writes it.
_DISPATCH_ID = re.compile(r"[1-9][0-9]{0,17}")


class RunRoutes:
    """An ASGI application of three addresses.

    Args:
        connect: answers what a slice works with; called for each request that needs it, so it should remember.
    """

    def __init__(self, connect: Callable[[], Work]) -> None:
        self._connect = connect
        self._last_good_run = LastGoodRun()
        # HEAD, because uptime monitors like to ask so; the server leaves the body out.
        self._endpoints: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {
            "/": {"POST": self._start},
            "/health": {"GET": self._health, "HEAD": self._health},
            "/health/last-run": {"GET": self._last_run, "HEAD": self._last_run},
        }

    def serve(self, path: str) -> bool:
        """Whether there is something at a path."""
        return path in self._endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request to one of the three.

        Raises:
            RequestError: it is refused.
            DatabaseError: the database is away or refuses.
        """
        request = Request(scope, receive)
        endpoints = self._endpoints[scope["path"]]
        if request.method not in endpoints:
            raise not_served(request.method, endpoints)
        response = await endpoints[request.method](request)
        await response(scope, receive, send)

    async def _start(self, request: Request) -> Response:
        """Opens the slot that is due if nobody has, then works on whatever is open. Answers the latest slot's run."""
        body = _parse(await request.body())
        header = _schedule_time(request)
        dispatch_id = _dispatch_id(request)
        named_in, requested = "scheduled_for", _scheduled_for(body)
        if requested is None:
            named_in, requested = SCHEDULE_TIME_HEADER, header
        ended = await run_slice(
            self._connect(),
            requested_slot=to_slot(requested) if requested else None,
            named_in=named_in,
            dispatch_id=dispatch_id,
        )
        answer: dict[str, Any] = {"status": "idle"}
        if ended.invocation is not None:
            answer = answered(ended.invocation, deduplicated=ended.deduplicated)
        return JSONResponse(answer, 202 if ended.more_to_do else 200)

    async def _health(self, _: Request) -> Response:
        """It is up. Says nothing of the database, the engine or last night."""
        return JSONResponse({"status": "ok", "version": VERSION})

    async def _last_run(self, request: Request) -> Response:
        """The dead-man's check: 503 unless a night ended well in that time. Remembered for half a minute."""
        asked = _max_age_hours(request)
        work = self._connect()
        good = await self._last_good_run.get(work.records.last_good_run)
        found = good.run
        hours = asked or default_max_age_hours(work.config.schedule, good.now)
        if found is None or good.now - datetime.fromisoformat(found["finished_at"]) > timedelta(hours=hours):
            last = f"the last one ended at {found['finished_at']}" if found else "found none at all"
            raise RequestError(
                503, "last_run_missing", f"expected a scheduled run that ended well in the last {hours:g} hours, {last}"
            )
        return JSONResponse(
            {
                "status": "ok",
                "max_age_hours": hours,
                "scheduled_for": answered_time(found["scheduled_for"]),
                "finished_at": answered_time(found["finished_at"]),
                "run_status": found["status"],
            }
        )


def _parse(body: bytes) -> object:
    if not body:
        return None
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise no_json() from error
    except (ValueError, RecursionError) as error:
        raise unreadable_body() from error


def _scheduled_for(body: object) -> datetime | None:
    if body is None or body == {}:
        return None
    from functions.contract import StartRequest, checked

    start: StartRequest = checked(StartRequest, body)
    return start.scheduled_for


def _schedule_time(request: Request) -> datetime | None:
    text = request.headers.get(SCHEDULE_TIME_HEADER)
    if text is None:
        return None
    from functions.contract import Moment, checked

    moment: datetime = checked(Moment, text, sent_as=SCHEDULE_TIME_HEADER)
    return moment


def _dispatch_id(request: Request) -> int | None:
    text = request.headers.get(DISPATCH_HEADER)
    if text is None:
        return None
    if _DISPATCH_ID.fullmatch(text):
        return int(text)
    from functions.contract import DispatchId, checked

    dispatch_id: int = checked(DispatchId, text, sent_as=DISPATCH_HEADER)
    return dispatch_id


def _max_age_hours(request: Request) -> float | None:
    text = request.query_params.get("max_age_hours")
    if text is None:
        return None
    from functions.contract import MaxAgeHours, checked

    hours: float = checked(MaxAgeHours, text, sent_as="max_age_hours")
    return hours
