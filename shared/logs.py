"""Logs: one JSON object a line on standard output.

Each line has `time`, `severity` and `message` (as Google Cloud Logging reads them), `component`, `event` (a stable
name), `trace_id` (the same for everything one request caused) and the fields of its event, described in
docs/log-events.schema.json. No line is written for a single evaluation, and no line has a secret, or personal data
beyond a user id.
"""

from __future__ import annotations

import logging
import random
import re
import secrets
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pythonjsonlogger.json import JsonFormatter

_logger = logging.getLogger("scheduler")
COMPONENT = "scenario-scheduler"
# Those of the server around the function: they have handlers of their own, which write plain text.
SERVER_LOGGERS = ("gunicorn.error", "gunicorn.access", "uvicorn.error", "uvicorn.access")
# Events of which any caller can cause as many as it sends requests.
CALLERS_EVENTS = frozenset(
    {"caller_refused", "client_disconnected", "internal_error"}
    | {"database_unavailable", "database_timeout", "database_refused", "mentors_view_invalid"}
)
MAX_LINES_PER_MINUTE = 60
# W3C Trace Context 2.2: version ff is forbidden, and so are ids of zeros only.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
)
# Google's older header: the span's id is decimal, and the sampling decision may be left out.
_CLOUD_TRACE_CONTEXT = re.compile(r"(?P<trace>(?!0{32})[0-9a-f]{32})(?:/(?P<span>[0-9]{1,20}))?(?:;o=(?P<flags>[01]))?")


class Trace(NamedTuple):
    """The current position in a trace: ids of 32 and 16 hexadecimal digits, and whether the trace is kept."""

    id: str
    span_id: str | None = None  # the caller's, or the span of this process under way
    sampled: bool | None = None  # None: not decided

    def header(self) -> str:
        """Returns a `traceparent` header: of its span, or of a new one that is recorded nowhere."""
        # Not from the system's entropy, which costs a system call: a span's id has to be new, not secret; zero is none.
        span_id = self.span_id or f"{random.getrandbits(64) or 1:016x}"
        return f"00-{self.id}-{span_id}-{'00' if self.sampled is False else '01'}"


_trace: ContextVar[Trace | None] = ContextVar("trace", default=None)


class _Formatter(JsonFormatter):
    """Shapes records of the standard library as this project's lines."""

    def __init__(self, google_cloud_project: str | None) -> None:
        super().__init__("%(message)s")
        self._project = google_cloud_project

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        # Google Cloud's names are those of the standard library's levels; libraries have others between them.
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        log_data["severity"] = logging.getLevelName(level)
        log_data["event"] = "log"
        log_data["component"] = COMPONENT
        if record.name == _logger.name:
            super().add_fields(log_data, record, message_dict)
        else:
            # Other fields of a library's records have a meaning of their own, which may collide with this log's names.
            traces = {name: message_dict[name] for name in ("exc_info", "stack_info") if name in message_dict}
            log_data |= {"logger": record.name, "message": record.getMessage()} | traces
            if suppressed_count := getattr(record, "suppressed_count", None):
                log_data["suppressed_count"] = suppressed_count
        trace = _trace.get()
        if trace is not None:
            log_data["trace_id"] = trace.id
            if self._project is not None:
                # By these Google Cloud Logging groups the lines of a request and links its trace.
                path = f"projects/{self._project}/traces/{trace.id}"
                members = {"trace": path, "spanId": trace.span_id, "trace_sampled": trace.sampled}
                log_data |= {f"logging.googleapis.com/{k}": v for k, v in members.items() if v is not None}


def _only_ours(record: logging.LogRecord) -> bool:
    """Passes a record to the root's handler and to no other: a server may replace those of its loggers after this."""
    logging.getLogger().handle(record)
    return False


class _BoundedRate:
    """Drops lines that callers cause beyond `MAX_LINES_PER_MINUTE` of a kind; the next one has their number."""

    def __init__(self) -> None:
        self._minute = 0
        self._lines = Counter[str]()
        self._suppressed = Counter[str]()

    def filter(self, record: logging.LogRecord) -> bool:
        kind = str(getattr(record, "event", "")) if record.name == _logger.name else record.name
        if kind not in CALLERS_EVENTS and kind not in SERVER_LOGGERS:
            return True
        minute = int(record.created // 60)
        if minute != self._minute:
            self._minute, self._lines = minute, Counter[str]()
        self._lines[kind] += 1
        if self._lines[kind] > MAX_LINES_PER_MINUTE:
            self._suppressed[kind] += 1
            return False
        if suppressed_count := self._suppressed.pop(kind, 0):
            record.suppressed_count = suppressed_count
        return True


def configure_logging(level: str, *, google_cloud_project: str | None = None) -> None:
    """Sends log lines of `level`, and warnings of libraries and the server, to standard output as JSON.

    Args:
        google_cloud_project: whose traces the lines point to, if it is known.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Formatter(google_cloud_project))
    handler.addFilter(_BoundedRate())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in SERVER_LOGGERS:
        logging.getLogger(name).addFilter(_only_ours)
    _logger.setLevel(level)


def start_trace(traceparent: str | None, cloud_trace_context: str | None = None) -> Trace:
    """Continues the caller's trace, by W3C's header or else by Google's, or starts one; log lines carry its id."""
    if known := _TRACEPARENT.fullmatch(traceparent or ""):
        trace = Trace(known["trace"], known["span"], bool(int(known["flags"], 16) & 1))
    elif known := _CLOUD_TRACE_CONTEXT.fullmatch(cloud_trace_context or ""):
        span = int(known["span"] or 0)
        sampled = None if known["flags"] is None else known["flags"] == "1"
        trace = Trace(known["trace"], f"{span:016x}" if 0 < span < 2**64 else None, sampled)
    else:
        trace = Trace(secrets.token_hex(16))
    _trace.set(trace)
    return trace


def current_trace() -> Trace:
    """Returns the current trace; starts one where there is none."""
    return _trace.get() or start_trace(None)


def traceparent() -> str:
    """Returns a `traceparent` header for a call that this trace makes, in a span of its own."""
    trace = current_trace()
    return Trace(trace.id, sampled=trace.sampled).header()


@contextmanager
def within_span(trace: Trace) -> Iterator[None]:
    """Sets the span that log lines within the block carry."""
    token = _trace.set(trace)
    try:
        yield
    finally:
        _trace.reset(token)


def log_event(event: str, message: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Writes one line. `event` is the stable name that queries look for; fields that are None are left out."""
    if _logger.isEnabledFor(level):
        _logger.log(level, message, extra={"event": event} | {k: v for k, v in fields.items() if v is not None})


def log_exception(event: str, message: str, error: BaseException) -> None:
    """Writes a defect with its traceback."""
    _logger.error(message, extra={"event": event}, exc_info=error)
