"""What the code under test has logged, read back as an operator's tools would."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from shared.logs import configure_logging
from tests.log_schema import check_lines
from tests.secret_scan import SecretLeakedError, Secrets, leaks_in
from tests.unit.environment import REQUIRED

SECRETS = Secrets({name: value for name, value in REQUIRED.items() if not name.endswith("_URL")})


class LogLines:
    """Everything written to standard output so far."""

    def __init__(self, written: io.StringIO) -> None:
        self._written = written

    @property
    def text(self) -> str:
        return self._written.getvalue()

    def all(self) -> list[dict[str, Any]]:
        """Each line as an object; a line that is not JSON fails the test."""
        return [json.loads(line) for line in self.text.splitlines()]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.all() if line["event"] == event]


@contextmanager
def captured_log(
    level: str = "INFO", *, documented: bool = True, google_cloud_project: str | None = None
) -> Iterator[LogLines]:
    """Logs as the function does, and puts the process's own logging back afterwards.

    Unless the block fails, it raises SecretLeakedError for a secret in the log, and UndocumentedLineError for a line
    that the schema does not know; the latter only if `documented`, which is false where a test makes up events.
    """
    root = logging.getLogger()
    handlers, root_level = root.handlers[:], root.level
    written = io.StringIO()
    try:
        with redirect_stdout(written):
            configure_logging(level, google_cloud_project=google_cloud_project)
            yield LogLines(written)
    finally:
        root.handlers[:] = handlers
        root.setLevel(root_level)
    if leaks := leaks_in(written.getvalue().splitlines(), "log", SECRETS):
        raise SecretLeakedError(leaks)
    if documented:
        check_lines(written.getvalue().splitlines(), "log", formats=False)
