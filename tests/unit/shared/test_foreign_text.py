"""Whatever text is given, what is shown of it is one bounded line that can be sent and logged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.foreign_text import printable


@pytest.mark.parametrize("text", ["", "/health", "field.name", "with space", "æøå", "日本語 🎉", "%0A"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    "odd", [chr(0xD800), chr(0xDFFF), "\n", "\r", "\x00", "\x1b", "\x85", "\u2028", "\u2029", "\u202e"]
)
def test_what_cannot_be_shown_is_replaced_and_the_rest_is_not(odd: str) -> None:
    assert printable(f"before{odd}after") == "before\ufffdafter"


def test_a_text_of_the_greatest_length_is_whole_and_a_longer_one_is_cut() -> None:
    assert printable("x" * 200) == "x" * 200
    assert printable("x" * 201) == "x" * 199 + "…"


@given(st.text(st.characters(codec=None, categories=None)), st.integers(min_value=1, max_value=50))
def test_any_text_becomes_one_line_of_valid_unicode_within_the_limit(text: str, limit: int) -> None:
    shown = printable(text, limit=limit)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert len(shown.splitlines()) <= 1
    assert len(shown) <= limit
    assert shown.isprintable()
