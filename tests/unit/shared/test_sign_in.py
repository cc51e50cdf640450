"""An access token has the role that Auth signed, and everything else has none; keys are fetched seldom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from shared.auth import Caller, Role
from shared.errors import RequestError, UnknownCallerError
from shared.sign_in import FRESH_SECONDS, KEPT_SECONDS, MAX_JWKS_BYTES, PAUSE_SECONDS, SignIn
from tests.unit.auth_server import USER_ID, Auth, auth_server, jwks, public_pem
from tests.unit.clock import ManualClock
from tests.unit.log_lines import LogLines
from tests.unit.shared.scripted_server import answer

OPERATOR = Caller(Role.ADMIN, USER_ID)
TOMORROW, LATELY = time.time() + 86_400, time.time() - 30
UNAVAILABLE = answer(b"", status=b"503 Unavailable")


@pytest.fixture
async def auth() -> AsyncIterator[Auth]:
    async with auth_server() as auth:
        yield auth


@pytest.fixture
def sign_in(auth: Auth, clock: ManualClock, log: LogLines) -> SignIn:  # the log: what is logged shall not spill
    return SignIn(auth.server.url, "sb_publishable_x", clock)


async def refused(sign_in: SignIn, token: str) -> str:
    with pytest.raises(UnknownCallerError) as caught:
        await sign_in.caller_of(f"Bearer {token}")
    return str(caught.value)


async def test_tokens_of_each_asymmetric_algorithm_have_their_role(auth: Auth, sign_in: SignIn) -> None:
    for key_id in ("ec", "rsa", "okp"):
        assert await sign_in.caller_of(f"bearer  {auth.token(key_id)}") == OPERATOR
    viewer = auth.token(app_metadata={"provider": "email", "scheduler_role": "viewer"})
    assert await sign_in.caller_of(f"Bearer {viewer}") == Caller(Role.VIEWER, USER_ID)
    assert auth.fetches == 1
    assert auth.server.requests[0].startswith(b"GET /auth/v1/.well-known/jwks.json HTTP/1.1\r\n")


CLAIMED: dict[str, tuple[Callable[[Auth], str], str]] = {
    "alg none": (lambda auth: auth.with_secret(b"", "none"), "alg none"),
    "HS256": (lambda auth: auth.with_secret(b"s" * 32), "alg HS256, not ES256, RS256, EdDSA"),
    "HS256 with the public key": (lambda auth: auth.with_secret(public_pem()), "alg HS256"),
    "no kid": (lambda auth: auth.token(kid=None), "no kid"),
    "expired": (lambda auth: auth.token(exp=LATELY), "expired"),
    "not yet in force": (lambda auth: auth.token(nbf=TOMORROW), "not yet valid (nbf)"),
    "issued later": (lambda auth: auth.token(iat=TOMORROW), "not yet valid (iat)"),
    "foreign iss": (lambda auth: auth.token(iss="https://other.supabase.co/auth/v1"), "Invalid issuer"),
    "foreign aud": (lambda auth: auth.token(aud="other"), "Audience"),
    "two aud": (lambda auth: auth.token(aud=["authenticated", "other"]), "strict"),
    "sub of no user": (lambda auth: auth.token(sub="postgres"), "no UUID"),
    "no claims": (lambda auth: "e30.e30.e30", "claim"),
    "no JSON": (lambda auth: "e30.eyJ.e30", "Invalid"),
    **{
        f"no {claim}": (lambda auth, claim=claim: auth.token(**{claim: None}), claim)  # type: ignore[misc]
        for claim in ("iss", "aud", "exp", "iat", "sub")
    },
}


@pytest.mark.parametrize(("make", "found"), CLAIMED.values(), ids=CLAIMED)
async def test_a_token_wrong_by_its_own_words_costs_no_request(
    auth: Auth, sign_in: SignIn, make: Callable[[Auth], str], found: str
) -> None:
    text = await refused(sign_in, make(auth))
    assert f"expected an access token of {auth.server.url}/auth/v1" in text
    assert found in text
    assert auth.fetches == 0


def swapped(token: str, other: str) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{other.split('.')[1]}.{signature}"


FORGED: dict[str, Callable[[Auth], str]] = {
    "another signature": lambda auth: auth.token()[:-6] + "AAAAAA",
    "another payload": lambda auth: swapped(auth.token(), auth.token(email="eve@example.org")),
    "another key": lambda auth: auth.token(by="later"),
    "another algorithm": lambda auth: auth.token("rsa", kid="ec"),
    "unknown kid": lambda auth: auth.token("later"),
}


@pytest.mark.parametrize("make", FORGED.values(), ids=FORGED)
async def test_a_forged_token_is_refused(auth: Auth, sign_in: SignIn, make: Callable[[Auth], str]) -> None:
    assert auth.server.url in await refused(sign_in, make(auth))
    assert auth.fetches == 1
    assert await sign_in.caller_of(f"Bearer {auth.token()}") == OPERATOR


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer x", "Bearer a.b", "Bearer a.b.\xfc", "Basic {}", "{}"])
async def test_what_is_no_jwt_is_no_users_token(auth: Auth, sign_in: SignIn, header: str | None) -> None:
    presented = header and header.format(auth.token())
    assert await sign_in.caller_of(presented) is None
    assert await sign_in.caller_of(f"Bearer {auth.token(email='x' * 16_384)}") is None


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ({"app_metadata": {}}, "found none"),
        ({"app_metadata": None}, "found none"),
        ({"app_metadata": "operator"}, "found none"),
        ({"app_metadata": {}, "user_metadata": {"scheduler_role": "operator"}}, "found none"),
        ({"app_metadata": {"scheduler_role": "admin"}}, "found 'admin'"),
        ({"app_metadata": {"scheduler_role": ["operator"]}}, "found ['operator']"),
        ({"app_metadata": {"scheduler_role": {"operator": True}}}, "found {"),
        ({"is_anonymous": True}, "an anonymous user"),
        ({"client_id": USER_ID}, "an OAuth client"),
    ],
)
async def test_a_user_without_a_role_is_403(auth: Auth, sign_in: SignIn, claims: dict[str, Any], found: str) -> None:
    with pytest.raises(RequestError, match=r"app_metadata\.scheduler_role is operator or viewer") as caught:
        await sign_in.caller_of(f"Bearer {auth.token(**claims)}")
    assert (caught.value.status, caught.value.code, found in caught.value.detail) == (403, "forbidden", True)


async def test_callers_at_the_same_time_share_one_fetch(auth: Auth, sign_in: SignIn) -> None:
    callers = await asyncio.gather(*(sign_in.caller_of(f"Bearer {auth.token()}") for _ in range(20)))
    assert (callers, auth.fetches) == ([OPERATOR] * 20, 1)


async def test_keys_are_fetched_anew_at_a_bounded_rate(auth: Auth, sign_in: SignIn, clock: ManualClock) -> None:
    known, later = auth.token(), auth.token("later")
    for _ in range(3):
        await refused(sign_in, later)
    assert auth.fetches == 1
    auth.body = answer(jwks("later"))
    clock.advance(PAUSE_SECONDS)
    assert await sign_in.caller_of(f"Bearer {later}") == OPERATOR
    await refused(sign_in, known)  # Auth has withdrawn its key
    clock.advance(FRESH_SECONDS - 1)
    assert (await sign_in.caller_of(f"Bearer {later}"), auth.fetches) == (OPERATOR, 2)
    auth.body = answer(jwks())
    clock.advance(1)
    await refused(sign_in, later)
    assert auth.fetches == 3


BROKEN = {
    "503": UNAVAILABLE,
    "redirect": answer(jwks("later"), b"Location: /elsewhere", status=b"302 Found"),
    "a page": answer(b"<html>"),
    "no set": answer(b'{"keys": 1}'),
    "no key": answer(b'{"keys": ["ec"]}'),
    "too long": answer(b'{"keys": []}'.ljust(MAX_JWKS_BYTES + 1)),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_while_auth_is_away_known_keys_hold_for_an_hour(
    auth: Auth, sign_in: SignIn, clock: ManualClock, log: LogLines, broken: bytes
) -> None:
    known, later = auth.token(), auth.token("later")

    async def unavailable(token: str) -> None:
        with pytest.raises(RequestError) as caught:
            await sign_in.caller_of(f"Bearer {token}")
        error = caught.value
        assert (error.status, error.code, error.headers) == (503, "sign_in_unavailable", {"Retry-After": "30"})

    assert await sign_in.caller_of(f"Bearer {known}") == OPERATOR
    auth.body = broken
    clock.advance(KEPT_SECONDS)
    for _ in range(2):
        assert await sign_in.caller_of(f"Bearer {known}") == OPERATOR
        await unavailable(later)
    assert auth.fetches == 2
    (line,) = log.of("signing_keys_unavailable")
    assert (line["severity"], "127.0.0.1" in line["message"]) == ("WARNING", False)
    clock.advance(1)
    await unavailable(known)
    auth.body = answer(jwks("ec"))
    clock.advance(PAUSE_SECONDS)
    assert await sign_in.caller_of(f"Bearer {known}") == OPERATOR
