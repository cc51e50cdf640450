"""What `/openapi.json` says beside the models: who may call, what errors look like, and a page to read it with."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse
from starlette.routing import compile_path

from functions.contract import Problem

DESCRIPTION = """Evaluates every active peer mentor for every engagement scenario, once for each slot of a schedule.

Every error is `application/problem+json` (RFC 9457) with a stable `code`."""

# What any route that asks for a token, or reads a request, may answer.
COMMON_PROBLEMS = (400, 401, 403, 413, 415, 429, 500, 503)

LINKS_TO_INVOCATION = {
    name: {"operationId": operation, "parameters": {"invocation_id": "$response.body#/id"}}
    for name, operation in (
        ("get", "get_invocation"),
        ("change", "change_invocation"),
        ("delete", "delete_invocation"),
    )
}

# The files are pinned by their digests: whoever changes them there cannot read a token here.
DOCS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Scenario evaluation scheduler</title>
<link rel="stylesheet" href="https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0/swagger-ui.css" crossorigin="anonymous"
 integrity="sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I">
</head>
<body>
<div id="api"><p>The API is described in <a href="openapi.json">openapi.json</a>.</p></div>
<script src="https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0/swagger-ui-bundle.js" crossorigin="anonymous"
 integrity="sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"></script>
<script>SwaggerUIBundle({url: "openapi.json", dom_id: "#api"})</script>
</body>
</html>
"""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these errors, beside the common ones."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({*COMMON_PROBLEMS, *statuses})
    }


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, summary=app.summary
        )
        components = document.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
        components["securitySchemes"] = {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "An admin token may do everything, an invoke token only `POST /`.",
            }
        }
        document["security"] = [{"token": []}]
        app.openapi_schema = document
    return app.openapi_schema


def methods_at(app: FastAPI, path: str) -> list[str]:
    """The methods that are served at a path, for the `Allow` of a 405."""
    for template, operations in describe(app)["paths"].items():
        if compile_path(template)[0].match(path):
            return sorted(method.upper() for method in operations)
    return []


async def show_docs() -> HTMLResponse:
    """A page to read the document with."""
    return HTMLResponse(DOCS, headers={"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"})
