"""The REST API: FastAPI with the seven endpoints, the document that describes all of this function, and a page for it.

What is refused before a route is reached is answered here, in the words of `refusals.py`; whatever a route raises is
left to the border.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp

from functions import invocation_routes
from functions.error_answers import answer_for
from functions.openapi import describe, methods_at, show_docs
from functions.problems import problem
from functions.refusals import invalid, no_json, not_served, unreadable_body
from functions.run_operations import operations
from functions.work import Work
from shared.version import VERSION


class RestApi(FastAPI):
    """FastAPI without its outermost layer, which answers for defects in plain text: the border does that."""

    def build_middleware_stack(self) -> ASGIApp:
        """The layers around the routes."""
        outermost = super().build_middleware_stack()
        assert isinstance(outermost, ServerErrorMiddleware)  # noqa: S101  # so Starlette documents it
        return outermost.app


def create_api(connect: Callable[[], Work]) -> RestApi:
    """Builds the application.

    Args:
        connect: answers what the routes work with; called for each request, so it should remember.
    """
    api = RestApi(
        title="Scenario evaluation scheduler",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    api.openapi = lambda: describe(api, [*operations.routes, *api.routes])  # type: ignore[method-assign]  # FastAPI's own way to extend it
    api.add_exception_handler(HTTPException, _answer_http_error)
    api.add_exception_handler(RequestValidationError, _answer_validation_error)
    api.state.connect = connect
    api.include_router(invocation_routes.router)
    api.add_api_route("/docs", show_docs, include_in_schema=False)
    return api


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  # Starlette hands over what was registered
    if error.status_code == 400:
        return answer_for(unreadable_body())
    if error.status_code == 404:
        return problem(404, "not_found", f"there is nothing at {request.scope['path']}")
    if error.status_code == 405:
        # Starlette knows the methods of the first route only.
        return answer_for(not_served(request.method, methods_at(request.app, request.scope)))
    return problem(error.status_code, "bad_request", "the request cannot be read", headers=dict(error.headers or {}))


async def _answer_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return answer_for(no_json())
    # The first part of the place is where it stands: body, header, query or path.
    return answer_for(invalid(first["type"], first["loc"][1:], first["msg"]))
