"""A known bearer token has a role; everything else has none."""

from __future__ import annotations

import hmac

import pytest
from pydantic import SecretStr

from shared.auth import Role, TokenCheck
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN, make_config

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
        f"Bearer {ADMIN_TOKEN}\x00",
        f"Bearer {ADMIN_TOKEN}" + " " * 600 + "x",
        "Bearer \x00",
        "Bearer \udcff",
        "Bearer " + chr(0xD800),
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


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer x", f"Basic {ADMIN_TOKEN}", "x" * 65_536, f"Bearer {INVOKE_TOKEN}", f"Bearer {ADMIN_TOKEN}"],
)
def test_digests_of_all_known_tokens_are_compared_in_constant_time_whatever_was_sent(
    header: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr("shared.auth.compare_digest", compare)
    CHECK.role_of(header)
    assert compared == [(32, 32)] * 4


def configured(tokens: str) -> TokenCheck:
    config = make_config(SCHEDULER_INVOKE_TOKENS=tokens)
    return TokenCheck(config.scheduler_invoke_tokens, config.scheduler_admin_tokens)


def test_tokens_rotate_without_a_moment_in_which_neither_is_known() -> None:
    old, new = f"{INVOKE_TOKEN}-old", f"{INVOKE_TOKEN}-new"
    roles = [
        (check.role_of(f"Bearer {old}"), check.role_of(f"Bearer {new}"))
        for check in (configured(old), configured(f"{old},{new}"), configured(new))
    ]
    assert roles == [(Role.INVOKE, None), (Role.INVOKE, Role.INVOKE), (None, Role.INVOKE)]


def test_a_token_that_stands_twice_in_its_list_is_known_as_if_it_stood_there_once() -> None:
    check = configured(f"{INVOKE_TOKEN}, {INVOKE_TOKEN},")
    assert check.role_of(f"Bearer {INVOKE_TOKEN}") is Role.INVOKE
    assert check.role_of(f"Bearer {INVOKE_TOKEN},{INVOKE_TOKEN}") is None
