"""The file of settings, as python-dotenv reads it; `$` stands for itself."""

from __future__ import annotations

import secrets
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from shared.config import split_name, split_tokens
from shared.errors import ConfigError

TOKEN_LISTS = ("SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS")


def read_env_file(path: Path) -> dict[str, str]:
    """Reads the settings; of a name that is there twice the later counts.

    Raises:
        ConfigError: the file cannot be read, or has a line that is no setting, no comment and not empty.
    """
    return {each.key: each.value or "" for each in _parse(path) if each.key}


def change_tokens(path: Path, *, add: bool) -> None:
    """Changes both lists of tokens, and nothing else; from then on only the file's owner may read it.

    With `add` a new token comes first and the others stay known; otherwise only the first one stays. Admin tokens with
    a name are no part of this: their owners rotate them.
    """
    bindings, settings, lists = _parse(path), read_env_file(path), dict[str | None, str]()
    for name in TOKEN_LISTS:
        tokens, named = split_tokens(settings[name]), list[str]()
        if name == "SCHEDULER_ADMIN_TOKENS":
            named = [token for token in tokens if split_name(token)[0] != "admin"]
            tokens = [split_name(token)[1] for token in tokens if token not in named]
        # 43 characters of A-Z a-z 0-9 - _, so 256 bits.
        tokens = [secrets.token_urlsafe(32), *tokens] if add else tokens[:1]
        lists[name] = ",".join([*tokens, *named])
    # In each line of this name, so that no earlier one keeps an old token.
    texts = [
        each.original.string.replace(each.value, lists[each.key])
        if each.value and each.key in lists
        else each.original.string
        for each in bindings
    ]
    # Replaced as a whole: what is cut off in the middle would have lost every secret.
    new = path.resolve().with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_text("".join(texts), encoding="utf-8", newline="")
    new.replace(path.resolve())


def _parse(path: Path) -> list[Binding]:
    try:
        # By the parser itself: python-dotenv's own reader passes over what it cannot read. Lines end as they do.
        with path.open(encoding="utf-8", newline="") as file:
            bindings = list(parse_stream(file))
    except (OSError, UnicodeError) as failure:
        raise ConfigError([f"{path}: cannot be read: {failure}"]) from failure
    for each in bindings:
        if each.error or (each.key and each.value is None):
            # The empty lines before a binding belong to it.
            number = each.original.line + each.original.string.rstrip().count("\n")
            raise ConfigError([f"{path}, line {number}: expected NAME=value, a comment or nothing"])
    return bindings
