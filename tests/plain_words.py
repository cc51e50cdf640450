"""`python -m tests.plain_words`: keeps the words of plain_words.txt out of every text file of the project."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Regular expressions, each with what to write instead.
WORDS = dict(
    line.split(" -> ", 1)
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)
# Generated, foreign, or about the words themselves.
LEFT_OUT = re.compile(
    r"^(docs/benchmarks/|shared/deployment/licences\.md|LICENSE|CHANGELOG\.md|tests/plain_words\.txt|.*\.(png|lock)|.*lock\.json)"
)


def find() -> Iterator[str]:
    """Yields a line for each occurrence of a word in a tracked file."""
    pattern = re.compile("|".join(f"(?<![A-Za-z-])(?:{word})(?![A-Za-z])" for word in WORDS), re.IGNORECASE)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    paths = (ROOT / name for name in listed.stdout.split("\0") if name and not LEFT_OUT.match(name))
    for path in filter(Path.is_file, paths):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for match in pattern.finditer(line):
                instead = next(new for word, new in WORDS.items() if re.fullmatch(word, match[0], re.IGNORECASE))
                yield f"{path.relative_to(ROOT)}:{number}: {match[0]} -> {instead}"


if __name__ == "__main__":
    found = list(find())
    print("\n".join(found) if found else "plain words: all files pass")
    sys.exit(bool(found))
