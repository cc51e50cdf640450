"""The whole application: the border, and behind it the routes that have to be quick from the first call on, and others.

What the clock and monitors call is answered by a process that has imported little. The REST API, which has FastAPI and
pydantic to import, is built for the first request that asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from functions.border import Border
from functions.dashboard_routes import PATHS, serve_dashboard
from functions.run_routes import RunRoutes
from shared.auth import TokenCheck
from shared.failed_checks import FailedCheckLimit

if TYPE_CHECKING:
    from functions.work import Work


def create_app(
    connect: Callable[[], Work],
    tokens: TokenCheck,
    *,
    failed_checks: FailedCheckLimit | None = None,
    trusted_proxy_count: int = 0,
) -> ASGIApp:
    """Builds the application.

    Args:
        connect: answers what a slice works with; called for each request, so it should remember.
        tokens: who may call.
        failed_checks: see `Border`.
        trusted_proxy_count: see `Border`.
    """
    return Border(_Routes(connect), tokens, failed_checks=failed_checks, trusted_proxy_count=trusted_proxy_count)


class _Routes:
    def __init__(self, connect: Callable[[], Work]) -> None:
        self._connect = connect
        self._run_routes = RunRoutes(connect)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        app: ASGIApp
        if self._run_routes.serve(path):
            app = self._run_routes
        elif path in PATHS:
            app = serve_dashboard
        else:
            app = self._api
        await app(scope, receive, send)

    @cached_property
    def _api(self) -> ASGIApp:
        # Some 0.2 s. Nothing is awaited meanwhile, so no second request can come to build it as well.
        from functions.api import create_api

        return create_api(self._connect)
