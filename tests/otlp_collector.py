"""An OpenTelemetry collector on loopback, which reads what arrives with the official protobuf messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Attributes = dict[str, Any]


def attributes_of(pairs: Any) -> Attributes:
    """What the messages hold as pairs of a name and a value of some kind."""
    return {pair.key: _value_of(pair) for pair in pairs}


def _value_of(pair: KeyValue) -> Any:
    kind = pair.value.WhichOneof("value")
    return None if kind is None else getattr(pair.value, kind)


@dataclass
class OtlpCollector:
    """`async with`: it listens.

    Args:
        is_hanging: it reads what it is sent and answers nothing, until the block ends.
    """

    is_hanging: bool = False
    traces: list[ExportTraceServiceRequest] = field(default_factory=list)
    metrics: list[ExportMetricsServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._ending = asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending.set()
        self._server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[Span]:
        """All that arrived, in the order in which they ended."""
        return [
            span
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def spans_called(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    @property
    def resources(self) -> list[Attributes]:
        """Of what all that arrived is said to be."""
        groups = [group for request in self.traces for group in request.resource_spans]
        others = [group for request in self.metrics for group in request.resource_metrics]
        return [attributes_of(group.resource.attributes) for group in [*groups, *others]]

    def latest(self, name: str) -> Metric:
        """A metric as it arrived last."""
        *_, metric = (metric for metric in self._all_metrics() if metric.name == name)
        return metric

    def counted(self, name: str) -> list[tuple[Attributes, int]]:
        """The latest sums of a counter."""
        return [(attributes_of(point.attributes), point.as_int) for point in self.latest(name).sum.data_points]

    def measured(self, name: str) -> list[tuple[Attributes, int]]:
        """Of a histogram: how often something was measured."""
        return [(attributes_of(point.attributes), point.count) for point in self.latest(name).histogram.data_points]

    def gauged(self, name: str) -> list[int]:
        return [point.as_int for point in self.latest(name).gauge.data_points]

    def _all_metrics(self) -> Iterator[Metric]:
        for request in self.metrics:
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    yield from scope.metrics

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(headers["content-length"]))
                if self.is_hanging:
                    await self._ending.wait()
                    break
                self.headers.append(headers)
                self._read_export(head[0].split()[1], body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        writer.close()

    def _read_export(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            self.traces.append(ExportTraceServiceRequest.FromString(body))
        else:
            assert path == "/v1/metrics"
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))
