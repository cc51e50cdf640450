"""How what was measured gets to its collector, and that one which is away holds up and fails nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from shared.errors import DeadlineExceededError, EngineTransientError, RequestError
from shared.evaluations import EvaluationBatch, EvaluationResult
from shared.logs import current_trace, start_trace
from shared.telemetry import MAX_FAILURE_SERIES, Telemetry, telemetry_for
from tests.emulator.ports import free_port
from tests.otlp_collector import OtlpCollector, attributes_of
from tests.unit.log_lines import LogLines

ENGINE_URL = "https://engine.example.org/base/v1/evaluations"
BATCH = EvaluationBatch("run", 7, (), 1, 1, "slot:x", "2026-11-23T02:00:00+00:00", False)


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


async def test_a_slice_is_sent_at_its_end_with_bounded_series(telemetry: Telemetry, collector: OtlpCollector) -> None:
    start_trace(None)
    codes = [None, *(f"code_{number}" for number in range(MAX_FAILURE_SERIES + 50)), None]
    async with telemetry.slice("schedule"):
        with telemetry.batch(BATCH):
            telemetry.recorded([EvaluationResult("anna", "a", "failed", error_code=code) for code in codes], 5)
    (slice_,) = collector.spans_called("slice")
    assert slice_.status.code == Status.STATUS_CODE_UNSET
    assert slice_.trace_id.hex() == current_trace().id
    counted = collector.counted("scheduler.failures")
    assert len(counted) == MAX_FAILURE_SERIES + 1
    assert ({"otel.metric.overflow": True}, 51) in counted
    assert ({"scheduler.scenario.type": "a", "error.type": "_OTHER"}, 2) in counted


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (EngineTransientError("engine_timeout", "words of the engine"), "engine_timeout"),
        (DeadlineExceededError("words"), "time_budget_exceeded"),
        (asyncio.CancelledError(), "cancelled"),
        (LookupError("words"), "LookupError"),
        (RequestError(503, "database_unavailable", "words"), "database_unavailable"),
        # A caller's mistake is no error of the function's.
        (RequestError(422, "not_a_slot", "words"), "not_a_slot"),
    ],
)
async def test_what_fails_says_why_by_a_code_alone(
    telemetry: Telemetry, collector: OtlpCollector, error: BaseException, cause: str
) -> None:
    for measured in (telemetry.engine_call(1), telemetry.batch(BATCH)):
        with pytest.raises(type(error)), measured:
            raise error
    await telemetry.flush()
    status = (Status.STATUS_CODE_UNSET, "") if cause == "not_a_slot" else (Status.STATUS_CODE_ERROR, cause)
    assert [(span.status.code, span.status.message) for span in collector.spans] == [status] * 2
    assert [attributes_of(span.attributes)["error.type"] for span in collector.spans] == [cause] * 2
    assert not any(span.events for span in collector.spans)
    assert "words" not in str(collector.traces)


@pytest.mark.parametrize(("is_hanging", "flush_seconds"), [(True, 0.01), (False, 60)])
async def test_a_collector_that_is_away_is_logged_once(
    is_hanging: bool, flush_seconds: float, log: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with OtlpCollector(is_hanging=True) as collector:
        url = collector.url if is_hanging else f"http://127.0.0.1:{free_port()}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60" if is_hanging else "0.01")
        telemetry = Telemetry(ENGINE_URL, flush_seconds=flush_seconds)
        start_trace(None)
        for _ in range(2):
            async with telemetry.slice("schedule"):
                pass
    assert len(log.of("telemetry_lost")) == 1


async def test_variables_that_the_sdk_refuses_stop_no_run(
    collector: OtlpCollector, log: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "hush")
    assert telemetry_for(ENGINE_URL) is not None
    assert "hush" not in log.text
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "-1")
    assert telemetry_for(ENGINE_URL) is None
    (line,) = log.of("telemetry_unusable")
    assert (line["severity"], line["detail"][:12]) == ("ERROR", "ValueError: ")
