"""One JSON object a line, whatever is logged; and one trace id for all that one request causes."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.observability import (
    MAX_LINES_PER_MINUTE,
    SERVER_LOGGERS,
    log_event,
    log_exception,
    start_trace,
    trace_id,
    traceparent,
)
from tests.unit.log_lines import LogLines, captured_log

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def log() -> Iterator[LogLines]:
    """With events that nobody documented: what is tested here is their shape."""
    with captured_log(documented=False) as lines:
        yield lines


ODD_TEXTS = [
    'a"b',
    "two\nlines",
    'injected\n{"severity": "ERROR", "event": "forged"}',
    "carriage\rreturn",
    "next line \x85, separators \u2028 \u2029",
    "nul \x00 escape \x1b[31m",
    "lone \ud800 surrogate",
    "percent %s %d %(message)s",
    "{braces}",
    "日本語 🎉",
]


def test_a_line_has_time_severity_message_event_trace_and_its_fields(log: LogLines) -> None:
    start_trace(f"00-{TRACE}-b7ad6b7169203331-01")
    log_event("batch_recorded", "Batch 3 is in", batch_no=3, counts={"failed": 1}, dry_run=False)
    (line,) = log.all()
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert line == {
        "severity": "INFO",
        "message": "Batch 3 is in",
        "event": "batch_recorded",
        "trace_id": TRACE,
        "batch_no": 3,
        "counts": {"failed": 1},
        "dry_run": False,
    }


def test_a_field_without_a_value_is_left_out(log: LogLines) -> None:
    log_event("e", "m", error=None, count=0, text="")
    (line,) = log.all()
    assert "error" not in line
    assert (line["count"], line["text"]) == (0, "")


@pytest.mark.parametrize("text", ODD_TEXTS, ids=ascii)
def test_no_text_can_start_a_line_of_its_own(log: LogLines, text: str) -> None:
    log_event(text, text, field=text)
    assert log.text.endswith("\n")
    assert len(log.text.splitlines()) == 1
    assert log.text[:-1].isprintable()
    assert log.text.isascii()  # so that any encoding of standard output can take it
    (line,) = log.all()
    assert (line["event"], line["message"], line["field"]) == (text, text, text)


@given(st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.booleans()))
def test_any_text_comes_back_as_it_was_from_one_line(text: str, values: dict[str, object]) -> None:
    with captured_log(documented=False) as log:
        log_event("e", text, values=values)
        (line,) = log.all()
        assert len(log.text.splitlines()) == 1
        assert (line["message"], line["values"]) == (text, values)


def test_a_defect_is_logged_with_its_traceback_on_one_line(log: LogLines) -> None:
    try:
        raise LookupError("what\nwas looked for")
    except LookupError as error:
        log_exception("internal_error", "A defect", error)
    (line,) = log.all()
    assert (line["event"], line["severity"]) == ("internal_error", "ERROR")
    assert "Traceback" in json.dumps(line)
    assert "was looked for" in json.dumps(line)


@pytest.mark.parametrize(("level", "written"), [("DEBUG", 4), ("INFO", 3), ("WARNING", 2), ("ERROR", 1)])
def test_less_severe_lines_than_the_level_are_not_written(level: str, written: int) -> None:
    with captured_log(level, documented=False) as log:
        for severity in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            log_event("e", "m", level=severity)
        assert len(log.all()) == written


def test_a_librarys_warnings_have_the_same_shape_and_its_chatter_is_not_written(log: LogLines) -> None:
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("watch %s", "out")
    (line,) = log.all()
    assert (line["event"], line["severity"], line["message"]) == ("log", "WARNING", "watch out")
    assert line["logger"] == "some.library"


def test_what_a_library_adds_to_its_records_is_no_field_of_ours() -> None:
    with captured_log() as log:
        logging.getLogger("some.library").error({"event": "forged"}, extra={"event": "forged", "batch_no": 7})
        logging.getLogger("some.library").log(logging.ERROR + 5, "a level between two", stack_info=True)
        first, second = log.all()
    assert first.keys() == {"time", "severity", "event", "message", "logger"} | first.keys() & {"trace_id"}
    assert first["event"] == "log"
    assert second["severity"] == "ERROR"
    assert "stack_info" in second


@pytest.mark.parametrize("name", SERVER_LOGGERS)
def test_what_the_server_around_the_function_says_has_the_same_shape_and_is_said_once(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Gunicorn gives its loggers handlers of their own after this was configured, and uvicorn's worker copies them."""
    server = logging.getLogger(name)
    with captured_log() as log:
        handler, propagated = logging.StreamHandler(), server.propagate
        server.addHandler(handler)
        server.propagate = False
        try:
            server.error("Worker (pid:%d) was sent SIGKILL!", 17)
        finally:
            server.removeHandler(handler)
            server.propagate = propagated
        (line,) = log.all()
    assert (line["event"], line["logger"], line["severity"]) == ("log", name, "ERROR")
    assert line["message"] == "Worker (pid:17) was sent SIGKILL!"
    assert capsys.readouterr().err == ""


def test_the_callers_trace_is_continued() -> None:
    start_trace(f"00-{TRACE}-b7ad6b7169203331-01")
    assert trace_id() == TRACE
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-01", traceparent())


