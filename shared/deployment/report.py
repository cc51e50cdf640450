"""What the person who deploys reads: steps, lines below them, and that a step is still at work."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Sequence

PERIOD_SECONDS = 5


class CheckError(Exception):
    """A check or a step failed; the text says what was expected and found, and shows no secret."""


def say(*lines: str) -> None:
    """Prints lines below the step that they belong to, at once: a step may take minutes."""
    for line in lines:
        print(f"   {line}", flush=True)


class Report:
    """Prints each step's title, and every five seconds until it ends how long it has taken.

    In a dry run it prints what would be done.
    """

    def __init__(self, *, is_dry_run: bool) -> None:
        self.is_dry_run = is_dry_run
        self.step = ""
        self._ended = threading.Event()

    def begin(self, step: str) -> None:
        """Ends the step before, if there is one."""
        self.end()
        self.step = step
        self._ended = threading.Event()
        print(f"\n== {step}", flush=True)
        threading.Thread(target=self._tick, args=(self._ended,), daemon=True).start()

    def end(self) -> None:
        """Ends the step, as before a question."""
        self._ended.set()

    def would(self, act: str) -> bool:
        """Returns whether this is a dry run, in which the caller does not do it."""
        if self.is_dry_run:
            say(f"would {act}")
        return self.is_dry_run

    def would_run(self, argv: Sequence[str]) -> bool:
        """Prints a command that changes something, and returns whether this is a dry run."""
        if not self.is_dry_run:
            say(f"$ {shlex.join(argv)}")
        return self.would(f"run: {shlex.join(argv)}")

    def _tick(self, ended: threading.Event) -> None:
        seconds = 0
        while not ended.wait(PERIOD_SECONDS):
            seconds += PERIOD_SECONDS
            print(f"   ... {seconds} s", file=sys.stderr, flush=True)
