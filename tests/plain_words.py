"""`python -m tests.plain_words`: keeps the words of plain_words.txt out of every text file of the project."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORDS = Path(__file__).with_suffix(".txt")
# Generated, foreign, or about the words themselves.
LEFT_OUT = re.compile(
    r"^(docs/benchmarks/|docs/licences\.md|LICENSE|CHANGELOG\.md|tests/plain_words\.txt|.*\.(png|lock)|.*lock\.json)"
)


def read_words(text: str) -> dict[str, str]:
    """Returns the regular expressions of a word list, each with what to write instead."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split(" -> ", 1) for line in lines)


def find(words: dict[str, str], texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yields a line for each occurrence of a word.

    Args:
        words: of `read_words`.
        texts: names of files, and what is in them.
    """
    pattern = re.compile("|".join(f"(?<![A-Za-z-])(?:{word})(?![A-Za-z])" for word in words), re.IGNORECASE)
    for name, text in texts:
        for number, line in enumerate(text.splitlines(), start=1):
            for match in pattern.finditer(line):
                instead = next(new for word, new in words.items() if re.fullmatch(word, match[0], re.IGNORECASE))
                yield f"{name}:{number}: {match[0]} -> {instead}"


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Yields the project's text files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if not LEFT_OUT.match(name) and (ROOT / name).is_file():
            yield name, (ROOT / name).read_text(encoding="utf-8")


if __name__ == "__main__":
    found = list(find(read_words(WORDS.read_text(encoding="utf-8")), tracked_texts()))
    print("\n".join(found) if found else "plain words: all files pass")
    sys.exit(bool(found))
