"""How what was measured gets to its collector, and that one which is away holds nobody up and fails nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from shared.errors import EngineTransientError, OutOfTimeError, RequestError
from shared.evaluations import EvaluationBatch, EvaluationResult
from shared.observability import start_trace, trace_id
from shared.telemetry import MAX_FAILURE_SERIES, Telemetry, telemetry_for
from tests.otlp_collector import OtlpCollector, attributes_of
from tests.unit.log_lines import LogLines

ENGINE_URL = "https://somebody:hush@engine.example.org/base/v1/evaluations"
BATCH = EvaluationBatch("run", 7, (), 1, 1, "slot:x", "2026-11-23T02:00:00+00:00", False)
LOST = "telemetry_lost"


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OtlpCollector]:
    async with OtlpCollector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        # as long as a slice of these tests waits: a busy machine answers late
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        yield collector


@pytest.fixture
def telemetry(collector: OtlpCollector) -> Telemetry:
    return Telemetry(ENGINE_URL, flush_seconds=60)


async def only_span(telemetry: Telemetry, collector: OtlpCollector, name: str) -> Span:
    await telemetry.flush()
    (span,) = collector.spans_called(name)
    return span


async def test_what_ends_well_has_no_status_and_is_there_when_the_slice_is_over(
    telemetry: Telemetry, collector: OtlpCollector
) -> None:
    start_trace(None)
    async with telemetry.slice("schedule"):
        with telemetry.batch(BATCH):
            telemetry.recorded([EvaluationResult("anna", "a", "failed", error_code=None)], 5)
    (slice_,) = collector.spans_called("slice")
    assert slice_.status.code == Status.STATUS_CODE_UNSET
    assert slice_.trace_id.hex() == trace_id()
    assert collector.counted("scheduler.failures") == [({"scheduler.scenario.type": "a", "error.type": "_OTHER"}, 1)]


async def test_a_code_for_each_failure_makes_a_bounded_number_of_time_series(
    telemetry: Telemetry, collector: OtlpCollector
) -> None:
    codes = ["engine_timeout", *(f"code_{number}" for number in range(MAX_FAILURE_SERIES + 50)), "engine_timeout"]
    async with telemetry.slice("schedule"):
        telemetry.recorded([EvaluationResult("anna", "a", "failed", error_code=code) for code in codes], 5)
    counted = collector.counted("scheduler.failures")
    assert len(counted) == MAX_FAILURE_SERIES + 1
    assert ({"otel.metric.overflow": True}, 51) in counted
    assert ({"scheduler.scenario.type": "a", "error.type": "engine_timeout"}, 2) in counted


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (EngineTransientError("engine_timeout", "words of the engine"), "engine_timeout"),
        (OutOfTimeError("words"), "time_budget_exceeded"),
        (asyncio.CancelledError(), "cancelled"),
        (LookupError("words"), "LookupError"),
    ],
)
async def test_what_fails_says_why_by_a_code_and_in_nobodys_words(
    telemetry: Telemetry, collector: OtlpCollector, error: BaseException, cause: str
) -> None:
    with pytest.raises(type(error)), telemetry.engine_call(1):
        raise error
    span = await only_span(telemetry, collector, "POST")
    assert attributes_of(span.attributes)["error.type"] == cause
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, cause)
    assert list(span.events) == []
    assert "words" not in str(collector.traces)


@pytest.mark.parametrize(
    ("status", "code"), [(422, Status.STATUS_CODE_UNSET), (503, Status.STATUS_CODE_ERROR)], ids=["422", "503"]
)
async def test_a_callers_mistake_is_no_error_of_the_slice(
    telemetry: Telemetry, collector: OtlpCollector, status: int, code: int
) -> None:
    async def refused() -> None:
        async with telemetry.slice("schedule"):
            raise RequestError(status, "not_a_slot", "words")

    with pytest.raises(RequestError):
        await refused()
    (span,) = collector.spans_called("slice")
    assert attributes_of(span.attributes)["error.type"] == "not_a_slot"
    assert span.status.code == code


async def test_a_name_and_a_password_in_the_engines_url_are_not_sent(
    telemetry: Telemetry, collector: OtlpCollector
) -> None:
    with telemetry.engine_call(1) as call:
        call.answered(200)
    attributes = attributes_of((await only_span(telemetry, collector, "POST")).attributes)
    assert attributes["url.full"] == "https://engine.example.org/base/v1/evaluations"
    assert (attributes["server.address"], attributes["server.port"]) == ("engine.example.org", 443)
    assert "hush" not in str([*collector.traces, *collector.metrics])


async def test_a_collector_that_hangs_is_not_waited_for(collector: OtlpCollector, log: LogLines) -> None:
    collector.is_hanging = True
    telemetry = Telemetry(ENGINE_URL, flush_seconds=0.05)
    for _ in range(3):
        with telemetry.engine_call(1):
            pass
        await telemetry.flush()
    # It holds the first of it still: nobody waited for its answer, and nobody asked it again meanwhile.
    assert collector.unanswered <= 1
    assert [line["event"] for line in log.all()] == [LOST]


async def test_that_the_collector_is_away_is_told_once_each_time(
    telemetry: Telemetry, collector: OtlpCollector, log: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = iter([500, 500, 200, 200, 500])
    collector.status = 200
    told = []
    for status in statuses:
        collector.status = status
        with telemetry.engine_call(1):
            pass
        # By a patience that does not shrink, so that what is seen here does not hang on how busy this machine is.
        monkeypatch.setattr("shared.telemetry.RELUCTANT_FLUSH_SECONDS", 10)
        await telemetry.flush()
        told.append(len(log.of(LOST)))
    assert told == [1, 1, 1, 1, 2]


async def test_a_variable_that_the_sdk_refuses_is_told_and_stops_no_night(
    collector: OtlpCollector, log: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "-1")
    assert telemetry_for(ENGINE_URL) is None
    (line,) = log.all()
    assert (line["event"], line["severity"]) == ("telemetry_unusable", "ERROR")
    assert line["detail"].startswith("ValueError: ")


async def test_headers_for_the_collector_that_cannot_be_read_are_not_shown(
    collector: OtlpCollector, log: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "hush")
    assert telemetry_for(ENGINE_URL) is not None
    assert "hush" not in log.text
