"""Why a request is refused before anything was done for it: one text for each reason, whichever route it was for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shared.errors import RequestError


def no_json() -> RequestError:
    """The body is not JSON."""
    return RequestError(400, "malformed_json", "expected a JSON object, found text that is not JSON")


def unreadable_body() -> RequestError:
    """The body is more than a parser bears: not text, nested too deeply, a number without an end."""
    return RequestError(400, "malformed_json", "expected a JSON object, found a body that cannot be read as JSON")


def not_served(method: str, allowed: Iterable[str]) -> RequestError:
    """The address is served, but not with this method."""
    return RequestError(
        405, "method_not_allowed", f"{method} is not served here", headers={"Allow": ", ".join(allowed)}
    )


def invalid(kind: str, place: Sequence[object], message: str) -> RequestError:
    """A member, a header or a parameter is not as the contract says.

    Args:
        kind: pydantic's name of the error.
        place: the member, as a path into what was sent; empty: all of a body.
        message: pydantic's, or that of a validator of ours.
    """
    field = ".".join(str(part) for part in place)
    if kind == "extra_forbidden":
        return RequestError(422, "unknown_field", f"{field}: expected no such member", field=field)
    expected = message.removeprefix("Value error, ")
    return RequestError(422, "invalid_field", f"{field or 'body'}: {expected}", field=field or "body")
