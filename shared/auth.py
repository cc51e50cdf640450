"""Who may call: bearer tokens of two kinds, each with a name. Users of Supabase Auth: `sign_in.py`.

An invoke token may only request the due slot: it is kept in Vault and passes through pg_net's queue, so it is the least
powerful one. An admin token may do everything. Several of each can be valid at once, so they rotate without downtime.
A token is at least 32 characters long, so guessing one is hopeless at any rate, and failed checks are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from hashlib import sha256
from hmac import compare_digest
from typing import NamedTuple

from pydantic import SecretStr


class Role(Enum):
    """What a caller may do."""

    INVOKE = "invoke"
    ADMIN = "admin"
    VIEWER = "viewer"  # reads only


class Caller(NamedTuple):
    """An authenticated caller; `name` is recorded as who did something."""

    role: Role
    name: str


class TokenCheck:
    """Compares presented tokens with the known ones, in a time that says nothing about these.

    Args:
        admin_tokens: each with its name.
    """

    def __init__(self, invoke_tokens: Iterable[SecretStr], admin_tokens: Iterable[tuple[str, str]]) -> None:
        invoke = Caller(Role.INVOKE, Role.INVOKE.value)
        self._known = [(_digest(token.get_secret_value()), invoke) for token in invoke_tokens]
        self._known += [(_digest(token), Caller(Role.ADMIN, name)) for name, token in admin_tokens]

    def caller_of(self, authorization: str | None) -> Caller | None:
        """Returns whose an `Authorization` header's bearer token is, or None.

        Digests are compared, so that neither the length of a known token nor the place of the first wrong character
        shows in the time taken; every known token is compared, so that its position does not either.
        """
        scheme, _, token = (authorization or "").partition(" ")
        presented = _digest(token.strip())
        callers = [caller for known, caller in self._known if compare_digest(presented, known)]
        return callers[-1] if callers and scheme.lower() == "bearer" else None


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
