"""What a person can fix: one line that says what was expected, what was found, and what to do about it."""


class EmulatorError(Exception):
    """The emulator cannot continue; its message says what to do."""
