"""What `/openapi.json` says beside the models: who may call, what errors look like, and a page to read it with."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from functions.contract import Problem

DESCRIPTION = """Evaluates every active peer mentor for every engagement scenario, once for each slot of a schedule.

Every error is `application/problem+json` (RFC 9457) with a stable `code`."""

_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

# What any route may answer, and what any that asks for a token.
COMMON_PROBLEMS = (400, 413, 415, 500, 503)
TOKEN_PROBLEMS = (401, 403, 429)

# What can be done with an invocation that an answer describes.
LINKS_TO_INVOCATION = {
    name: {"operationId": operation, "parameters": {"invocation_id": "$response.body#/id"}}
    for name, operation in (
        ("get", "get_invocation"),
        ("change", "change_invocation"),
        ("delete", "delete_invocation"),
    )
}


def _header(description: str, *, required: bool = True) -> dict[str, Any]:
    return {"description": description, "required": required, "schema": {"type": "string"}}


OPENED: dict[str, Any] = {
    "headers": {"Location": _header("Where the invocation is.")},
    "links": LINKS_TO_INVOCATION,
}
OPENED_ONLY: dict[str, Any] = OPENED | {
    "headers": OPENED["headers"] | {"Preference-Applied": _header("`respond-async`.")}
}
_PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": _header("`Bearer`.")},
    429: {"Retry-After": _header("Seconds.")},
    # The dead-man's check answers 503 without it: when a night will have ended well is nobody's to say.
    503: {"Retry-After": _header("Seconds.", required=False)},
}

START_DOCS = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#api"})'
# The files are pinned by their digests, and nothing else may be loaded or called: whoever changes them there cannot
# read a token here.
DOCS = f"""<!doctype html>
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
<script>{START_DOCS}</script>
</body>
</html>
"""
DOCS_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'; style-src https://cdn.jsdelivr.net 'unsafe-inline'; script-src https://cdn.jsdelivr.net "
    f"'sha256-{base64.b64encode(hashlib.sha256(START_DOCS.encode()).digest()).decode()}'"
)


def problems(*statuses: int, open_to_all: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these errors, beside the common ones."""
    common = COMMON_PROBLEMS if open_to_all else COMMON_PROBLEMS + TOKEN_PROBLEMS
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            "headers": _PROBLEM_HEADERS.get(status, {}),
        }
        for status in sorted({*common, *statuses})
    }


def describe(app: FastAPI, routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The OpenAPI document; made once.

    Args:
        app: keeps it.
        routes: what it is about, those included that the application does not serve itself.
    """
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=DESCRIPTION,
            routes=routes,
            summary=app.summary,
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
        _forbid_null_parameters(document)
        app.openapi_schema = document
    return app.openapi_schema


def _forbid_null_parameters(document: dict[str, Any]) -> None:
    """A header or a parameter of a query is sent or left out; `null` would be a text of four letters."""
    operations = [operation for operations in document["paths"].values() for operation in operations.values()]
    for parameter in (parameter for operation in operations for parameter in operation.get("parameters", ())):
        schema = parameter["schema"]
        kinds = [kind for kind in schema.pop("anyOf", ()) if kind != {"type": "null"}]
        schema.update(kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})


def methods_at(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that are served at a request's path, for the `Allow` of a 405.

    Found by asking the routes: the document leaves out what is not of the API, such as this page and every HEAD.
    """
    return [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.routes)
    ]


async def show_docs() -> HTMLResponse:
    """A page to read the document with."""
    return HTMLResponse(DOCS, headers={"Content-Security-Policy": DOCS_POLICY, "Referrer-Policy": "no-referrer"})
