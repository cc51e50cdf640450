"""Opaque cursors: a position in a list, as text that callers hand back and do not look into."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from uuid import UUID

from shared.errors import RequestError
from shared.invocation_records import Position


def cursor_of_position(position: Position) -> str:
    """The cursor of a place in the list of invocations."""
    return _pack(position.created_at, position.id)


def position_of_cursor(cursor: str) -> Position:
    """The reverse of `cursor_of_position`.

    Raises:
        RequestError: 422 `invalid_field`.
    """
    created_at, invocation_id = _unpack(cursor, 2)
    try:
        moment = datetime.fromisoformat(created_at)
        if moment.tzinfo is None:
            raise _no_cursor()
        return Position(moment.astimezone(UTC).isoformat(), str(UUID(invocation_id)))
    except (ValueError, OverflowError) as error:
        raise _no_cursor() from error


def cursor_of_mentor(user_id: str) -> str:
    """The cursor of a place in the list of mentors: just after this one."""
    return _pack(user_id)


def mentor_of_cursor(cursor: str) -> str:
    """The reverse of `cursor_of_mentor`.

    Raises:
        RequestError: 422 `invalid_field`.
    """
    (user_id,) = _unpack(cursor, 1)
    try:
        return str(UUID(user_id))
    except ValueError as error:
        raise _no_cursor() from error


def _pack(*parts: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def _unpack(cursor: str, length: int) -> list[str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _no_cursor() from error
    if not isinstance(parts, list) or len(parts) != length or not all(isinstance(part, str) for part in parts):
        raise _no_cursor()
    return parts


def _no_cursor() -> RequestError:
    return RequestError(422, "invalid_field", "cursor: expected the next_cursor of the page before", field="cursor")
