"""The function's entry point: wires configuration, clients and routes together, once for a process.

A cold start pays for whatever is imported here before it can answer anything; what only some requests need is imported
where they need it (tests/unit/functions/test_cold_start.py names what must not be).
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from functions.application import create_app
from functions.wiring import build_work
from shared.auth import TokenCheck
from shared.config import ScenarioEvaluationConfig
from shared.errors import ConfigError
from shared.observability import configure_logging, log_event

if TYPE_CHECKING:
    from functions.work import Work

try:
    CONFIG = ScenarioEvaluationConfig.from_environment(os.environ)
except ConfigError as error:
    # Refusing to start makes a deployment fail where its author still looks: in the log, and at a terminal.
    configure_logging("INFO")
    log_event("configuration_refused", str(error), level=logging.CRITICAL)
    sys.exit(str(error))

# Here, so that the server's own process has it from the start; and once more below, after functions-framework's.
_configure_logging = partial(configure_logging, CONFIG.log_level, google_cloud_project=CONFIG.google_cloud_project)
_configure_logging()
logging.captureWarnings(True)


async def handle_scheduled_invocation(request: Request) -> Response:
    """Answers every request to the function; `functions/application.py` has the routes.

    Args:
        request: the request, as functions-framework hands it over.

    Returns:
        A response that is the whole application: functions-framework calls it as any ASGI application is called.
    """
    return _Application(_app())


class _Application(Response):
    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


@lru_cache(maxsize=1)
def _app() -> ASGIApp:
    _configure_logging()
    return create_app(
        _work,
        TokenCheck(CONFIG.scheduler_invoke_tokens, CONFIG.scheduler_admin_tokens),
    )


@lru_cache(maxsize=1)
def _work() -> Work:
    return build_work(CONFIG)


# What is imported by now stays, and gunicorn forks next: no collection shall look through it again, neither while the
# worker imports the rest nor later, and copy into the worker the pages that it shares with its parent.
gc.freeze()
# A batch is some thousand objects without cycles that go with it: to look through them every 700 would find nothing.
gc.set_threshold(20_000)
