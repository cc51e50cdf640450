"""Makes foreign text fit to be shown."""

from __future__ import annotations

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def sanitize(text: str, *, limit: int = 200) -> str:
    """Returns `text` on one line, as valid Unicode, cut to a length.

    A caller's JSON may hold a lone surrogate (`"\\ud800"`), which no UTF-8 encoder takes; a path may hold a line break
    or an escape sequence. Each character that `str.isprintable` does not know becomes U+FFFD; the ellipsis of a text
    that is cut counts towards `limit`.
    """
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(character if character.isprintable() else REPLACEMENT for character in shown)
