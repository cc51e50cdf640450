"""A known bearer token has a role and a name; everything else has none."""

from __future__ import annotations

import hmac

import pytest
from pydantic import SecretStr

from shared.auth import Caller, Role, TokenCheck
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN

ODD_TOKEN = "schlüssel" * 4
CHECK = TokenCheck(
    [SecretStr(INVOKE_TOKEN), SecretStr(f"{INVOKE_TOKEN}-next")], [("admin", ADMIN_TOKEN), ("anna", ODD_TOKEN)]
)


@pytest.mark.parametrize(
    ("header", "caller"),
    [
        (f"Bearer {INVOKE_TOKEN}", Caller(Role.INVOKE, "invoke")),
        (f"Bearer {INVOKE_TOKEN}-next", Caller(Role.INVOKE, "invoke")),
        (f"Bearer {ADMIN_TOKEN}", Caller(Role.ADMIN, "admin")),
        (f"Bearer {ODD_TOKEN}", Caller(Role.ADMIN, "anna")),
        (f"bEaReR   {ADMIN_TOKEN} ", Caller(Role.ADMIN, "admin")),
    ],
)
def test_each_of_several_tokens_has_its_role_and_name(header: str, caller: Caller) -> None:
    assert CHECK.caller_of(header) == caller


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", " ", "Bearer", "Bearer ", "Bearer \x00", "Bearer \udcff", "Bearer " + chr(0xD800)),
        *(ADMIN_TOKEN, f"Basic {ADMIN_TOKEN}", f"Bearer{ADMIN_TOKEN}", f"Bearer Bearer {ADMIN_TOKEN}"),
        *(f"Bearer {ADMIN_TOKEN[:-1]}", f"Bearer {ADMIN_TOKEN}x", f"Bearer {ADMIN_TOKEN.upper()}"),
        *(f"Bearer {ADMIN_TOKEN}{more}" for more in (f",{INVOKE_TOKEN}", f" {INVOKE_TOKEN}", "\x00", " " * 600 + "x")),
    ],
    ids=ascii,
)
def test_anything_else_has_no_role(header: str | None) -> None:
    assert CHECK.caller_of(header) is None
    assert TokenCheck([], []).caller_of(header) is None


@pytest.mark.parametrize("header", [None, f"Basic {ADMIN_TOKEN}", "x" * 65_536, f"Bearer {INVOKE_TOKEN}"])
def test_digests_of_all_tokens_are_compared_in_constant_time(
    header: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr("shared.auth.compare_digest", compare)
    CHECK.caller_of(header)
    assert compared == [(32, 32)] * 4
    assert ADMIN_TOKEN not in repr(vars(CHECK))
