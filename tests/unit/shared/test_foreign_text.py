"""Whatever text is given, what is shown of it is one bounded line that can be sent and logged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.foreign_text import printable


def test_only_what_cannot_be_shown_is_replaced() -> None:
    assert printable("/health with æøå 日本語 🎉 %0A") == "/health with æøå 日本語 🎉 %0A"
    for odd in (chr(0xD800), "\n", "\x00", "\x1b", "\x85", "\u2028", "\u202e"):
        assert printable(f"before{odd}after") == "before\ufffdafter"
    assert printable("x" * 200) == "x" * 200
    assert printable("x" * 201) == "x" * 199 + "…"


@given(st.text(st.characters(codec=None, categories=None)), st.integers(min_value=1, max_value=50))
def test_any_text_becomes_one_line_of_valid_unicode_within_the_limit(text: str, limit: int) -> None:
    shown = printable(text, limit=limit)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert len(shown) <= limit
    assert shown.isprintable()
