"""What an error looks like: RFC 9457 `application/problem+json`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from shared.foreign_text import printable

# Our own words around one piece of a caller's text.
MAX_DETAIL_LENGTH = 400
MAX_FIELD_LENGTH = 200


def problem(
    status: int, code: str, detail: str, *, field: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An RFC 9457 answer, whatever text of the caller's it repeats.

    Args:
        status: the HTTP status.
        code: a stable, machine-readable name of the problem.
        detail: what was expected and what was found; never an internal message. Cut to `MAX_DETAIL_LENGTH`.
        field: the member, header or parameter at fault, if one is. Cut to `MAX_FIELD_LENGTH`.
        headers: headers that belong to the answer.
    """
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": printable(detail, limit=MAX_DETAIL_LENGTH),
    }
    if field is not None:
        content["field"] = printable(field, limit=MAX_FIELD_LENGTH)
    return JSONResponse(content, status, headers, media_type="application/problem+json")
