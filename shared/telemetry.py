"""Traces and metrics by OpenTelemetry: a span for each slice, batch and call to the engine, and what came of them.

Imported only where OTEL_EXPORTER_OTLP_ENDPOINT is set. The SDK reads its own environment variables. The providers are
private: no library begins to measure because of them.

A platform may take the CPU away with the answer, so what was measured is sent before it, and waited for shortly: a
collector that is away costs a slice a second, and the next ones a tenth of that until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
    use_span,
)

from shared.errors import DeadlineExceededError, EngineError, RequestError
from shared.evaluations import EvaluationBatch, EvaluationResult
from shared.invocation import InvocationSummary
from shared.logs import Trace, current_trace, log_event, trace_id, traceparent, within_span
from shared.version import VERSION

SERVICE_NAME = "scenario-evaluation-scheduler"
# How long a slice waits for the collector.
FLUSH_SECONDS = 1.0
# And how long while the last it knows is that the collector was away.
RELUCTANT_FLUSH_SECONDS = 0.1
# Seconds. Of calls: what the semantic conventions advise. A batch may take a time budget, a run may be hours late.
CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
BATCH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# Whatever codes an engine makes up: beyond so many pairs of a scenario type and a cause, the SDK counts them as one.
MAX_FAILURE_SERIES = 200
# What the semantic conventions call an error without a code.
UNKNOWN_CAUSE = "_OTHER"
LATENESS_BUCKETS = (1, 5, 15, 30, 60, 120, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400)


class _OurTraceIds(RandomIdGenerator):
    """A trace that begins here has the id that its log lines carry."""

    def generate_trace_id(self) -> int:
        return int(trace_id(), 16)


class EngineCall:
    """The span of one call to the engine, for as long as the block runs.

    A class, not a generator's context manager: there is one for each call.
    """

    __slots__ = ("_attributes", "_began", "_metric", "_span", "traceparent")

    def __init__(self, span: Span, metric: Any, attributes: dict[str, Any]) -> None:
        self._span = span
        self._metric = metric
        self._attributes = attributes
        self._began = time.perf_counter()
        context = span.get_span_context()
        self.traceparent = _header_of(context) if context.is_valid else traceparent()
        """The header by which the engine continues this trace."""

    def answered(self, status: int) -> None:
        """Notes the answer's status."""
        self._attributes = self._attributes | {"http.response.status_code": status}
        self._span.set_attribute("http.response.status_code", status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            cause = _cause_of(error)
            self._attributes = self._attributes | {"error.type": cause}
            _mark(self._span, cause)
        self._metric.record(time.perf_counter() - self._began, self._attributes)
        self._span.end()


def telemetry_for(engine_url: str) -> Telemetry | None:
    """Builds the telemetry of this process; None where the SDK refuses one of its own variables, which is logged.

    Runs continue without telemetry.

    Args:
        engine_url: see `Telemetry`.
    """
    try:
        return Telemetry(engine_url)
    except Exception as error:  # the SDK has an error of its own for each variable
        log_event(
            "telemetry_unusable",
            "Nothing is measured: OpenTelemetry refuses its variables",
            level=logging.ERROR,
            detail=f"{type(error).__name__}: {error}",
        )
        return None


class Telemetry:
    """What is measured of this process, and its way to the collector.

    Args:
        engine_url: of the calls that are measured, the whole of it.
        flush_seconds: how long a slice waits for the collector.
    """

    def __init__(self, engine_url: str, *, flush_seconds: float = FLUSH_SECONDS) -> None:
        self._flush_seconds = flush_seconds
        self._has_failed = False
        self._is_away = False
        self._sending: asyncio.Future[None] | None = None

        # It would show the headers for the collector, and with them a key, where they are not written as they have to.
        logging.getLogger("opentelemetry.util.re").setLevel(logging.CRITICAL)
        # Whatever the operator names a service, its attributes win over these.
        usual = {"service.name": SERVICE_NAME, "service.version": VERSION}
        resource = Resource.create({**usual, **OTELResourceDetector().detect().attributes})
        # Not at exit: by then all has been sent, or the collector is away and the process would hang on it.
        self._tracers = TracerProvider(resource=resource, id_generator=_OurTraceIds(), shutdown_on_exit=False)
        self._tracers.add_span_processor(BatchSpanProcessor(self._noted(OTLPSpanExporter())))
        # Collected when a slice ends and never between: a process may not run then.
        reader = PeriodicExportingMetricReader(self._noted(OTLPMetricExporter()), export_interval_millis=math.inf)
        bounded = View(instrument_name="scheduler.failures", aggregation_cardinality_limit=MAX_FAILURE_SERIES)
        self._meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False, views=[bounded])
        # From here on its only news are that the collector is away, which we say ourselves, and once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

        self._tracer = self._tracers.get_tracer(SERVICE_NAME, VERSION)
        meter = self._meters.get_meter(SERVICE_NAME, VERSION)
        self._evaluations = meter.create_counter(
            "scheduler.evaluations", "{evaluation}", "Evaluations that were recorded, by scenario type and outcome."
        )
        self._failures = meter.create_counter(
            "scheduler.failures", "{evaluation}", "Evaluations that failed, by scenario type and cause."
        )
        self._invocations = meter.create_counter(
            "scheduler.invocations", "{invocation}", "Invocations that a slice ended, by status and trigger."
        )
        self._lateness = meter.create_histogram(
            "scheduler.invocation.lateness",
            "s",
            "How long after its slot a scheduled invocation was opened.",
            explicit_bucket_boundaries_advisory=LATENESS_BUCKETS,
        )
        self._batch_duration = meter.create_histogram(
            "scheduler.batch.duration",
            "s",
            "How long the evaluation of a batch took.",
            explicit_bucket_boundaries_advisory=BATCH_BUCKETS,
        )
        self._call_duration = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "How long a call to the engine took.",
            explicit_bucket_boundaries_advisory=CALL_BUCKETS,
        )
        self._breaker = meter.create_gauge(
            "scheduler.engine.breaker.open", "1", "1: the engine is away and all workers pause; 0: it answers."
        )
        self._metric_attributes, self._span_attributes = _attributes_of_calls(engine_url)

    @asynccontextmanager
    async def slice(self, trigger: str) -> AsyncIterator[None]:
        """Measures a slice, continuing the caller's trace, and sends what was measured when it ends.

        Args:
            trigger: what it is for: `schedule`, `manual` or `batch`.
        """
        span = self._tracer.start_span(
            "slice",
            context=_context_of(current_trace()),
            kind=SpanKind.SERVER,
            attributes={"faas.trigger": "http", "scheduler.slice.kind": trigger},
        )
        try:
            with _under_way(span):
                yield
        finally:
            await self.flush()

    @contextmanager
    def batch(self, batch: EvaluationBatch) -> Iterator[None]:
        """Measures the work on a batch, from its claim to its record."""
        span = self._tracer.start_span(
            "batch",
            attributes={
                "scheduler.invocation.id": batch.invocation_id,
                "scheduler.batch.number": batch.batch_no,
                "scheduler.batch.deliveries": batch.deliveries,
                "scheduler.batch.mentors": len(batch.users),
            },
        )
        with _under_way(span):
            yield

    def engine_call(self, users: int) -> EngineCall:
        """Measures a call about so many users."""
        span = self._tracer.start_span(
            "POST", kind=SpanKind.CLIENT, attributes={**self._span_attributes, "scheduler.call.mentors": users}
        )
        return EngineCall(span, self._call_duration, self._metric_attributes)

    def recorded(self, results: Sequence[EvaluationResult], duration_ms: int) -> None:
        """Counts what was recorded of the batch that is under way."""
        outcomes = Counter((result.scenario_type, result.outcome) for result in results)
        for (scenario_type, outcome), count in outcomes.items():
            self._evaluations.add(count, {"scheduler.scenario.type": scenario_type, "scheduler.outcome": outcome})
        failures = Counter(
            (result.scenario_type, result.error_code) for result in results if result.outcome == "failed"
        )
        for (scenario_type, cause), count in failures.items():
            self._failures.add(count, {"scheduler.scenario.type": scenario_type, "error.type": cause or UNKNOWN_CAUSE})
        self._batch_duration.record(duration_ms / 1000)
        span = get_current_span()
        span.set_attribute("scheduler.batch.evaluations", len(results))
        span.set_attribute("scheduler.batch.failed", failures.total())

    def opened(self, invocation: InvocationSummary) -> None:
        """Notes how late a scheduled invocation is; one that is skipped is not."""
        if invocation.lateness_seconds is not None:
            self._lateness.record(invocation.lateness_seconds)

    def ended(self, invocation: InvocationSummary) -> None:
        """Counts an invocation that this process ended."""
        self._invocations.add(1, {"scheduler.status": invocation.status, "scheduler.trigger": invocation.trigger})

    def breaker(self, *, is_open: bool) -> None:
        """Notes whether the engine is away."""
        self._breaker.set(int(is_open))

    async def flush(self) -> None:
        """Sends what was measured; waits for the collector for a moment, and raises nothing."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (RELUCTANT_FLUSH_SECONDS if self._is_away else self._flush_seconds)
        if self._sending is not None and not await _is_done(self._sending, deadline):
            return  # one that began earlier still waits for the collector
        self._sending = loop.create_future()
        # Of our own, and a daemon: the process's end must not wait for it, as it would for one of the event loop's.
        threading.Thread(target=self._send, args=(loop, self._sending), name="telemetry", daemon=True).start()
        is_lost = not await _is_done(self._sending, deadline) or self._has_failed
        if is_lost and not self._is_away:
            log_event(
                "telemetry_lost",
                "What was measured did not reach the collector in time; said once, until something does",
                level=logging.WARNING,
            )
        self._is_away, self._has_failed = is_lost, False

    def _send(self, loop: asyncio.AbstractEventLoop, sending: asyncio.Future[None]) -> None:
        with contextlib.suppress(Exception):  # telemetry never fails a run
            self._tracers.force_flush()
            self._meters.force_flush()
        with contextlib.suppress(RuntimeError):  # the loop is closed: no slice waits
            loop.call_soon_threadsafe(sending.set_result, None)

    def _noted(self, exporter: Any) -> Any:
        """Returns the exporter, which from now on notes a collector that does not take what it sends."""
        export = exporter.export

        def export_and_note(*arguments: Any, **options: Any) -> Any:
            result = export(*arguments, **options)
            self._has_failed |= result.name != "SUCCESS"
            return result

        exporter.export = export_and_note
        return exporter


async def _is_done(future: asyncio.Future[None], deadline: float) -> bool:
    """Whether it is done before a time of the event loop's."""
    done, _ = await asyncio.wait([future], timeout=max(0, deadline - asyncio.get_running_loop().time()))
    return bool(done)


