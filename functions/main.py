"""The function's entry point: configuration, dependencies, the application."""

from __future__ import annotations

import gc
import logging
import os
import sys
from functools import cache, partial

from starlette.requests import Request
from starlette.types import ASGIApp

from functions.http.app import create_app
from functions.runs.services import build_services
from shared.auth import TokenCheck
from shared.config import ScenarioEvaluationConfig
from shared.errors import ConfigError
from shared.fingerprint import Fingerprint
from shared.logs import configure_logging, log_event
from shared.sign_in import SignIn

try:
    CONFIG = ScenarioEvaluationConfig.from_environment(os.environ)
except ConfigError as error:
    # Exits, so that a deployment fails at once, with the error in the log and at a terminal.
    configure_logging("INFO")
    log_event("configuration_refused", str(error), level=logging.CRITICAL)
    sys.exit(str(error))

configure_logging(CONFIG.log_level, google_cloud_project=CONFIG.google_cloud_project)
logging.captureWarnings(True)

# Built for the first request that needs it: clients belong to the process and the event loop that use them.
_services = cache(partial(build_services, CONFIG))
_app = create_app(
    _services,
    TokenCheck(CONFIG.scheduler_invoke_tokens, CONFIG.admin_tokens()),
    # Now, since the files may be replaced while the process goes on with what it has imported.
    Fingerprint.of(CONFIG, os.environ),
    SignIn(CONFIG.supabase_url, CONFIG.supabase_publishable_key) if CONFIG.supabase_publishable_key else None,
)


async def handle_scheduled_invocation(request: Request) -> ASGIApp:
    """Returns the application, which functions-framework calls for every request as any ASGI application is called."""
    return _app


# What is imported stays: it need not be looked through again.
gc.freeze()
