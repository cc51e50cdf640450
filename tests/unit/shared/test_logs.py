"""One JSON object a line, whatever is logged; and one trace id for all that one request causes."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from shared.logs import (
    MAX_LINES_PER_MINUTE,
    SERVER_LOGGERS,
    current_trace,
    log_event,
    log_exception,
    start_trace,
    traceparent,
)
from tests.unit.log_lines import LogLines, captured_log

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@pytest.fixture
def log() -> Iterator[LogLines]:
    """With events that are not documented: what is tested here is their shape."""
    with captured_log(documented=False) as lines:
        yield lines


def test_a_line_has_time_severity_message_event_trace_and_fields(log: LogLines) -> None:
    start_trace(f"00-{TRACE}-{SPAN}-01")
    log_event("batch_recorded", "Batch 3 is in", batch_no=3, counts={"failed": 1}, text="", error=None)
    (line,) = log.all()
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line == {
        "severity": "INFO",
        "component": "scenario-scheduler",
        "message": "Batch 3 is in",
        "event": "batch_recorded",
        "trace_id": TRACE,
        "batch_no": 3,
        "counts": {"failed": 1},
        "text": "",
    }


@pytest.mark.parametrize(
    "text",
    [
        *('a"b', "two\nlines", "carriage\rreturn", "next line \x85, separators \u2028 \u2029", "lone \ud800 surrogate"),
        *('injected\n{"severity": "ERROR"}', "nul \x00 escape \x1b[31m", "percent %s %d %(message)s", "日本語 🎉"),
    ],
    ids=ascii,
)
def test_no_text_can_start_a_line_of_its_own(log: LogLines, text: str) -> None:
    log_event(text, text, field=text)
    assert log.text.endswith("\n")
    assert log.text[:-1].isprintable()
    assert log.text.isascii()  # so that any encoding of standard output can take it
    (line,) = log.all()
    assert (line["event"], line["message"], line["field"]) == (text, text, text)


def test_a_defect_is_logged_with_its_traceback_on_one_line(log: LogLines) -> None:
    try:
        raise LookupError("what\nwas looked for")
    except LookupError as error:
        log_exception("internal_error", "A defect", error)
    (line,) = log.all()
    assert (line["event"], line["severity"]) == ("internal_error", "ERROR")
    assert "Traceback" in json.dumps(line)
    assert "was looked for" in json.dumps(line)


def test_less_severe_lines_than_the_level_are_not_written() -> None:
    with captured_log("WARNING", documented=False) as log:
        for severity in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            log_event("e", "m", level=severity)
        assert [line["severity"] for line in log.all()] == ["WARNING", "ERROR"]


def test_a_librarys_warning_has_the_same_shape_without_its_fields() -> None:
    library = logging.getLogger("some.library")
    with captured_log() as log:
        library.info("chatter")
        library.warning("watch %s", "out", extra={"event": "forged", "batch_no": 7})
        library.log(logging.ERROR + 5, "a level between two", stack_info=True)
        first, second = log.all()
    assert first.keys() - {"time", "trace_id"} == {"severity", "component", "event", "message", "logger"}
    assert (first["event"], first["severity"], first["message"]) == ("log", "WARNING", "watch out")
    assert second["severity"] == "ERROR"
    assert "stack_info" in second


@pytest.mark.parametrize("name", SERVER_LOGGERS)
def test_a_line_of_the_server_has_that_shape_once(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gunicorn gives its loggers handlers of their own after this was configured, and uvicorn's worker copies them."""
    server = logging.getLogger(name)
    with captured_log() as log:
        monkeypatch.setattr(server, "handlers", [logging.StreamHandler()])
        monkeypatch.setattr(server, "propagate", False)
        server.error("Worker (pid:%d) was sent SIGKILL!", 17)
        (line,) = log.all()
    assert (line["event"], line["logger"], line["severity"]) == ("log", name, "ERROR")
    assert line["message"] == "Worker (pid:17) was sent SIGKILL!"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("flags", "passed_on"), [("00", "00"), ("01", "01"), ("03", "01")])
