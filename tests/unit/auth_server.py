"""The Auth of a project: it signs access tokens, and serves its public keys on a real socket."""

from __future__ import annotations

import base64
import hmac
import json
import time
from asyncio import StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

from tests.unit.shared.scripted_server import Server, answer, serving

USER_ID = "5f3c1c1e-0f4b-4c61-9d5b-6d1f0d0a7b11"
KEYS: dict[str, tuple[str, Any]] = {
    "ec": ("ES256", generate_private_key(SECP256R1())),
    "rsa": ("RS256", generate_rsa_key(65537, 2048)),
    "okp": ("EdDSA", Ed25519PrivateKey.generate()),
    "later": ("ES256", generate_private_key(SECP256R1())),
}


def jwks(*key_ids: str) -> bytes:
    """Returns a set of these keys, beside one that no token can name and one of a kind to come."""
    keys = [{"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}, {"kty": "LMS", "kid": "to come"}]
    for key_id in key_ids:
        algorithm, key = KEYS[key_id]
        public = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
        keys.append(public | {"kid": key_id, "alg": algorithm, "use": "sig", "key_ops": ["verify"]})
    return json.dumps({"keys": keys}).encode()


class Auth:
    """`body`: what is answered to a request for the keys, as a whole HTTP answer."""

    def __init__(self) -> None:
        self.body = answer(jwks("ec", "rsa", "okp"))
        self.server = Server()

    @property
    def fetches(self) -> int:
        return len(self.server.requests)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """As GoTrue makes them, for an operator; a change to None leaves a claim out."""
        now = int(time.time())
        made = {"iss": f"{self.server.url}/auth/v1", "sub": USER_ID, "aud": "authenticated", "iat": now, "phone": ""}
        made |= {"exp": now + 3600, "email": "anna@example.org", "app_metadata": {"scheduler_role": "operator"}}
        made |= {"user_metadata": {}, "role": "authenticated", "aal": "aal1", "is_anonymous": False}
        made |= {"amr": [{"method": "password", "timestamp": now}], "session_id": USER_ID}
        return {name: value for name, value in (made | changes).items() if value is not None}

    def token(self, key_id: str = "ec", *, kid: str | None = "", by: str = "", **changes: Any) -> str:
        """Returns a token of this key; `kid`: another id in its header, `by`: another key that signs it."""
        algorithm, key = KEYS[by or key_id]
        headers = {} if kid is None else {"kid": kid or key_id}
        return jwt.encode(self.claims(**changes), key, algorithm, headers)

    def with_secret(self, secret: bytes, algorithm: str = "HS256") -> str:
        """Returns a token that an attacker signs with a shared secret, which PyJWT refuses to do with a public key."""
        header = json.dumps({"alg": algorithm, "kid": "ec"}).encode()
        signed = b".".join(_base64(part) for part in (header, json.dumps(self.claims()).encode()))
        return b".".join([signed, _base64(hmac.digest(secret, signed, "sha256") if secret else b"")]).decode()


def public_pem() -> bytes:
    return bytes(KEYS["ec"][1].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


@asynccontextmanager
async def auth_server() -> AsyncIterator[Auth]:
    auth = Auth()

    async def serve(_: bytes, writer: StreamWriter) -> None:
        writer.write(auth.body)

    async with serving(serve) as auth.server:
        yield auth


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
