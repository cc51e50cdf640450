"""The file of settings: `NAME=value` a line, taken as it stands, as `docker run --env-file` takes it."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
TOKENS: Final = ("SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS")


class UnusableFileError(ValueError):
    """The file cannot be read, or is no file of settings; the text names no value."""


def read_env_file(path: Path) -> dict[str, str]:
    """Reads the settings; of a name that is there twice the later counts, unless it is empty.

    A value in a pair of quotation marks is what stands between them.

    Raises:
        UnusableFileError: the file cannot be read, or has a line that is no setting, no comment and not empty.
    """
    settings: dict[str, str] = {}
    for number, line in enumerate(_lines(path), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = _LINE.fullmatch(text)
        if found is None:
            raise UnusableFileError(f"{path}, line {number}: expected NAME=value, a comment or nothing")
        value = _unquoted(found[2].strip())
        settings[found[1]] = value or settings.get(found[1], "")
    return settings


def add_new_tokens(path: Path) -> None:
    """Puts a new token in front of each list of tokens; the old ones stay known.

    Raises:
        UnusableFileError: the file cannot be read, or lacks one of the lists.
    """
    # 43 characters of A-Z a-z 0-9 - _, so 256 bits.
    _change_tokens(path, lambda tokens: [secrets.token_urlsafe(32), *tokens])


def keep_newest_tokens(path: Path) -> None:
    """Leaves of each list of tokens the first, which is the newest.

    Raises:
        UnusableFileError: the file cannot be read, or lacks one of the lists.
    """
    _change_tokens(path, lambda tokens: tokens[:1])


def split_tokens(text: str) -> list[str]:
    """The tokens of a list that is separated by commas."""
    return [token.strip() for token in text.split(",") if token.strip()]


def _change_tokens(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    lines = _lines(path)
    for name in TOKENS:
        places = [number for number, line in enumerate(lines) if line.strip().startswith(f"{name}=")]
        if not places:
            raise UnusableFileError(f"{path}: expected {name}, so that new tokens can be kept there")
        # An earlier line of this name counts for nothing, and would keep an old token.
        *earlier, last = places
        tokens = split_tokens(_unquoted(lines[last].strip().partition("=")[2].strip()))
        lines[last] = f"{name}={','.join(change(tokens))}"
        for number in reversed(earlier):
            del lines[number]
    _replace(path, "\n".join(lines) + "\n")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UnusableFileError(f"{path}: cannot be read: {reason}") from error


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _replace(path: Path, text: str) -> None:
    """All of it or nothing, whatever happens: it may hold the only copy of a token that is in force."""
    path = path.resolve()
    # Made for its owner alone, as secrets are.
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
