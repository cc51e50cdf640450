"""Who may call: bearer tokens of two kinds.

An invoke token may only ask for the due slot: it stands in Vault and passes through pg_net's queue, so it is the least
powerful one. An admin token may do everything. Several of each can be valid at once, so they rotate without downtime.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from enum import Enum

from pydantic import SecretStr

MAXIMUM_TOKEN_LENGTH = 256
# Room for the scheme and for more spaces than anybody sends.
_LONGEST_HEADER = 2 * MAXIMUM_TOKEN_LENGTH


class Role(Enum):
    """What a caller may do."""

    INVOKE = "invoke"
    ADMIN = "admin"


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class TokenCheck:
    """Compares presented tokens with the known ones, with the same work whatever was presented.

    A header that is missing, too long or of another scheme costs what a known token costs: one digest of a fixed
    number of bytes, and one comparison with each known token.

    Args:
        invoke_tokens: tokens that may only `POST /`.
        admin_tokens: tokens that may do everything.
        digest: what tokens are kept and compared as.
        compare: whether two digests are equal, in the same time wherever they differ.

    Raises:
        ValueError: a token is longer than `MAXIMUM_TOKEN_LENGTH` bytes, so nothing presented could equal it.
    """

    def __init__(
        self,
        invoke_tokens: Iterable[SecretStr],
        admin_tokens: Iterable[SecretStr],
        *,
        digest: Callable[[bytes], bytes] = _sha256,
        compare: Callable[[bytes, bytes], bool] = hmac.compare_digest,
    ) -> None:
        self._digest = digest
        self._compare = compare
        self._known = [(self._known_digest(token), Role.INVOKE) for token in invoke_tokens]
        self._known += [(self._known_digest(token), Role.ADMIN) for token in admin_tokens]

    def role_of(self, authorization: str | None) -> Role | None:
        """The role of an `Authorization` header's bearer token, or None.

        Digests of one length are compared, so that neither the length of a known token nor the place of the first wrong
        character shows in the time taken; every known token is compared, so that its position does not either.
        """
        given = authorization or ""
        scheme, _, token = (given if len(given) <= _LONGEST_HEADER else "").partition(" ")
        presented = self._digest(_framed(token.strip()))
        found: Role | None = None
        for known, role in self._known:
            if self._compare(presented, known):
                found = role
        return found if scheme.lower() == "bearer" else None

    def _known_digest(self, token: SecretStr) -> bytes:
        secret = token.get_secret_value()
        if len(secret.encode()) > MAXIMUM_TOKEN_LENGTH:
            raise ValueError(f"expected a token of at most {MAXIMUM_TOKEN_LENGTH} bytes, found a longer one")
        return self._digest(_framed(secret))


def _framed(token: str) -> bytes:
    """The token in a frame of fixed size: its length, itself, padding.

    The length keeps a token apart from the same one with the padding's characters at its end. What is cut was longer
    than any known token, and keeps a length that none of them has.
    """
    size = MAXIMUM_TOKEN_LENGTH + 1
    content = token[:size].encode("utf-8", "surrogatepass")[:size]
    return len(content).to_bytes(2, "big") + content.ljust(size, b"\0")
