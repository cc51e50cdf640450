"""Supabase Auth's endpoints that sign-in needs, with the shapes, claims and refusals of GoTrue, on users of its own."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, derive_private_key
from jwt.algorithms import ECAlgorithm
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

TOKEN_SECONDS = 3600
# As hosted: so many sign-ins in so many seconds. (There for each address.)
SIGN_INS, SIGN_INS_SECONDS = 30, 300
DOMAIN = "example.org"


def private_key(secret: str) -> EllipticCurvePrivateKey:
    """Returns the signing key that belongs to a secret of hexadecimal digits."""
    return derive_private_key(int(secret, 16), SECP256R1())


def key_id(secret: str) -> str:
    return str(uuid5(NAMESPACE_URL, str(private_key(secret).public_key().public_numbers().x)))


def claims(issuer: str, user: dict[str, Any], session_id: str, seconds: int = TOKEN_SECONDS) -> dict[str, Any]:
    """Returns the claims of an access token, as GoTrue makes them after a sign-in with a password."""
    now = int(time.time())
    return {
        "iss": issuer,
        "sub": user["id"],
        "aud": "authenticated",
        "exp": now + seconds,
        "iat": now,
        "email": user["email"],
        "phone": "",
        "app_metadata": user["app_metadata"],
        "user_metadata": user["user_metadata"],
        "role": "authenticated",
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": now}],
        "session_id": session_id,
        "is_anonymous": False,
    }


class RefusedError(HTTPException):
    def __init__(self, status: int, error_code: str, msg: str) -> None:
        super().__init__(status, msg)
        self.error_code = error_code


@dataclass
class Session:
    """Refresh tokens of one sign-in, the newest last; each is used once."""

    user: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid4()))
    refresh_tokens: list[str] = field(default_factory=lambda: [secrets.token_urlsafe(9)])


class Auth:
    """Users with a password, and their sessions, which end with the process."""

    def __init__(self, issuer: str, jwt_secret: str, signing_secret: str, passwords: dict[str, str]) -> None:
        self._issuer = issuer
        self._key, self._key_id = private_key(signing_secret), key_id(signing_secret)
        self._jwt_secret = jwt_secret
        self._passwords = {f"{name}@{DOMAIN}": password for name, password in passwords.items()}
        self._users = [new_user(email) for email in self._passwords]
        self._sessions: list[Session] = []
        self._sign_ins = deque[float](maxlen=SIGN_INS)

    async def keys(self, _: Request) -> Response:
        public = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        members = {"kid": self._key_id, "alg": "ES256", "use": "sig", "key_ops": ["verify"], "ext": True}
        return JSONResponse({"keys": [public | members]}, headers={"Cache-Control": "public, max-age=600"})

    async def token(self, request: Request) -> Response:
        grants = {"password": self._by_password, "refresh_token": self._by_refresh_token}
        if (grant := grants.get(request.query_params.get("grant_type", ""))) is None:
            raise RefusedError(400, "invalid_credentials", "unsupported_grant_type")
        session = grant(await _json(request))
        made = claims(self._issuer, session.user, session.id)
        answer = {
            "access_token": jwt.encode(made, self._key, "ES256", {"kid": self._key_id}),
            "token_type": "bearer",
            "expires_in": TOKEN_SECONDS,
            "expires_at": made["exp"],
            "refresh_token": session.refresh_tokens[-1],
            "user": session.user,
        }
        return JSONResponse(answer)

    def _by_password(self, body: dict[str, Any]) -> Session:
        now = time.monotonic()
        if len(self._sign_ins) == SIGN_INS and now - self._sign_ins[0] < SIGN_INS_SECONDS:
            raise RefusedError(429, "over_request_rate_limit", "Request rate limit reached")
        self._sign_ins.append(now)
        email = str(body.get("email", "")).lower()
        if not email:
            raise RefusedError(400, "validation_failed", "missing email or phone")
        password = self._passwords.get(email, "")
        if not password or not hmac.compare_digest(password.encode(), str(body.get("password", "")).encode()):
            raise RefusedError(400, "invalid_credentials", "Invalid login credentials")
        self._sessions.append(Session(next(user for user in self._users if user["email"] == email)))
        return self._sessions[-1]

    def _by_refresh_token(self, body: dict[str, Any]) -> Session:
        given = body.get("refresh_token")
        session = next((session for session in self._sessions if given in session.refresh_tokens), None)
        if session is None:
            raise RefusedError(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
        if given == session.refresh_tokens[-1]:
            session.refresh_tokens.append(secrets.token_urlsafe(9))
        elif given != session.refresh_tokens[-2]:  # the one before: the answer to it may have been lost
            self._sessions.remove(session)  # it may have been stolen
            raise RefusedError(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used")
        return session

    async def logout(self, request: Request) -> Response:
        """Ends all sessions of the user, or with `scope=local` this one. Access tokens stay in force."""
        given = self._bearer(request)
        if "sub" not in given:
            raise RefusedError(403, "bad_jwt", "invalid claim: missing sub claim")
        is_local = request.query_params.get("scope") == "local"
        self._sessions = [
            session
            for session in self._sessions
            if (session.id != given.get("session_id") if is_local else session.user["id"] != given["sub"])
        ]
        return Response(status_code=204)

    async def change_user(self, request: Request) -> Response:
        """Merges `app_metadata` into a user's; null removes a member. For the secret key alone."""
        if self._bearer(request).get("role") != "service_role":
            raise RefusedError(403, "not_admin", "User not allowed")
        user = next((user for user in self._users if user["id"] == request.path_params["id"]), None)
        if user is None:
            raise RefusedError(404, "user_not_found", "User not found")
        merged = user["app_metadata"] | (await _json(request)).get("app_metadata", {})
        user["app_metadata"] = {name: value for name, value in merged.items() if value is not None}
        return JSONResponse(user)

    def _bearer(self, request: Request) -> dict[str, Any]:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise RefusedError(401, "no_authorization", "This endpoint requires a valid Bearer token")
        try:
            keys: dict[str, Any] = {"HS256": self._jwt_secret, "ES256": self._key.public_key()}
            algorithm = str(jwt.get_unverified_header(token).get("alg"))
            decoded: dict[str, Any] = jwt.decode(token, keys[algorithm], [algorithm], options={"verify_aud": False})
        except (jwt.PyJWTError, KeyError) as error:
            msg = f"invalid JWT: unable to parse or verify signature, {error}"
            raise RefusedError(403, "bad_jwt", msg) from error
        return decoded


