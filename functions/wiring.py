"""Builds what the routes work with: the clients of the database and the engine, from the configuration."""

from __future__ import annotations

from functions.work import Work
from shared.alert_webhook import AlertWebhook
from shared.config import ScenarioEvaluationConfig
from shared.database import READER_CONNECTIONS, SLICE_CONNECTIONS, Database, connect
from shared.invocation_records import InvocationRecords
from shared.invocations import Invocations
from shared.load_control import ConcurrencyLimiter
from shared.trigger_engine import TriggerEngine


def build_work(config: ScenarioEvaluationConfig) -> Work:
    """Builds the clients; nothing is sent yet."""
    secret_key = config.supabase_secret_key.get_secret_value()
    slices = Database(connect(config.supabase_url, secret_key, connections=SLICE_CONNECTIONS))
    readers = Database(connect(config.supabase_url, secret_key, connections=READER_CONNECTIONS))
    telemetry = None
    if config.otel_exporter_otlp_endpoint is not None:
        # OpenTelemetry is heavy, and only imported where a collector is named.
        from shared.telemetry import telemetry_for

        telemetry = telemetry_for(f"{config.scenario_engine_url}/v1/evaluations")
    engine = TriggerEngine(
        config.scenario_engine_url,
        config.scenario_engine_token.get_secret_value(),
        limiter=ConcurrencyLimiter(config.engine_max_concurrency),
        timeout_seconds=config.engine_timeout_seconds,
        max_attempts=config.engine_max_attempts,
        telemetry=telemetry,
    )
    invocations = Invocations(slices.patient(), config)
    webhook = None
    if config.alert_webhook_url is not None:
        webhook = AlertWebhook(config.alert_webhook_url, config.alert_webhook_secret)
    records = InvocationRecords(readers, config)
    return Work(config, slices, readers, invocations, records, engine, webhook=webhook, telemetry=telemetry)
