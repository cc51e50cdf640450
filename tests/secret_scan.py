"""Finds secrets in what was logged: those that are known, and whatever has the shape of one.

A leak is reported by its place and its kind. The secret itself is in no message: a test's report is kept and shared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Shorter than this, a value is in a log by chance.
SHORTEST_SECRET = 12
# Half of a secret as long as this is one as well: texts are cut before they are logged.
LONG_SECRET = 32

# No shape makes an exception for a value that looks made up: what is written here once is written with the real one.
SHAPES = {
    "a bearer token": re.compile(r"\bbearer\s+\S", re.IGNORECASE),
    "a JWT": re.compile(r"\beyJ[\w-]{8}"),
    "a Supabase secret key": re.compile(r"\bsb_secret_\w"),
    # as JSON, as Python's pairs or as plain text, quoted or not
    "an authorization header": re.compile(r"\b(?:proxy-)?authorization\b[\\\"']*\s*[:=,]", re.IGNORECASE),
    "an apikey header": re.compile(r"\bapikey\b[\\\"']*\s*[:=,]", re.IGNORECASE),
    "a URL with a password": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@]*:[^\s/@]+@", re.IGNORECASE),
}


@dataclass(frozen=True)
class Secrets:
    """Values that must not be logged, by what they are called.

    Its own text shows none of them: pytest prints the arguments of a call that failed.
    """

    values: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Leak:
    """A line that holds what no log may hold. `kind` names the secret, or the shape of one."""

    log: str
    line: int
    kind: str


class SecretLeakedError(AssertionError):
    """A log holds secrets."""

    def __init__(self, leaks: Iterable[Leak]) -> None:
        places = (f"  {leak.log}:{leak.line}: {leak.kind}" for leak in leaks)
        super().__init__("\n".join(["secrets in the log:", *places]))


def leaks_in(lines: Iterable[str], log: str, secrets: Secrets) -> list[Leak]:
    """Returns every leak in the lines of the log of this name: one of the secrets, or a shape of one."""
    known = {kind: _pieces(value) for kind, value in secrets.values.items() if len(value) >= SHORTEST_SECRET}
    leaks = []
    for number, line in enumerate(lines, 1):
        kinds = [kind for kind, pieces in known.items() if any(piece in line for piece in pieces)]
        kinds += [kind for kind, shape in SHAPES.items() if shape.search(line)]
        leaks += [Leak(log, number, kind) for kind in kinds]
    return leaks


def _pieces(secret: str) -> list[str]:
    middle = len(secret) // 2
    return [secret] if len(secret) < LONG_SECRET else [secret[:middle], secret[middle:]]
