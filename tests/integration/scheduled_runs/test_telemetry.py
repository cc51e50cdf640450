"""Traces and metrics of a run on the real stack, as a collector receives them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.emulator.function import FunctionProcess
from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness
from tests.otlp_collector import OtlpCollector, attributes_of
from tests.scripted_engine import rules

CALLER_TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER_SPAN = "b7ad6b7169203331"
SMALL = {"EVALUATION_BATCH_SIZE": "10", "ENGINE_USERS_PER_CALL": "5", "ENGINE_MAX_ATTEMPTS": "1"}


@pytest.fixture
async def collector() -> AsyncIterator[OtlpCollector]:
    async with OtlpCollector() as collector:
        yield collector


async def start(harness: Harness, url: str, **settings: str) -> FunctionProcess:
    return await harness.start_function({"OTEL_EXPORTER_OTLP_ENDPOINT": url, **SMALL, **settings})


async def test_a_run_is_one_trace_and_its_outcomes_are_counted(harness: Harness, collector: OtlpCollector) -> None:
    mentors = await harness.add_mentors(20)
    harness.engine.rules.append(rules.refuse_calls_with(mentors[:1]))
    function = await start(harness, collector.url, GOOGLE_CLOUD_PROJECT="my-project")

    # All of it is there when the answer is: the platform may take the CPU away then.
    invocation = await harness.run(function, headers={"traceparent": f"00-{CALLER_TRACE}-{CALLER_SPAN}-01"})

    (slice_,) = collector.spans_called("slice")
    batches, calls = collector.spans_called("batch"), collector.spans_called("POST")
    assert len(collector.spans) == 1 + 2 + len(harness.engine.calls)
    assert {span.trace_id.hex() for span in collector.spans} == {CALLER_TRACE}
    assert (slice_.parent_span_id.hex(), slice_.kind) == (CALLER_SPAN, Span.SPAN_KIND_SERVER)
    assert {span.parent_span_id for span in batches} == {slice_.span_id}
    assert {span.parent_span_id for span in calls} == {span.span_id for span in batches}
    # The engine goes on with the span of its call.
    headers = [(call.traceparent or "").split("-") for call in harness.engine.calls]
    assert {(header[1], header[2]) for header in headers} == {(CALLER_TRACE, span.span_id.hex()) for span in calls}
    assert {attributes_of(span.attributes)["scheduler.invocation.id"] for span in batches} == {invocation["id"]}
    refused = [span for span in calls if span.status.code == Status.STATUS_CODE_ERROR]
    assert {attributes_of(span.attributes)["error.type"] for span in refused} == {"engine_http_422"}
    # Log lines name the spans in which they were written.
    lines = {line["event"]: line for line in harness.log_lines(function)}
    assert lines["batch_recorded"]["logging.googleapis.com/spanId"] in {span.span_id.hex() for span in batches}
    assert lines["slice_ended"]["logging.googleapis.com/spanId"] == slice_.span_id.hex()

    evaluations = {
        (labels["scheduler.scenario.type"], labels["scheduler.outcome"]): count
        for labels, count in collector.counted("scheduler.evaluations")
    }
    assert evaluations == {
        (scenario_type, outcome): count
        for scenario_type, outcomes in invocation["scenarios"].items()
        for outcome, count in outcomes.items()
        if count
    }
    failures = [(labels["error.type"], count) for labels, count in collector.counted("scheduler.failures")]
    assert {error for error, _ in failures} == {"engine_http_422"}
    assert sum(count for _, count in failures) == invocation["counts"]["failed"] == 2
    assert collector.counted("scheduler.invocations") == [
        ({"scheduler.status": "partial", "scheduler.trigger": "schedule"}, 1)
    ]
    assert collector.measured("scheduler.invocation.lateness") == [({}, 1)]
    assert collector.measured("scheduler.batch.duration") == [({}, 2)]
    assert sum(count for _, count in collector.measured("http.client.request.duration")) == len(calls)
    everything = "".join(map(str, [*collector.traces, *collector.metrics]))
    for private in (*mentors, harness.project.engine_token, harness.project.secret_key, harness.project.invoke_token):
        assert private not in everything


async def test_an_outage_is_gauged_until_it_is_over(harness: Harness, collector: OtlpCollector) -> None:
    """And what is run by hand is measured as well, in traces of its own."""
    mentors = await harness.add_mentors(3)
    harness.engine.rules.append(rules.respond(500))
    function = await start(harness, collector.url)

    await harness.fire(function)
    assert collector.gauged("scheduler.engine.breaker.open") == [1]
    harness.engine.rules.clear()
    await harness.execute(b"update scheduler.settings set engine_paused_until = now()")
    assert (await harness.fire(function)).json()["status"] == "success"
    assert collector.gauged("scheduler.engine.breaker.open") == [0]

    caller = Caller(harness, function)
    await caller.run({"dry_run": True})
    await caller.send("POST", "/evaluation-batch", json={"user_ids": mentors[:1], "dry_run": True})
    *_, manual, batch = collector.spans_called("slice")
    triggers = [attributes_of(span.attributes)["scheduler.slice.kind"] for span in (manual, batch)]
    assert triggers == ["manual", "batch"]
    assert not manual.parent_span_id


async def test_the_sdks_own_variables_are_obeyed(harness: Harness, collector: OtlpCollector) -> None:
    await harness.add_mentors(3)
    function = await start(
        harness,
        collector.url,
        OTEL_SERVICE_NAME="evaluations",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.version=mine",
        OTEL_EXPORTER_OTLP_HEADERS="x-tenant=seven",
        OTEL_TRACES_SAMPLER="always_off",
    )

    await harness.fire(function, headers={"traceparent": f"00-{CALLER_TRACE}-{CALLER_SPAN}-01"})

    assert collector.spans == []
    (resource, *_) = collector.resources
    assert (resource["service.name"], resource["service.version"]) == ("evaluations", "mine")
    assert (resource["deployment.environment.name"], bool(resource["service.instance.id"])) == ("test", True)
    assert {headers["x-tenant"] for headers in collector.headers} == {"seven"}
    # A trace that is not kept here is not to be kept elsewhere.
    assert {call.traceparent.split("-")[3] for call in harness.engine.calls if call.traceparent} == {"00"}
