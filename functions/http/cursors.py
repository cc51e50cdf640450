"""Opaque cursors: a position in a list, as text that callers send back and do not look into."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from functions.http.schemas import Id, Moment
from shared.errors import RequestError
from shared.invocation_records import Position

_POSITION = TypeAdapter[tuple[datetime, UUID]](tuple[Moment, Id])
_MENTOR = TypeAdapter[tuple[UUID]](tuple[Id])


def cursor_of(*place: str) -> str:
    """Returns the cursor of a place: time and id of an invocation, or the id of a mentor."""
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def position_of_cursor(cursor: str) -> Position:
    """Returns the place in the list of invocations; raises RequestError (422 `invalid_field`) where it is none."""
    created_at, invocation_id = _unpack(cursor, _POSITION)
    return Position(created_at.isoformat(), str(invocation_id))


def mentor_of_cursor(cursor: str) -> str:
    """Returns the place in the list of mentors; raises RequestError (422 `invalid_field`) where it is none."""
    return str(_unpack(cursor, _MENTOR)[0])


def _unpack(cursor: str, place: TypeAdapter[Any]) -> Any:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return place.validate_json(base64.b64decode(padded, altchars=b"-_", validate=True))
    except ValueError as error:
        detail = "cursor: expected the next_cursor of the page before"
        raise RequestError(422, "invalid_field", detail, field="cursor") from error
