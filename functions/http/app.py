"""The FastAPI application: routers, exception handlers, the OpenAPI document and a page to read it with."""

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from functions.http import evaluations, invocations, operations, scenario_configs, trigger
from functions.http.dashboard import Dashboard
from functions.http.dependencies import refuse_repeated_parameters
from functions.http.middleware import RequestGate
from functions.http.problems import answer_http_error, answer_validation_error
from functions.http.schemas import Problem
from functions.runs.services import Services
from shared.auth import TokenCheck
from shared.fingerprint import Fingerprint
from shared.sign_in import SignIn
from shared.version import VERSION

DESCRIPTION = """Evaluates every active peer mentor for every engagement scenario, once for each slot of a schedule.

Every error is `application/problem+json` (RFC 9457) with a stable `code`."""

SWAGGER = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0"
START_DOCS = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#api"})'
# Both files are pinned by address and digest, and nothing else may be loaded or called: a changed file cannot read a
# token here.
DOCS = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Scenario evaluation scheduler</title>
<link rel="stylesheet" href="{SWAGGER}/swagger-ui.css" crossorigin="anonymous"
 integrity="sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I">
</head>
<body>
<div id="api"><p>The API is described in <a href="openapi.json">openapi.json</a>.</p></div>
<script src="{SWAGGER}/swagger-ui-bundle.js" crossorigin="anonymous"
 integrity="sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"></script>
<script>{START_DOCS}</script>
</body>
</html>
"""
DOCS_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    f"form-action 'none'; style-src {SWAGGER}/swagger-ui.css; script-src {SWAGGER}/swagger-ui-bundle.js "
    f"'sha256-{base64.b64encode(hashlib.sha256(START_DOCS.encode()).digest()).decode()}'"
)


class Application(FastAPI):
    """FastAPI, and what its document does not get right by itself."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            # Routes refer to it by name, as it is no `application/json`.
            document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
            # A parameter is sent or left out; `null` would be a text of four letters.
            for operation in (operation for path in document["paths"].values() for operation in path.values()):
                for schema in (parameter["schema"] for parameter in operation.get("parameters", ())):
                    if "anyOf" in schema:
                        (kind,) = (kind for kind in schema.pop("anyOf") if kind != {"type": "null"})
                        schema.update(kind)
        return super().openapi()


def create_app(
    connect: Callable[[], Services], tokens: TokenCheck, fingerprint: Fingerprint, sign_in: SignIn | None = None
) -> FastAPI:
    """Builds the application. `connect` is called for each request, so it should cache the services."""
    app = Application(
        title="Scenario evaluation scheduler",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        dependencies=[Depends(refuse_repeated_parameters)],
        exception_handlers={HTTPException: answer_http_error, RequestValidationError: answer_validation_error},
    )
    app.state.connect = connect
    app.state.fingerprint = fingerprint
    app.add_middleware(RequestGate, tokens=tokens, sign_in=sign_in)
    app.include_router(trigger.router)
    app.include_router(invocations.router)
    app.include_router(evaluations.router)
    app.include_router(scenario_configs.router)
    app.include_router(operations.router)
    app.add_api_route("/docs", show_docs, include_in_schema=False)
    app.add_route("/dashboard{file:path}", Dashboard(sign_in).serve, include_in_schema=False)
    return app


async def show_docs() -> HTMLResponse:
    return HTMLResponse(DOCS, headers={"Content-Security-Policy": DOCS_POLICY, "Referrer-Policy": "no-referrer"})
