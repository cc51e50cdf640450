"""Traces and metrics of a night on the real stack, as a collector receives them; and nights whose collector is away."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.emulator.function import FunctionProcess
from tests.emulator.ports import free_port
from tests.faults.clockwork import Clockwork
from tests.integration.manual.caller import Caller
from tests.integration.nightly.night import Night
from tests.otlp_collector import OtlpCollector, attributes_of
from tests.scripted_engine import rules

CALLER_TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER_SPAN = "b7ad6b7169203331"
SMALL = {"EVALUATION_BATCH_SIZE": "10", "ENGINE_USERS_PER_CALL": "5", "ENGINE_MAX_ATTEMPTS": "1"}


@pytest.fixture
async def collector() -> AsyncIterator[OtlpCollector]:
    async with OtlpCollector() as collector:
        yield collector


async def start(night: Night, url: str, **settings: str) -> FunctionProcess:
    return await night.start_function({"OTEL_EXPORTER_OTLP_ENDPOINT": url, **SMALL, **settings})


def hex_ids(spans: list[Span]) -> set[str]:
    return {span.span_id.hex() for span in spans}


def lost(night: Night, function: FunctionProcess) -> int:
    """How often the function said that what was measured did not arrive."""
    return sum(line["event"] == "telemetry_lost" for line in night.log_lines(function))


async def test_a_night_is_one_trace_from_the_callers_span_to_the_engines(
    night: Night, collector: OtlpCollector
) -> None:
    mentors = await night.add_mentors(20)
    function = await start(night, collector.url, GOOGLE_CLOUD_PROJECT="my-project")

    answer = await night.fire(function, headers={"traceparent": f"00-{CALLER_TRACE}-{CALLER_SPAN}-01"})

    # All of it is there when the answer is: the platform may take the CPU away then.
    (slice_,) = collector.spans_called("slice")
    batches, calls = collector.spans_called("batch"), collector.spans_called("POST")
    assert len(collector.spans) == 1 + 2 + 4
    assert {span.trace_id.hex() for span in collector.spans} == {CALLER_TRACE}
    assert slice_.parent_span_id.hex() == CALLER_SPAN
    assert slice_.kind == Span.SPAN_KIND_SERVER
    assert {span.parent_span_id for span in batches} == {slice_.span_id}
    assert {span.parent_span_id for span in calls} == {span.span_id for span in batches}
    assert {span.kind for span in calls} == {Span.SPAN_KIND_CLIENT}
    # The engine goes on with the span of its call.
    headers = [call.traceparent for call in night.engine.calls]
    assert {header.split("-")[2] for header in headers if header} == hex_ids(calls)
    assert {header.split("-")[1] for header in headers if header} == {CALLER_TRACE}

    run_id = answer.json()["id"]
    assert sorted(attributes_of(span.attributes)["scheduler.batch.number"] for span in batches) == [1, 2]
    assert {attributes_of(span.attributes)["scheduler.invocation.id"] for span in batches} == {run_id}
    port = int(night.engine.url.rpartition(":")[2])
    assert attributes_of(calls[0].attributes) == {
        "http.request.method": "POST",
        "url.full": f"{night.engine.url}/v1/evaluations",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": port,
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
        "scheduler.call.mentors": 5,
    }
    # Log lines name the spans in which they were written.
    lines = {line["event"]: line for line in night.log_lines(function)}
    assert lines["batch_recorded"]["logging.googleapis.com/spanId"] in hex_ids(batches)
    assert lines["slice_ended"]["logging.googleapis.com/spanId"] == slice_.span_id.hex()
    assert {line["trace_id"] for line in lines.values()} == {CALLER_TRACE}
    everything = "".join(map(str, [*collector.traces, *collector.metrics]))
    for private in (*mentors, night.project.engine_token, night.project.secret_key, night.project.invoke_token):
        assert private not in everything


async def test_what_came_of_a_night_is_counted(night: Night, collector: OtlpCollector) -> None:
    mentors = await night.add_mentors(20)
    night.engine.rules.append(rules.refuse_calls_with(mentors[:2]))
    function = await start(night, collector.url)

    invocation = (await night.fire(function)).json()

    evaluations = {
        (told["scheduler.scenario.type"], told["scheduler.outcome"]): count
        for told, count in collector.counted("scheduler.evaluations")
    }
    assert evaluations == {
        (scenario_type, outcome): count
        for scenario_type, outcomes in (await night.describe(invocation["id"]))["scenarios"].items()
        for outcome, count in outcomes.items()
        if count
    }
    failures = collector.counted("scheduler.failures")
    assert {told["error.type"] for told, _ in failures} == {"engine_http_422"}
    assert sum(count for _, count in failures) == invocation["counts"]["failed"] == 4
    assert collector.counted("scheduler.invocations") == [
        ({"scheduler.status": "partial", "scheduler.triggered_by": "schedule"}, 1)
    ]
    assert collector.measured("scheduler.invocation.lateness") == [({}, 1)]
    assert collector.measured("scheduler.batch.duration") == [({}, 2)]
    calls = {
        told.get("http.response.status_code"): count
        for told, count in collector.measured("http.client.request.duration")
    }
    assert calls == {200: calls[200], 422: calls[422]}
    assert sum(calls.values()) == len(night.engine.calls) == len(collector.spans_called("POST"))
    assert collector.gauged("scheduler.engine.breaker.open") == [0]
    refused = [span for span in collector.spans_called("POST") if span.status.code == Status.STATUS_CODE_ERROR]
    assert {attributes_of(span.attributes)["error.type"] for span in refused} == {"engine_http_422"}
    assert len(refused) == calls[422]


async def test_an_engine_that_is_down_is_seen_and_one_that_is_back_too(night: Night, collector: OtlpCollector) -> None:
    await night.add_mentors(3)
    night.engine.rules.append(rules.respond(500))
    function = await start(night, collector.url)

    await night.fire(function)
    assert collector.gauged("scheduler.engine.breaker.open") == [1]
    (batch,) = collector.spans_called("batch")
    assert "scheduler.batch.failed" not in attributes_of(batch.attributes), "nobody failed"

    night.engine.rules.clear()
    await night.execute(b"update scheduler.settings set engine_paused_until = now()")
    assert (await night.fire(function)).json()["status"] == "succeeded"
    assert collector.gauged("scheduler.engine.breaker.open") == [0]


async def test_the_database_begins_the_trace_of_each_slice_that_it_asks_for(
    night: Night, collector: OtlpCollector
) -> None:
    await night.add_mentors(3)
    await start(night, collector.url)
    clockwork = Clockwork(night)
    await clockwork.start()
    await night.execute(b"update scheduler.settings set next_due_at = null")

    await clockwork.tick()
    await clockwork.until_quiet()

    slices = collector.spans_called("slice")
    assert slices
    assert all(span.parent_span_id for span in slices)
    assert len({span.trace_id for span in slices}) == len(slices)


async def test_runs_and_batches_that_somebody_asks_for_are_measured_as_well(
    night: Night, collector: OtlpCollector
) -> None:
    mentors = await night.add_mentors(3)
    function = await start(night, collector.url)
    caller = Caller(night, function)

    opened = await caller.ask({"dry_run": True})
    assert opened.status_code == 201
    evaluated = await caller.send("POST", "/evaluation-batch", json={"user_ids": mentors[:1], "dry_run": True})
    assert evaluated.status_code == 200

    manual, batch = collector.spans_called("slice")
    triggers = [attributes_of(span.attributes)["scheduler.trigger"] for span in (manual, batch)]
    assert triggers == ["manual", "batch"]
    # Nobody called with a trace: these are the first spans of theirs, and the log knows the traces by the same ids.
    assert not manual.parent_span_id
    (finished,) = (line for line in night.log_lines(function) if line["event"] == "invocation_finished")
    assert finished["trace_id"] == manual.trace_id.hex()


async def test_the_sdks_own_variables_are_obeyed(night: Night, collector: OtlpCollector) -> None:
    await night.add_mentors(3)
    function = await start(
        night,
        collector.url,
        OTEL_SERVICE_NAME="nights",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.version=mine",
        OTEL_EXPORTER_OTLP_HEADERS="x-tenant=seven",
        OTEL_TRACES_SAMPLER="always_off",
    )

    await night.fire(function, headers={"traceparent": f"00-{CALLER_TRACE}-{CALLER_SPAN}-01"})

    assert collector.spans == []
    (resource, *_) = collector.resources
    assert resource["service.name"] == "nights"
    assert resource["service.version"] == "mine"
    assert resource["deployment.environment.name"] == "test"
    assert resource["service.instance.id"]
    assert {headers["x-tenant"] for headers in collector.headers} == {"seven"}
    # Who keeps no trace asks nobody else to keep it.
    assert {call.traceparent.split("-")[3] for call in night.engine.calls if call.traceparent} == {"00"}


async def test_where_the_sdk_is_disabled_nothing_is_sent_and_the_trace_goes_on(
    night: Night, collector: OtlpCollector
) -> None:
    await night.add_mentors(3)
    function = await start(night, collector.url, OTEL_SDK_DISABLED="true")

    answer = await night.fire(function, headers={"traceparent": f"00-{CALLER_TRACE}-{CALLER_SPAN}-01"})

    assert answer.json()["status"] == "succeeded"
    assert (collector.traces, collector.metrics) == ([], [])
    assert {call.traceparent.split("-")[1] for call in night.engine.calls if call.traceparent} == {CALLER_TRACE}
    assert lost(night, function) == 0


async def test_a_collector_that_is_not_there_costs_no_night_and_is_told_of_once(night: Night) -> None:
    await night.add_mentors(20)
    function = await start(night, f"http://127.0.0.1:{free_port()}")

    answer = await night.fire(function)
    await night.fire(function)

    assert answer.json()["status"] == "succeeded"
    await night.check_truth(answer.json())
    assert lost(night, function) == 1


async def test_a_collector_that_hangs_costs_no_night_and_is_told_of_once(night: Night) -> None:
    await night.add_mentors(20)
    async with OtlpCollector(is_hanging=True) as collector:
        function = await start(night, collector.url)

        answer = await night.fire(function)
        await night.fire(function)

        # It holds what it was sent to this moment.
        assert collector.unanswered >= 1
        assert answer.json()["status"] == "succeeded"
        assert lost(night, function) == 1
    await night.check_truth(answer.json())