def test_each_call_of_a_trace_is_a_span_of_its_own() -> None:
    start_trace(f"00-{TRACE}-b7ad6b7169203331-01")
    assert traceparent() != traceparent()
    assert "b7ad6b7169203331" not in traceparent()


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        TRACE,
        f"00-{TRACE[:-1]}-b7ad6b7169203331-01",
        f"00-{TRACE.upper()}-b7ad6b7169203331-01",
        f"00-{TRACE[:-1]}g-b7ad6b7169203331-01",
        f"00-{TRACE}-b7ad6b7169203331",
        f"00-{TRACE}-b7ad6b7169203331-01\nX-Injected: 1",
        f" 00-{TRACE}-b7ad6b7169203331-01",
        f"00-{TRACE}-b7ad6b7169203331-01" * 1000,
    ],
)
def test_a_traceparent_that_is_none_is_replaced_by_a_trace_of_our_own(header: str | None) -> None:
    start_trace(header)
    ours = trace_id()
    assert re.fullmatch(r"[0-9a-f]{32}", ours)
    assert ours != TRACE
    assert trace_id() == ours
    start_trace(header)
    assert trace_id() != ours


@pytest.mark.parametrize(
    "header",
    [
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"ff-{'a' * 32}-b7ad6b7169203331-01",
        f"00-{'a' * 32}-{'0' * 16}-01",
    ],
)
def test_a_trace_that_the_standard_forbids_is_not_continued(header: str) -> None:
    start_trace(header)
    assert trace_id() not in header


SPAN = "b7ad6b7169203331"


def google_members(line: dict[str, object]) -> dict[str, object]:
    return {key.partition("/")[2]: value for key, value in line.items() if key.startswith("logging.googleapis.com/")}


@pytest.mark.parametrize(
    ("traceparent_", "cloud_trace_context", "members"),
    [
        (f"00-{TRACE}-{SPAN}-01", None, {"spanId": SPAN, "trace_sampled": True}),
        (f"00-{TRACE}-{SPAN}-00", None, {"spanId": SPAN, "trace_sampled": False}),
        (f"00-{TRACE}-{SPAN}-01", f"{'a' * 32}/1;o=0", {"spanId": SPAN, "trace_sampled": True}),
        (None, f"{TRACE}/{int(SPAN, 16)};o=1", {"spanId": SPAN, "trace_sampled": True}),
        ("nonsense", f"{TRACE}/17;o=0", {"spanId": f"{17:016x}", "trace_sampled": False}),
        (None, f"{TRACE}/0", {}),
        (None, f"{TRACE}/{2**64}", {}),
        (None, TRACE, {}),
    ],
)
def test_google_cloud_finds_the_trace_of_a_line(
    traceparent_: str | None, cloud_trace_context: str | None, members: dict[str, object]
) -> None:
    with captured_log(google_cloud_project="my-project") as log:
        start_trace(traceparent_, cloud_trace_context)
        log_event("caller_left", "m")
        (line,) = log.all()
    assert line["trace_id"] == TRACE
    assert google_members(line) == {"trace": f"projects/my-project/traces/{TRACE}"} | members


def test_elsewhere_a_line_has_the_traces_id_alone(log: LogLines) -> None:
    start_trace(f"00-{TRACE}-{SPAN}-01")
    log_event("caller_left", "m")
    (line,) = log.all()
    assert line["trace_id"] == TRACE
    assert google_members(line) == {}


@pytest.mark.parametrize(
    "header", ["", "nonsense", f"{'0' * 32}/1;o=1", f"{TRACE.upper()}/1", f"{TRACE}/x", f"{TRACE};o=2"]
)
def test_a_cloud_trace_context_that_is_none_is_replaced(header: str) -> None:
    start_trace(None, header)
    assert trace_id() not in (TRACE, "0" * 32)


@pytest.mark.parametrize(("flags", "passed_on"), [("00", "00"), ("01", "01"), ("03", "01")])
def test_the_callers_decision_to_keep_a_trace_or_not_is_passed_on(flags: str, passed_on: str) -> None:
    start_trace(f"00-{TRACE}-{SPAN}-{flags}")
    assert traceparent().endswith(f"-{passed_on}")


@pytest.mark.parametrize("kind", ["caller_refused", "caller_left", "database_unavailable", "uvicorn.error"])
def test_lines_that_callers_cause_are_bounded_and_the_next_says_how_many_were_left_out(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write() -> None:
        if kind in SERVER_LOGGERS:
            logging.getLogger(kind).error("Invalid HTTP request received.")
        else:
            log_event(kind, "m", path="/", level=logging.ERROR)

    with captured_log(documented=False) as log:
        for _ in range(MAX_LINES_PER_MINUTE + 7):
            write()
        log_event("batch_recorded", "of no caller's doing")
        assert len(log.all()) == MAX_LINES_PER_MINUTE + 1
        in_a_minute = time.time() + 61
        monkeypatch.setattr(time, "time", lambda: in_a_minute)
        write()
        write()
        *_, first, second = log.all()
    assert first["suppressed_count"] == 7
    assert "suppressed_count" not in second
