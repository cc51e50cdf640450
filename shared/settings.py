"""How the text of a setting becomes its value: a reader for each kind of setting, and how they are read together.

By hand: to import pydantic for it would cost a process a fifth of the time to its first answer, and gunicorn's parent,
which has no other use for it, nine megabytes.

A reader takes a text that is not empty and has no space around it. It raises an `UnusableSettingError` that says what
was expected, and what was found unless that is a secret.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSimError

from shared.secret import Secret
from shared.slots import Schedule


class UnusableSettingError(ValueError):
    """A setting's text is not usable.

    Args:
        expected: what was expected.
        place: where in the value, such as `[1][type]`; empty: as a whole.
    """

    def __init__(self, expected: str, *, place: str = "") -> None:
        super().__init__(expected)
        self.place: Final = place


def setting(read: Callable[[str], Any], default: Any = MISSING, *, recorded: bool = True) -> Any:
    """A dataclass's field with the reader of its text; without a default it has to be set.

    What has to be set, and what is not `recorded`, is not shown to those who look at an invocation.
    """
    return field(default=default, metadata={"read": read, "recorded": recorded and default is not MISSING})


def read_settings(kind: type[Any], environment: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Reads each setting of a kind of configuration by itself.

    Args:
        kind: a dataclass whose fields were made by `setting`; each is the variable of the same name in capitals.
        environment: names and values, such as `os.environ`; an empty value counts as not set.

    Returns:
        The usable settings by the names of their fields, and what is wrong with the others.
    """
    usable: dict[str, Any] = {}
    problems: list[str] = []
    for one in fields(kind):
        key = one.name.upper()
        text = environment.get(key, "").strip()
        try:
            if text:
                usable[one.name] = one.metadata["read"](text)
            elif one.default is MISSING:
                problems.append(f"{key}: missing")
            else:
                usable[one.name] = one.default
        except UnusableSettingError as error:
            problems.append(f"{key}{error.place}: {error}")
    return usable, problems


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """A reader of whole numbers within bounds; no upper bound: None."""
    expected = f"a whole number from {least} to {most}" if most is not None else f"a whole number of at least {least}"

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError as error:
            raise UnusableSettingError(f"expected {expected}, found {text[:20]!r}") from error
        if number < least or (most is not None and number > most):
            raise UnusableSettingError(f"expected {expected}, found {text[:20]}")
        return number

    return read


def number(*, above: float, most: float) -> Callable[[str], float]:
    """A reader of numbers within bounds."""
    expected = f"a number above {above:g}, at most {most:g}"

    def read(text: str) -> float:
        try:
            found = float(text)
        except ValueError as error:
            raise UnusableSettingError(f"expected {expected}, found {text[:20]!r}") from error
        if not above < found <= most:  # a NaN is neither
            raise UnusableSettingError(f"expected {expected}, found {text[:20]}")
        return found

    return read


def fraction(text: str) -> float:
    """Reads a share of a whole: from 0, and less than 1."""
    expected = "a fraction from 0 up to, but not including, 1"
    try:
        found = float(text)
    except ValueError as error:
        raise UnusableSettingError(f"expected {expected}, found {text[:20]!r}") from error
    if not 0 <= found < 1:
        raise UnusableSettingError(f"expected {expected}, found {text[:20]}")
    return found


def one_of(*texts: str) -> Callable[[str], str]:
    """A reader of one of these texts."""

    def read(text: str) -> str:
        if text not in texts:
            raise UnusableSettingError(f"expected one of {', '.join(texts)}, found {text!r}")
        return text

    return read


def http_url(text: str) -> str:
    """Reads a URL; the slash at its end is no part of it."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # read only now: there are no others than 0 to 65535
    except ValueError as error:
        raise UnusableSettingError("expected a URL such as https://host.example") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", text):
        raise UnusableSettingError("expected a URL such as https://host.example")
    return text.rstrip("/")


def secret_http_url(text: str) -> Secret:
    """Reads a URL that is a secret as a whole, as those of chat webhooks are: whoever knows it may post."""
    # Unlike `http_url` it keeps its last slash: who made the secret knows what belongs to it.
    http_url(text)
    return secret(text)


def secret(text: str) -> Secret:
    """Reads what a header has to be able to carry."""
    if not re.fullmatch(r"[!-~]+", text):
        raise UnusableSettingError("expected printable ASCII characters without spaces")
    return Secret(text)


def secrets(*, least: int, most: int) -> Callable[[str], tuple[Secret, ...]]:
    """A reader of secrets that are separated by commas, each of `least` to `most` characters."""

    def read(text: str) -> tuple[Secret, ...]:
        tokens = [token.strip() for token in text.split(",") if token.strip()]
        if not tokens:
            raise UnusableSettingError("expected at least one token")
        found = tuple(secret(token) for token in tokens)
        if short := [str(n) for n, token in enumerate(tokens, 1) if len(token) < least]:
            raise UnusableSettingError(f"expected at least {least} characters, token {', '.join(short)} has fewer")
        if long := [str(n) for n, token in enumerate(tokens, 1) if len(token) > most]:
            raise UnusableSettingError(f"expected at most {most} characters, token {', '.join(long)} has more")
        return found

    return read


def signing_secret(text: str) -> Secret:
    """Reads a secret of Standard Webhooks: `whsec_` and 24 to 64 bytes in base64."""
    expected = "whsec_ and 24 to 64 bytes in base64, such as whsec_$(openssl rand -base64 32)"
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError as error:
        raise UnusableSettingError(f"expected {expected}") from error
    if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise UnusableSettingError(f"expected {expected}")
    return secret(text)


def cloud_project(text: str) -> str:
    """Reads the id of a Google Cloud project."""
    if not re.fullmatch(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", text):
        raise UnusableSettingError(f"expected the id of a Google Cloud project, found {text[:40]!r}")
    return text


def timezone_name(text: str) -> str:
    """Reads the name of a time zone."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnusableSettingError(f"expected an IANA time zone such as Europe/Oslo, found {text!r}") from error
    return text


def cron_expression(text: str) -> str:
    """Reads a cron expression."""
    if len(text.split()) != 5:
        raise UnusableSettingError(f"expected a cron expression of five fields, found {text!r}")
    try:
        Schedule(text, ZoneInfo("UTC"))
    except CronSimError as error:
        raise UnusableSettingError(f"expected a cron expression, found {text!r}: {error}") from error
    return text
