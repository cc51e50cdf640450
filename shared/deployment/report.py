"""What the person who deploys reads."""

from __future__ import annotations


class CheckError(Exception):
    """A check or a step failed; the text says what was expected and found, and shows no secret."""


def say(*lines: str) -> None:
    """Prints lines below the step that they belong to, at once: a step may take minutes."""
    for line in lines:
        print(f"   {line}", flush=True)
