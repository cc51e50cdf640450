"""The file of settings, as python-dotenv reads it; `$` stands for itself."""

from __future__ import annotations

import secrets
from pathlib import Path

from dotenv import set_key
from dotenv.parser import parse_stream

from shared.config import split_name, split_tokens
from shared.errors import ConfigError

# Stands in the file between the two halves of a rotation: a list of several tokens may also be the user's own.
HALF_ROTATED = "# deploy.sh --rotate-tokens: the old tokens are still in use"
TOKEN_LISTS = ("SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS")


def read_env_file(path: Path) -> dict[str, str]:
    """Reads the settings; of a name that is there twice the later counts.

    Raises:
        ConfigError: the file cannot be read, or has a line that is no setting, no comment and not empty.
    """
    try:
        # By the parser itself: python-dotenv's own reader passes over what it cannot read.
        with path.open(encoding="utf-8") as file:
            bindings = list(parse_stream(file))
    except (OSError, UnicodeError) as failure:
        raise ConfigError([f"{path}: cannot be read: {failure}"]) from failure
    settings: dict[str, str] = {}
    for key, value, original, error in bindings:
        if error or (key and value is None):
            # The empty lines before a binding belong to it.
            number = original.line + original.string.rstrip().count("\n")
            raise ConfigError([f"{path}, line {number}: expected NAME=value, a comment or nothing"])
        if key:
            settings[key] = value or ""
    return settings


def change_tokens(path: Path, *, add: bool) -> None:
    """Changes each list of tokens; from then on only the file's owner may read it.

    A comment beside a list goes, and lines end as on Unix.

    Args:
        path: the file of settings.
        add: a new token comes first and the others stay known; otherwise only the first one stays. Admin tokens with a
            name are no part of this: their owners rotate them.

    Raises:
        ConfigError: the file cannot be read, or lacks one of the lists.
    """
    settings = read_env_file(path)
    missing = [name for name in TOKEN_LISTS if name not in settings]
    if missing:
        raise ConfigError([f"{path}: expected {name}, so that new tokens can be kept there" for name in missing])
    path.chmod(0o600)
    for name in TOKEN_LISTS:
        tokens, named = split_tokens(settings[name]), list[str]()
        if name == "SCHEDULER_ADMIN_TOKENS":
            named = [token for token in tokens if split_name(token)[0] != "admin"]
            tokens = [split_name(token)[1] for token in tokens if token not in named]
        # 43 characters of A-Z a-z 0-9 - _, so 256 bits.
        tokens = [secrets.token_urlsafe(32), *tokens] if add else tokens[:1]
        # In each line of this name, so that no earlier one keeps an old token; the file is replaced as a whole.
        set_key(path, name, ",".join([*tokens, *named]), quote_mode="never", follow_symlinks=True)
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line != HALF_ROTATED]
    path.write_text("\n".join([*lines, *([HALF_ROTATED] if add else [])]) + "\n", encoding="utf-8")


def is_half_rotated(path: Path) -> bool:
    """Returns whether new tokens were added, and the old ones not yet removed."""
    return HALF_ROTATED in path.read_text(encoding="utf-8").splitlines()
