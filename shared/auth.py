"""Who may call: bearer tokens of two kinds.

An invoke token may only ask for the due slot: it stands in Vault and passes through pg_net's queue, so it is the least
powerful one. An admin token may do everything. Several of each can be valid at once, so they rotate without downtime.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from enum import Enum

from pydantic import SecretStr


class Role(Enum):
    """What a caller may do."""

    INVOKE = "invoke"
    ADMIN = "admin"


class TokenCheck:
    """Compares presented tokens with the known ones, in the same time whatever was presented.

    Args:
        invoke_tokens: tokens that may only `POST /`.
        admin_tokens: tokens that may do everything.
    """

    def __init__(self, invoke_tokens: Iterable[SecretStr], admin_tokens: Iterable[SecretStr]) -> None:
        self._known = [(_digest(token.get_secret_value()), Role.INVOKE) for token in invoke_tokens]
        self._known += [(_digest(token.get_secret_value()), Role.ADMIN) for token in admin_tokens]

    def role_of(self, authorization: str | None) -> Role | None:
        """The role of an `Authorization` header's bearer token, or None.

        Digests are compared, so that neither the length of a token nor the place of its first wrong character shows in
        the time taken; every known token is compared, so that its position does not either.
        """
        scheme, _, token = (authorization or "").partition(" ")
        presented = _digest(token.strip())
        found: Role | None = None
        for known, role in self._known:
            if hmac.compare_digest(presented, known):
                found = role
        return found if scheme.lower() == "bearer" else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