@contextmanager
def _under_way(span: Span) -> Iterator[None]:
    """Makes it the current span, for what is measured and for what is logged, and ends it."""
    context = span.get_span_context()
    logged = _trace_of(context) if context.is_valid else current_trace()
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False), within_span(logged):
        try:
            yield
        except RequestError as error:
            # A caller's mistake is none of ours.
            span.set_attribute("error.type", error.code)
            if error.status >= 500:
                span.set_status(Status(StatusCode.ERROR, error.code))
            raise
        except BaseException as error:
            _mark(span, _cause_of(error))
            raise


def _mark(span: Span, cause: str) -> None:
    # Without the error's words, in which there may be anything.
    span.set_attribute("error.type", cause)
    span.set_status(Status(StatusCode.ERROR, cause))


def _cause_of(error: BaseException) -> str:
    if isinstance(error, EngineError):
        return error.code
    if isinstance(error, DeadlineExceededError):
        return "time_budget_exceeded"
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return type(error).__name__


def _context_of(trace: Trace) -> Context:
    """Returns the caller's span as the parent of ours; without one, ours is the first of the trace."""
    if trace.span_id is None:
        return Context()
    flags = TraceFlags(TraceFlags.DEFAULT if trace.sampled is False else TraceFlags.SAMPLED)
    caller = SpanContext(int(trace.id, 16), int(trace.span_id, 16), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(caller), Context())


def _trace_of(context: SpanContext) -> Trace:
    return Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled)


def _header_of(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & TraceFlags.SAMPLED:02x}"


def _attributes_of_calls(url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the attributes of metric and spans by the semantic conventions for HTTP clients."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    attributes = {
        "http.request.method": "POST",
        "server.address": host,
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
        "url.scheme": parts.scheme,
        "network.protocol.version": "1.1",
    }
    place = parts.netloc.rpartition("@")[2]  # without user name and password
    return attributes, {**attributes, "url.full": f"{parts.scheme}://{place}{parts.path}"}
