"""Cursors: places in a list, encoded; opaque to callers."""

import base64
import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import StringConstraints, TypeAdapter

from shared.errors import RequestError
from shared.invocation import Id, Moment
from shared.run_repository import Pair, Position

_POSITION = TypeAdapter[tuple[datetime, UUID]](tuple[Moment, Id])
_MENTOR = TypeAdapter[tuple[UUID]](tuple[Id])
_PAIR = TypeAdapter[tuple[UUID, str]](
    tuple[Id, Annotated[str, StringConstraints(max_length=100, pattern=r"^[^\x00]*$")]]
)


def cursor_of(*place: str) -> str:
    """Returns the cursor of a place: of an invocation, a mentor, or a pair of mentor and scenario type."""
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def position_of_cursor(cursor: str) -> Position:
    """Returns a place in the list of invocations, or in the audit.

    Raises RequestError (422 `invalid_field`), as all of these.
    """
    invoked_at, invocation_id = _unpack(cursor, _POSITION)
    return Position(invoked_at.isoformat(), str(invocation_id))


def mentor_of_cursor(cursor: str) -> str:
    """Returns a place in the list of mentors."""
    return str(_unpack(cursor, _MENTOR)[0])


def pair_of_cursor(cursor: str) -> Pair:
    """Returns a place in the results of a run."""
    return Pair(*_unpack(cursor, _PAIR))


def _unpack(cursor: str, place: TypeAdapter[Any]) -> Any:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return place.validate_json(base64.b64decode(padded, altchars=b"-_", validate=True))
    except ValueError as error:
        detail = "cursor: expected the next_cursor of the page before"
        raise RequestError(422, "invalid_field", detail, field="cursor") from error