def new_user(email: str) -> dict[str, Any]:
    """Returns the operator and the viewer with their roles; any other user has none."""
    name = email.partition("@")[0]
    role = {"scheduler_role": name} if name in ("operator", "viewer") else {}
    return {
        "id": str(uuid5(NAMESPACE_URL, email)),
        "aud": "authenticated",
        "role": "authenticated",
        "email": email,
        "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"], **role},
        "user_metadata": {"email_verified": True},
        "is_anonymous": False,
    }


def create_app() -> Starlette:
    """Builds the Auth of the environment's `AUTH`, the arguments of `Auth` as JSON."""
    auth = Auth(**json.loads(os.environ["AUTH"]))
    return Starlette(
        routes=[
            Route("/.well-known/jwks.json", auth.keys),
            Route("/token", auth.token, methods=["POST"]),
            Route("/logout", auth.logout, methods=["POST"]),
            Route("/admin/users/{id}", auth.change_user, methods=["PUT"]),
            Route("/health", lambda _: JSONResponse({"name": "GoTrue"})),
        ],
        exception_handlers={HTTPException: _answer_error},
    )


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError as error:
        raise RefusedError(400, "bad_json", "Could not parse request body as JSON") from error
    return body if isinstance(body, dict) else {}


async def _answer_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = error.error_code if isinstance(error, RefusedError) else "unknown"
    body = {"code": error.status_code, "error_code": code, "msg": error.detail}
    return JSONResponse(body, error.status_code)
