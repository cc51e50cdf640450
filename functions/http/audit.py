"""`/api/v1/scheduler-audit`: who changed what, and when."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from functions.http import schemas
from functions.http.cursors import cursor_of, position_of_cursor
from functions.http.dependencies import TOKEN, Connected
from functions.http.problems import problems

router = APIRouter(
    prefix="/api/v1/scheduler-audit", tags=["audit"], dependencies=[TOKEN], responses=problems(400, 401, 403, 500, 503)
)


@router.get("", responses=problems(422))
async def list_audit(services: Connected, query: Annotated[schemas.AuditQuery, Query()]) -> schemas.AuditPage:
    """Lists what people and clients changed, the newest first. Entries written meanwhile do not move a cursor."""
    entries = await services.runs.audit(
        invocation_id=str(query.invocation_id) if query.invocation_id else None,
        actor=query.actor,
        action=query.action,
        limit=query.limit + 1,  # to learn whether another page follows
        after=position_of_cursor(query.cursor) if query.cursor is not None else None,
    )
    page = list(entries[: query.limit])
    following = cursor_of(page[-1].at.isoformat(), str(page[-1].id)) if len(entries) > len(page) else None
    return schemas.AuditPage(data=page, pagination=schemas.Pagination(limit=query.limit, next_cursor=following))
