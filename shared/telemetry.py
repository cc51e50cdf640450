"""Traces and metrics by OpenTelemetry: a span for each slice, batch and call to the engine, and what came of them.

Imported only where OTEL_EXPORTER_OTLP_ENDPOINT is set. The SDK reads its own environment variables. The providers are
private: no library begins to measure because of them.

A platform may take the CPU away with the answer, so what was measured is sent before it, and waited for shortly: a
collector that is away costs a slice a second, and the next ones a tenth of that until it is back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, Self
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.errors import DeadlineExceededError, EngineError, RequestError
from shared.evaluations import EvaluationBatch, EvaluationResult
from shared.invocation import InvocationSummary
from shared.logs import Trace, current_trace, log_event, within_span
from shared.version import VERSION

SERVICE_NAME = "scenario-evaluation-scheduler"
# How long a slice waits for the collector, and how long after one to which it was away.
FLUSH_SECONDS = 1.0
RELUCTANT_FLUSH_SECONDS = 0.1
# Seconds. Of calls: what the semantic conventions advise. A batch may take a time budget, a run may be hours late.
CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
BATCH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# Whatever codes an engine makes up: beyond so many pairs of a scenario type and a cause, the SDK counts them as one.
MAX_FAILURE_SERIES = 200
# What the semantic conventions call an error without a code.
UNKNOWN_CAUSE = "_OTHER"
LATE_BUCKETS = (1, 5, 15, 30, 60, 120, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400)


class _OurTraceIds(RandomIdGenerator):
    """A trace that begins here has the id that its log lines carry."""

    def generate_trace_id(self) -> int:
        return int(current_trace().id, 16)


class EngineCall:
    """The span of one call to the engine, for as long as the block runs.

    A class, not a generator's context manager: there is one for each call.
    """

    def __init__(self, span: Span, metric: Histogram, attributes: dict[str, Any]) -> None:
        self._span = span
        self._metric = metric
        self._attributes = dict(attributes)
        self._began = time.perf_counter()
        self.traceparent = _trace_of(span).header()
        """The header by which the engine continues this trace."""

    def answered(self, status: int) -> None:
        """Notes the answer's status."""
        self._attributes["http.response.status_code"] = status
        self._span.set_attribute("http.response.status_code", status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self._attributes["error.type"] = _mark(self._span, error)
        self._metric.record(time.perf_counter() - self._began, self._attributes)
        self._span.end()


def telemetry_for(engine_url: str) -> Telemetry | None:
    """Builds the telemetry; logs where the SDK refuses one of its own variables: runs continue without."""
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
    """Measures this process and its calls to `engine_url`, and sends that to the collector."""

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
        # From here on the SDK would only log that the collector is away, which `telemetry_lost` logs, once.
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

        def histogram(name: str, description: str, buckets: Sequence[float]) -> Histogram:
            return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=buckets)

        self._lateness = histogram(
            "scheduler.invocation.lateness", "How long after its slot a scheduled invocation was opened.", LATE_BUCKETS
        )
        self._batch_duration = histogram(
            "scheduler.batch.duration", "How long the evaluation of a batch took.", BATCH_BUCKETS
        )
        self._call_duration = histogram(
            "http.client.request.duration", "How long a call to the engine took.", CALL_BUCKETS
        )
        self._breaker = meter.create_gauge(
            "scheduler.engine.breaker.open", "1", "1: the engine is away and all workers pause; 0: it answers."
        )
        parts = urlsplit(engine_url)
        # As the semantic conventions for HTTP clients name them.
        self._metric_attributes = {
            "http.request.method": "POST",
            "server.address": parts.hostname,
            "server.port": parts.port or (443 if parts.scheme == "https" else 80),
            "url.scheme": parts.scheme,
            "network.protocol.version": "1.1",
        }
        # Without user name and password: shared.config refuses them.
        self._span_attributes = {**self._metric_attributes, "url.full": engine_url}

    @asynccontextmanager
    async def slice(self, trigger: str) -> AsyncIterator[None]:
        """Measures a slice in the caller's trace, and sends what was measured when it ends."""
        attributes = {"faas.trigger": "http", "scheduler.slice.kind": trigger}
        trace = current_trace()
        # Without a caller's span this span is the first of the trace.
        parent = {} if trace.span_id is None else {"traceparent": trace.header()}
        context = TraceContextTextMapPropagator().extract(parent)
        try:
            with self._span("slice", attributes, context=context, kind=SpanKind.SERVER):
                yield
        finally:
            await self.flush()

    def batch(self, batch: EvaluationBatch) -> AbstractContextManager[None]:
        """Measures the work on a batch, from its claim to its record."""
        attributes = {
            "scheduler.invocation.id": batch.invocation_id,
            "scheduler.batch.number": batch.batch_no,
            "scheduler.batch.deliveries": batch.deliveries,
            "scheduler.batch.mentors": batch.mentors,
        }
        return self._span("batch", attributes)

    @contextmanager
    def _span(self, name: str, attributes: dict[str, Any], **options: Any) -> Iterator[None]:
        """Makes a span the current one, for what is measured and for what is logged."""
        started = self._tracer.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False, **options
        )
        with started as span, within_span(_trace_of(span)):
            try:
                yield
            except BaseException as error:
                _mark(span, error)
                raise

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
        causes = Counter(
            (result.scenario_type, result.error_code or UNKNOWN_CAUSE)
            for result in results
            if result.outcome == "failed"
        )
        for (scenario_type, cause), count in causes.items():
            self._failures.add(count, {"scheduler.scenario.type": scenario_type, "error.type": cause})
        self._batch_duration.record(duration_ms / 1000)
        span = get_current_span()
        span.set_attribute("scheduler.batch.evaluations", len(results))
        span.set_attribute("scheduler.batch.failed", causes.total())

    def opened(self, invocation: InvocationSummary) -> None:
        """Measures how late a scheduled invocation is; one that is skipped is not."""
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
        # A daemon thread: the end of the process must not wait for it, as it would for a thread of the event loop.
        threading.Thread(target=self._send, args=(loop, self._sending), name="telemetry", daemon=True).start()
        is_lost = not await _is_done(self._sending, deadline) or self._has_failed
        if is_lost and not self._is_away:
            log_event(
                "telemetry_lost",
                "Measurements did not reach the collector in time; logged once, until some do",
                level=logging.WARNING,
            )
        self._is_away, self._has_failed = is_lost, False

    def _send(self, loop: asyncio.AbstractEventLoop, sending: asyncio.Future[None]) -> None:
        with suppress(Exception):  # telemetry never fails a run
            self._tracers.force_flush()
            self._meters.force_flush()
        with suppress(RuntimeError):  # the loop is closed: no slice waits
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
    """Returns whether it is done before a time of the event loop's."""
    done, _ = await asyncio.wait([future], timeout=max(0, deadline - asyncio.get_running_loop().time()))
    return bool(done)


def _mark(span: Span, error: BaseException) -> str:
    """Marks the span as failed, and returns by what: without the error's words, in which there may be anything."""
    if isinstance(error, EngineError | RequestError):
        cause = error.code
    elif isinstance(error, DeadlineExceededError):
        cause = "time_budget_exceeded"
    elif isinstance(error, asyncio.CancelledError):
        cause = "cancelled"
    else:
        cause = type(error).__name__
    span.set_attribute("error.type", cause)
    # A refused request is no error of this function.
    if not isinstance(error, RequestError) or error.status >= 500:
        span.set_status(Status(StatusCode.ERROR, cause))
    return cause


def _trace_of(span: Span) -> Trace:
    """Returns what log lines carry, and the engine is sent, within the span; the SDK may be switched off."""
    context = span.get_span_context()
    if not context.is_valid:
        return current_trace()
    return Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled)
