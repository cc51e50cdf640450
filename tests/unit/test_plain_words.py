"""The search for words that the project does not use: it finds each of them, alone and in any case."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plain_words import WORDS, find, read_words

LISTED = read_words(WORDS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("word", LISTED)
@given(st.data())
def test_each_listed_word_is_found_with_its_replacement(word: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(re.compile(word, re.ASCII), fullmatch=True))
    found = [f"a.py:2: {each} -> {LISTED[word]}" for each in (text, text.upper())]
    assert list(find(LISTED, [("a.py", f"nothing\na {text}, test_{text.upper()}_2"), ("b.md", "nothing")])) == found


def test_a_word_within_another_and_a_comment_are_not_found() -> None:
    words = read_words("# notes of people\n\narts? -> craft\n")
    assert words == {"arts?": "craft"}
    assert list(find(words, [("a.md", "Start the party\n# notes")])) == []