def test_the_callers_trace_is_continued_by_spans_of_our_own(flags: str, passed_on: str) -> None:
    start_trace(f"00-{TRACE}-{SPAN}-{flags}")
    sent = [traceparent(), traceparent()]
    assert current_trace().id == TRACE
    assert all(re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-{passed_on}", header) for header in sent)
    assert len({*sent, f"00-{TRACE}-{SPAN}-{passed_on}"}) == 3


NO_TRACEPARENTS = (
    *("", "nonsense", TRACE, f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-01" * 1000),
    f"00-{TRACE}-{SPAN}-01\nX-Injected: 1",
    # What the standard forbids.
    *(f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{'0' * 32}-{SPAN}-01"),
)
NO_CLOUD_TRACES = (None, "", "nonsense", f"{TRACE.upper()}/1", f"{TRACE}/x", f"{TRACE};o=2", f"{'0' * 32}/1;o=1")


def test_a_trace_that_is_none_is_replaced() -> None:
    for headers in (*((odd, None) for odd in NO_TRACEPARENTS), *((None, odd) for odd in NO_CLOUD_TRACES)):
        start_trace(*headers)
        first, again = current_trace().id, current_trace().id
        assert first == again != start_trace(*headers).id
        assert re.fullmatch(r"[0-9a-f]{32}", first)
        assert first not in (TRACE, "0" * 32)


@pytest.mark.parametrize(
    ("traceparent_", "cloud_trace_context", "members"),
    [
        (f"00-{TRACE}-{SPAN}-01", None, {"spanId": SPAN, "trace_sampled": True}),
        (f"00-{TRACE}-{SPAN}-00", None, {"spanId": SPAN, "trace_sampled": False}),
        (f"00-{TRACE}-{SPAN}-01", f"{'a' * 32}/1;o=0", {"spanId": SPAN, "trace_sampled": True}),
        (None, f"{TRACE}/{int(SPAN, 16)};o=1", {"spanId": SPAN, "trace_sampled": True}),
        ("nonsense", f"{TRACE}/17;o=0", {"spanId": f"{17:016x}", "trace_sampled": False}),
        *((None, context, {}) for context in (f"{TRACE}/0", f"{TRACE}/{2**64}", TRACE)),
    ],
)
def test_google_cloud_finds_the_trace_of_a_line(
    traceparent_: str | None, cloud_trace_context: str | None, members: dict[str, object]
) -> None:
    with captured_log(google_cloud_project="my-project") as log:
        start_trace(traceparent_, cloud_trace_context)
        log_event("client_disconnected", "m")
        (line,) = log.all()
    google = {key.removeprefix("logging.googleapis.com/"): value for key, value in line.items() if "google" in key}
    assert google == {"trace": f"projects/my-project/traces/{TRACE}"} | members
    assert line["trace_id"] == TRACE


@pytest.mark.parametrize("kind", ["caller_refused", "client_disconnected", "database_unavailable", "uvicorn.error"])
def test_lines_that_callers_cause_are_bounded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def write() -> None:
        if kind in SERVER_LOGGERS:
            logging.getLogger(kind).error("Invalid HTTP request received.")
        else:
            log_event(kind, "m", path="/", level=logging.ERROR)

    seconds = 1_800_000_000
    monkeypatch.setattr(time, "time", lambda: float(seconds))
    monkeypatch.setattr(time, "time_ns", lambda: seconds * 10**9)
    with captured_log(documented=False) as log:
        for _ in range(MAX_LINES_PER_MINUTE + 7):
            write()
        log_event("batch_recorded", "of no caller's doing")
        assert len(log.all()) == MAX_LINES_PER_MINUTE + 1
        seconds += 60
        write()
        write()
        *_, first, second = log.all()
    assert first["suppressed_count"] == 7
    assert "suppressed_count" not in second
