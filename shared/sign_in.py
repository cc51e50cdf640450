"""Users of the project's Supabase Auth as callers: their access tokens are checked here, without a call to Auth.

What a token says of itself is checked before its signature: algorithm, key id, issuer, audience and times. So a token
that cannot be the project's causes no request. The signing keys are those of the project's JWKS, and are cached.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast
from uuid import UUID

import httpx
import jwt
import orjson
from jwt.types import Options

from shared.auth import Caller, Role
from shared.errors import RequestError, UnknownCallerError
from shared.http_client import HttpClient
from shared.logs import log_event
from shared.post_client import HttpError

# Asymmetric ones only: a public key is no secret, so HS256 with it is a signature that anyone can make.
ALGORITHMS: Final = ("ES256", "RS256", "EdDSA")
AUDIENCE: Final = "authenticated"
ROLES: Final = {"operator": Role.ADMIN, "viewer": Role.VIEWER}
LEEWAY_SECONDS = 10  # clocks differ
# A request's head has no room for a longer one.
MAX_TOKEN_LENGTH = 16 * 1024
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]*", re.ASCII)
_REQUIRED: Final = ["iss", "aud", "exp", "iat", "sub"]
_CHECKS: Final = dict.fromkeys(
    [*(f"verify_{claim}" for claim in (*_REQUIRED, "nbf")), "strict_aud", "enforce_minimum_key_length"], True
)

FRESH_SECONDS = 600.0  # as long as Supabase's edge caches the JWKS
# Any caller can send an unknown key id, so fetches keep this distance.
PAUSE_SECONDS = 30.0
# Known keys stay in force so long while Auth does not answer.
KEPT_SECONDS = 3600.0
FETCH_SECONDS = 5.0
MAX_JWKS_BYTES = 64 * 1024


class SigningKeys:
    """The project's public keys by their ids: fetched when one is needed, by one caller at a time."""

    def __init__(self, jwks_url: str, clock: Callable[[], float]) -> None:
        self._client = HttpClient(jwks_url, {"Accept": "application/json"}, connect_seconds=FETCH_SECONDS)
        self._clock = clock
        self._renewing = asyncio.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._next_fetch_at = -math.inf
        self._is_failing = False

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """Returns the key, or None where the project has none of this id.

        Raises:
            RequestError: 503 `sign_in_unavailable`, Auth does not answer, and the key is not known.
        """
        if self._is_due(key_id):
            async with self._renewing:
                if self._is_due(key_id):
                    await self._renew()
        if self._clock() - self._fetched_at > KEPT_SECONDS:
            self._keys = {}
        if key_id not in self._keys and self._is_failing:
            detail = "the project's Auth does not return its signing keys: try again, or use an admin token"
            raise RequestError(503, "sign_in_unavailable", detail, headers={"Retry-After": f"{PAUSE_SECONDS:.0f}"})
        return self._keys.get(key_id)

    def _is_due(self, key_id: str) -> bool:
        now = self._clock()
        is_fresh = key_id in self._keys and now - self._fetched_at < FRESH_SECONDS
        return not is_fresh and now >= self._next_fetch_at

    async def _renew(self) -> None:
        try:
            self._keys = await self._fetch()
        except HttpError as error:
            self._is_failing = True
            message = f"Signing keys of Supabase Auth not fetched: {error}"
            log_event("signing_keys_unavailable", message, level=logging.WARNING)
        else:
            self._fetched_at, self._is_failing = self._clock(), False
        self._next_fetch_at = self._clock() + PAUSE_SECONDS

    async def _fetch(self) -> dict[str, jwt.PyJWK]:
        answer = await self._client.get(timeout_seconds=FETCH_SECONDS, max_bytes=MAX_JWKS_BYTES)
        if answer.status != 200:
            raise HttpError(f"expected status 200, found {answer.status}")
        if answer.unreadable is not None:
            raise answer.unreadable
        try:
            keys = {}
            for entry in orjson.loads(answer.content)["keys"]:
                with suppress(jwt.PyJWTError, KeyError):  # one of another kind, or that no token can name
                    keys[entry["kid"]] = jwt.PyJWK(entry)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise HttpError("expected a JSON Web Key Set, found something else") from None
        return keys


class SignIn:
    """Where users of the project sign in, and who the bearer of an access token is."""

    def __init__(self, supabase_url: str, publishable_key: str, clock: Callable[[], float] = time.monotonic) -> None:
        url = httpx.URL(f"{supabase_url}/auth/v1")  # an international host as DNS carries it
        self.auth_url = str(url)
        self.origin = f"{url.scheme}://{url.netloc.decode()}"
        self.publishable_key = publishable_key
        self._keys = SigningKeys(f"{self.auth_url}/.well-known/jwks.json", clock)

    async def caller_of(self, authorization: str | None) -> Caller | None:
        """Returns whose an `Authorization` header's access token is, named by its `sub`; None where it has no JWT.

        Raises:
            UnknownCallerError: the token is not the project's, not in force, or not signed with one of its keys.
            RequestError: 403 `forbidden`, the user has no role here; 503, see `SigningKeys.find`.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or len(token) > MAX_TOKEN_LENGTH or not _JWT.fullmatch(token):
            return None
        try:
            claims = await self._verify(token)
        except jwt.PyJWTError as error:
            expected = f"expected an access token of {self.auth_url} for audience {AUDIENCE}, in force"
            raise UnknownCallerError(f"{expected}; found: {error}") from None
        return Caller(_role_of(claims), str(UUID(claims["sub"])))

    async def _verify(self, token: str) -> dict[str, Any]:
        header = self._decode(token, None)["header"]
        if (algorithm := header.get("alg")) not in ALGORITHMS:
            hint = "a project that signs with its legacy JWT secret is used with admin tokens"
            raise jwt.InvalidAlgorithmError(f"alg {algorithm}, not {', '.join(ALGORITHMS)}: {hint}")
        if not (key_id := header.get("kid")):
            raise jwt.InvalidKeyError("no kid")
        key = await self._keys.find(key_id)
        if key is None:
            raise jwt.InvalidKeyError("a kid that the project's JWKS does not have")
        claims: dict[str, Any] = self._decode(token, key)["payload"]
        return claims

    def _decode(self, token: str, key: jwt.PyJWK | None) -> dict[str, Any]:
        """Returns header and payload; without a key all is checked but the signature."""
        decoded = jwt.decode_complete(
            token,
            "" if key is None else key,
            algorithms=ALGORITHMS,
            options=cast(Options, {**_CHECKS, "require": _REQUIRED, "verify_signature": key is not None}),
            audience=AUDIENCE,
            issuer=self.auth_url,
            leeway=LEEWAY_SECONDS,
        )
        with suppress(ValueError):
            UUID(decoded["payload"]["sub"])  # it names the actor
            return decoded
        raise jwt.InvalidTokenError("a sub that is no UUID")


def _role_of(claims: dict[str, Any]) -> Role:
    """Returns what a user may do. Only `app_metadata` counts: users write their `user_metadata` themselves."""
    metadata = claims.get("app_metadata")
    role = metadata.get("scheduler_role") if isinstance(metadata, dict) else None
    if claims.get("is_anonymous"):
        found = "an anonymous user"
    elif claims.get("client_id"):
        found = "a token that was issued to an OAuth client"  # which acts for a user, with the user's app_metadata
    elif isinstance(role, str) and role in ROLES:
        return ROLES[role]
    else:
        found = "none" if role is None else repr(role)
    expected = f"expected a user whose app_metadata.scheduler_role is {' or '.join(ROLES)}"
    raise RequestError(403, "forbidden", f"{expected}, found {found}")
