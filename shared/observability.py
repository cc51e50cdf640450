"""Logs: one JSON object a line on standard output.

Each line has `time`, `severity` and `message` (as Google Cloud Logging reads them), `event` (a stable name), `trace_id`
(the same for everything one request caused) and the fields of its event, listed in docs/logging.md. No line is written
for a single evaluation, and none holds a secret or more of a person than her user id.
"""

from __future__ import annotations

import logging
import random
import re
import secrets
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

_logger = logging.getLogger("scheduler")
# W3C Trace Context 2.2: version ff is forbidden, and so are ids of zeros only.
_TRACEPARENT = re.compile(r"^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$")
_trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)


class _Formatter(JsonFormatter):
    """Standard library records, shaped as this project's lines."""

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["severity"] = record.levelname
        log_data["event"] = "log"
        super().add_fields(log_data, record, message_dict)
        trace_id = _trace_id.get()
        if trace_id is not None:
            log_data["trace_id"] = trace_id


def configure_logging(level: str) -> None:
    """Sends this project's log lines to standard output as JSON; libraries' warnings with them.

    Args:
        level: the least severe level that is written: DEBUG, INFO, WARNING or ERROR.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Formatter("%(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _logger.setLevel(level)


def start_trace(traceparent: str | None) -> None:
    """Continues the caller's trace (W3C Trace Context), or starts one; log lines from here on carry its id."""
    known = _TRACEPARENT.match(traceparent or "")
    _trace_id.set(known.group(1) if known else secrets.token_hex(16))


def trace_id() -> str:
    """The current trace's id: 32 hexadecimal digits."""
    current = _trace_id.get()
    if current is None:
        start_trace(None)
        return trace_id()
    return current


def traceparent() -> str:
    """A `traceparent` header for a call that this trace makes."""
    # Not from the system's entropy, which costs a system call: a span's id has to be new, not secret; zero is none.
    return f"00-{trace_id()}-{random.getrandbits(64) or 1:016x}-01"


def log_event(event: str, message: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Writes one line.

    Args:
        event: the stable name that queries look for.
        message: the same for a person.
        level: a level of the standard library's `logging`.
        fields: the event's fields; None is left out.
    """
    if _logger.isEnabledFor(level):
        _logger.log(level, message, extra={"event": event} | {k: v for k, v in fields.items() if v is not None})


def log_exception(event: str, message: str, error: BaseException) -> None:
    """Writes a defect of ours with its traceback."""
    _logger.error(message, extra={"event": event}, exc_info=error)
