"""What the person who deploys reads: steps, and lines below them; how programs are run, and waited for."""

from __future__ import annotations

import atexit
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence


class CheckError(Exception):
    """A check or a step failed; the text says what was expected and found, and shows no secret."""


def say(*lines: str) -> None:
    """Prints lines below the step that they belong to, at once: a step may take minutes."""
    for line in lines:
        print(f"   {line}", flush=True)


def run(argv: Sequence[str], given: str = "", env: Mapping[str, str] | None = None, stderr: int | None = None) -> str:
    """Runs a program, whose errors are seen as it prints them, and returns its output; CheckError where it fails."""
    ran = subprocess.run(argv, input=given, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False)
    if ran.returncode:
        say(*ran.stdout.splitlines())
        words = [word for word in argv if not word.startswith("-")]
        raise CheckError(f"{' '.join(words[:4])}: failed, see above")
    return ran.stdout


def attempts(seconds: float) -> Iterator[None]:
    """Yields at once, then at growing intervals until the time is over."""
    until, pause = time.monotonic() + seconds, 0.1
    yield
    while time.monotonic() < until:
        time.sleep(pause)
        pause = min(pause * 1.5, 5.0)
        yield


class Report:
    """Prints each step's title, and again and again until it ends how long it has taken."""

    def __init__(self, *, is_dry_run: bool) -> None:
        self.is_dry_run, self.step, self._began = is_dry_run, "", 0.0
        signal.signal(signal.SIGALRM, self._tick)
        # As it exits, Python takes the handler away, without which the signal would end it.
        atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)

    def begin(self, step: str, period: float = 2) -> None:
        """Ends the step before, if there is one; without a period, as for a question, nothing shows that it waits."""
        self.step, self._began = step, time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, period, period)
        print(f"\n== {step}", flush=True)

    def change(self, step: str, act: Callable[[], None]) -> None:
        """Begins a step that changes something, which a dry run names and leaves out."""
        self.begin(step)
        if self.is_dry_run:
            say("would be done")
        else:
            act()

    def run(self, *argv: str, given: str = "") -> str:
        """Runs a command that changes something and returns its output; a dry run prints it only."""
        say(f"{'would run:' if self.is_dry_run else '$'} {shlex.join(argv)}")
        return "" if self.is_dry_run else run(argv, given)

    def _tick(self, *_: object) -> None:
        os.write(2, f"   ... {time.monotonic() - self._began:.0f} s\n".encode())
