"""A secret shows itself to nobody who does not ask for its value."""

from __future__ import annotations

import json

import pytest

from shared.secret import Secret


def test_it_is_in_no_text_that_is_made_of_it() -> None:
    secret = Secret("hush")
    assert "hush" not in f"{secret} {secret!r} {secret!s} {[secret]} {(secret,)}" + "{0} {0!r}".format(secret)  # noqa: UP032


def test_it_goes_into_no_json() -> None:
    with pytest.raises(TypeError):
        json.dumps(Secret("hush"))


def test_its_value_is_told_to_whoever_asks_for_it() -> None:
    assert Secret("hush").get_secret_value() == "hush"


def test_equal_secrets_are_equal() -> None:
    assert {Secret("a"), Secret("a"), Secret("b")} == {Secret("a"), Secret("b")}
