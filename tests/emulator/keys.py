"""A project's API keys: the opaque ones of today, and the JWTs they stand for."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import jwt

from .data_dir import write_private

TEN_YEARS = 10 * 365 * 24 * 3600


@dataclass(frozen=True)
class Keys:
    """Both kinds of API key, and the secret that signs the JWTs."""

    jwt_secret: str
    secret_key: str
    publishable_key: str
    anon_jwt: str
    service_role_jwt: str

    @classmethod
    def generate(cls) -> Self:
        jwt_secret = secrets.token_urlsafe(48)
        return cls(
            jwt_secret=jwt_secret,
            secret_key=_opaque("sb_secret"),
            publishable_key=_opaque("sb_publishable"),
            anon_jwt=_jwt("anon", jwt_secret),
            service_role_jwt=_jwt("service_role", jwt_secret),
        )


@dataclass(frozen=True)
class Tokens:
    """The bearer tokens of the function and of the engine; 43 characters each."""

    invoke: str
    admin: str
    engine: str

    @classmethod
    def generate(cls) -> Self:
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))


@dataclass(frozen=True)
class SignInSecrets:
    """The passwords of the users of Auth, and the secret from which its signing key is made."""

    signing_secret: str
    operator: str
    viewer: str
    mentor: str

    @classmethod
    def generate(cls) -> Self:
        return cls(secrets.token_hex(31), *(secrets.token_urlsafe(12) for _ in range(3)))

    @property
    def passwords(self) -> dict[str, str]:
        return {name: value for name, value in vars(self).items() if name != "signing_secret"}


K = TypeVar("K", Keys, Tokens, SignInSecrets)


def kept(kind: type[K], path: Path) -> K:
    """Returns those in this file, generated on first use."""
    if not path.exists():
        write_private(path, json.dumps(vars(kind.generate())))
    return kind(**json.loads(path.read_text()))


def _opaque(prefix: str) -> str:
    """Returns a key of Supabase's shape: a random part and eight characters of a checksum."""
    return f"{prefix}_{secrets.token_urlsafe(16)}_{secrets.token_hex(4)}"


def _jwt(role: str, secret: str) -> str:
    now = int(time.time())
    claims = {"iss": "supabase", "ref": "emulator", "role": role, "iat": now, "exp": now + TEN_YEARS}
    return jwt.encode(claims, secret, algorithm="HS256")
