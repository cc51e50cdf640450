"""The clients of slices and routes; built once for a process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from functions.runs.freshness import LastSuccessCache
from functions.runs.process_gate import ProcessGate
from shared.concurrency import AdaptiveLimiter
from shared.config import ScenarioEvaluationConfig
from shared.database import READER_CONNECTIONS, SLICE_CONNECTIONS, Database, connect
from shared.engine_client import EngineClient
from shared.engine_protocol import protocol_of
from shared.queue_repository import QueueRepository
from shared.run_repository import RunRepository
from shared.scenario_table import ScenarioTable
from shared.slice_repository import SliceRepository
from shared.webhook import AlertWebhook

if TYPE_CHECKING:
    from shared.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Services:
    """The dependencies of a process.

    `database` is the Data API over the connections of slices, `reader_database` over those of the REST API's callers.
    """

    config: ScenarioEvaluationConfig
    database: Database
    reader_database: Database
    slices: SliceRepository
    queue: QueueRepository
    runs: RunRepository
    engine: EngineClient
    table: ScenarioTable
    now: Callable[[], datetime] = lambda: datetime.now(UTC)  # a hint: the database's clock overrules it
    gate: ProcessGate = field(default_factory=ProcessGate)
    last_success: LastSuccessCache = field(default_factory=LastSuccessCache)
    webhook: AlertWebhook | None = None
    telemetry: Telemetry | None = None

    def measuring(self, trigger: str) -> AbstractAsyncContextManager[None]:
        """Measures a slice where telemetry is configured; see `Telemetry.slice`."""
        return nullcontext() if self.telemetry is None else self.telemetry.slice(trigger)


def build_services(config: ScenarioEvaluationConfig) -> Services:
    """Builds the clients; nothing is sent yet."""
    secret_key = config.supabase_secret_key.get_secret_value()
    database = Database(connect(config.supabase_url, secret_key, connections=SLICE_CONNECTIONS))
    reader_database = Database(connect(config.supabase_url, secret_key, connections=READER_CONNECTIONS))
    protocol = protocol_of(config)
    telemetry = None
    if config.otel_exporter_otlp_endpoint is not None:
        # OpenTelemetry is slow to import, and only imported where a collector is configured.
        from shared.telemetry import telemetry_for

        telemetry = telemetry_for(config.scenario_engine_url + protocol.path)
    engine = EngineClient(
        config.scenario_engine_url,
        config.scenario_engine_token.get_secret_value(),
        protocol=protocol,
        limiter=AdaptiveLimiter(config.engine_max_concurrency),
        timeout_seconds=config.engine_timeout_seconds,
        max_attempts=config.engine_max_attempts,
        telemetry=telemetry,
    )
    webhook = None
    if config.alert_webhook_url is not None:
        webhook = AlertWebhook(config.alert_webhook_url, config.alert_webhook_secret)
    table = ScenarioTable(config.scenario_types)
    slices = SliceRepository(database.with_longer_retries(), config, table)
    queue = QueueRepository(database.with_longer_retries(), config)
    runs = RunRepository(reader_database, config, table)
    return Services(
        config, database, reader_database, slices, queue, runs, engine, table, webhook=webhook, telemetry=telemetry
    )
