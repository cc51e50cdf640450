"""docs/operations.md, read: its incidents, and the commands of each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.emulator.staging import ROOT

DOCUMENT = ROOT / "docs" / "operations.md"
PARTS = ("Symptom", "Check", "Cause", "Fix", "Confirm")

_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SHOWN_BY = re.compile(r"^Shown by \[a test\]\((\S+)\)\.$", re.MULTILINE)


@dataclass(frozen=True)
class Incident:
    """One section: its place, its heading, the text of each of PARTS, and the file of its test as it is linked."""

    number: int
    title: str
    parts: dict[str, str]
    shown_by: str

    @property
    def test_name(self) -> str:
        """What the test that brings it about has to be called."""
        return "test_" + re.sub(r"[^a-z0-9]+", "_", self.title.lower()).strip("_")

    def commands(self, part: str) -> list[str]:
        """The blocks of a part, in order."""
        return _BLOCK.findall(self.parts[part])


def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def blocks() -> list[str]:
    """All commands of the document: first what every other makes use of, then where to look, then the incidents'."""
    found: list[str] = _BLOCK.findall(text())
    return found


def incidents() -> list[Incident]:
    """All of them, in order."""
    found = []
    for section in re.split(r"^### ", text().split("## Ten incidents")[1], flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        number, _, title = heading.partition(". ")
        pieces = re.split(rf"^\*\*({'|'.join(PARTS)})(?:\.\*\*|\*\*)", body, flags=re.MULTILINE)
        parts = dict(zip(pieces[1::2], pieces[2::2], strict=True))
        found.append(Incident(int(number), title, parts, "".join(_SHOWN_BY.findall(body))))
    return found
