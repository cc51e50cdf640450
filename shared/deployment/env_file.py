"""The file of settings, as python-dotenv reads it; `$` stands for itself."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from dotenv import set_key
from dotenv.parser import parse_stream

from shared.config import split_tokens

TOKENS: Final = ("SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS")


class UnusableFileError(ValueError):
    """The file cannot be read, or is no file of settings; the text names no value."""


def read_env_file(path: Path) -> dict[str, str]:
    """Reads the settings; of a name that is there twice the later counts.

    Raises:
        UnusableFileError: the file cannot be read, or has a line that is no setting, no comment and not empty.
    """
    settings: dict[str, str] = {}
    try:
        # By the parser itself: python-dotenv's own reader passes over what it cannot read.
        with path.open(encoding="utf-8") as file:
            for key, value, original, error in parse_stream(file):
                if error or (key and value is None):
                    blank = len(original.string) - len(original.string.lstrip())
                    number = original.line + original.string[:blank].count("\n")
                    raise UnusableFileError(f"{path}, line {number}: expected NAME=value, a comment or nothing")
                if key:
                    settings[key] = value or ""
    except (OSError, UnicodeError) as failure:
        raise UnusableFileError(f"{path}: cannot be read: {failure}") from failure
    return settings


def change_tokens(path: Path, change: str) -> None:
    """Changes each list of tokens, and nothing else.

    Args:
        path: the file of settings; from then on its owner alone may read it.
        change: `add`: a new token comes first, the others stay known; `keep-newest`: the first alone stays.

    Raises:
        UnusableFileError: the file cannot be read, or lacks one of the lists.
    """
    settings = read_env_file(path)
    for name in TOKENS:
        if name not in settings:
            raise UnusableFileError(f"{path}: expected {name}, so that new tokens can be kept there")
    path.chmod(0o600)
    for name in TOKENS:
        tokens = split_tokens(settings[name])
        # 43 characters of A-Z a-z 0-9 - _, so 256 bits.
        tokens = [secrets.token_urlsafe(32), *tokens] if change == "add" else tokens[:1]
        # In each line of this name, so that no earlier one keeps an old token; the file is replaced as a whole.
        set_key(path, name, ",".join(tokens), quote_mode="never", follow_symlinks=True)
