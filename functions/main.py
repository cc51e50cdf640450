"""The function's entry point: wires configuration, clients and routes together, once for a process."""

from __future__ import annotations

import os
import sys
from functools import lru_cache

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from functions.api import create_app
from functions.work import Work
from shared.auth import TokenCheck
from shared.config import ScenarioEvaluationConfig
from shared.database import connect
from shared.engine_lease import EngineLease
from shared.errors import ConfigError
from shared.http_transport import HttpTransport
from shared.invocation_records import InvocationRecords
from shared.invocations import Invocations
from shared.load_control import ConcurrencyLimiter
from shared.observability import configure_logging
from shared.trigger_engine import TriggerEngine

try:
    CONFIG = ScenarioEvaluationConfig.from_environment(os.environ)
except ConfigError as error:
    # Refusing to start makes a deployment fail where its author still looks.
    sys.exit(str(error))


async def handle_scheduled_invocation(request: Request) -> Response:
    """Answers every request to the function; `functions/api.py` has the routes.

    Args:
        request: the request, as functions-framework hands it over.

    Returns:
        A response that is the whole application: functions-framework calls it as any ASGI application is called.
    """
    return _Application(_app())


class _Application(Response):
    def __init__(self, app: FastAPI) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


@lru_cache(maxsize=1)
def _app() -> FastAPI:
    configure_logging(CONFIG.log_level)
    return create_app(
        lru_cache(maxsize=1)(lambda: build_work(CONFIG)),
        TokenCheck(CONFIG.scheduler_invoke_tokens, CONFIG.scheduler_admin_tokens),
        trusted_proxy_count=CONFIG.trusted_proxy_count,
    )


def build_work(config: ScenarioEvaluationConfig) -> Work:
    """Builds the clients; nothing is sent yet."""
    database = connect(config.supabase_url, config.supabase_secret_key.get_secret_value())
    limiter = ConcurrencyLimiter(config.engine_max_concurrency)
    engine = TriggerEngine(
        config.scenario_engine_url,
        config.scenario_engine_token.get_secret_value(),
        transport=HttpTransport(),
        limiter=limiter,
        timeout_seconds=config.engine_timeout_seconds,
        max_attempts=config.engine_max_attempts,
    )
    invocations = Invocations(database.patient(), config)
    lease = EngineLease(
        invocations, limiter, ceiling=config.engine_max_concurrency_total, wants=config.engine_max_concurrency
    )
    return Work(config, database, invocations, InvocationRecords(database, config), engine, lease)
