"""A known bearer token has a role; everything else has none."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from shared.auth import Role, TokenCheck
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN

CHECK = TokenCheck(
    [SecretStr(INVOKE_TOKEN), SecretStr(f"{INVOKE_TOKEN}-next")], [SecretStr(ADMIN_TOKEN), SecretStr("schlüssel" * 4)]
)


@pytest.mark.parametrize(
    ("token", "role"),
    [
        (INVOKE_TOKEN, Role.INVOKE),
        (f"{INVOKE_TOKEN}-next", Role.INVOKE),
        (ADMIN_TOKEN, Role.ADMIN),
        ("schlüssel" * 4, Role.ADMIN),
    ],
)
def test_each_of_several_tokens_of_a_role_is_known(token: str, role: Role) -> None:
    assert CHECK.role_of(f"Bearer {token}") is role


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR"])
def test_the_scheme_may_be_written_in_any_case(scheme: str) -> None:
    assert CHECK.role_of(f"{scheme} {ADMIN_TOKEN}") is Role.ADMIN


def test_space_around_the_token_does_not_matter() -> None:
    assert CHECK.role_of(f"Bearer   {ADMIN_TOKEN} ") is Role.ADMIN


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        "Bearer",
        "Bearer ",
        ADMIN_TOKEN,
        f"Basic {ADMIN_TOKEN}",
        f"Bearer{ADMIN_TOKEN}",
        f"Bearer {ADMIN_TOKEN[:-1]}",
        f"Bearer {ADMIN_TOKEN}x",
        f"Bearer {ADMIN_TOKEN.upper()}",
        f"Bearer {ADMIN_TOKEN},{INVOKE_TOKEN}",
        f"Bearer {ADMIN_TOKEN} {INVOKE_TOKEN}",
        f"Bearer Bearer {ADMIN_TOKEN}",
        "Bearer \x00",
        "Bearer \udcff",
    ],
    ids=ascii,
)
def test_anything_else_has_no_role(header: str | None) -> None:
    assert CHECK.role_of(header) is None


def test_without_known_tokens_nobody_has_a_role() -> None:
    assert TokenCheck([], []).role_of("Bearer ") is None
    assert TokenCheck([], []).role_of(None) is None


def test_the_check_does_not_show_its_tokens() -> None:
    assert ADMIN_TOKEN not in repr(vars(CHECK))
