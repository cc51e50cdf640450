"""A text that must not be shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Shows itself only to whoever asks for its value by name: neither to a log line nor to a traceback."""

    _value: str

    def get_secret_value(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(**********)"
