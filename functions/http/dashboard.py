"""`GET /dashboard`: the operator's page and its parts, the files of the folder `dashboard` beside this module.

The page holds no data and needs no token: an operator signs in within it, and it calls the REST API.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from shared.config import ScenarioEvaluationConfig

FOLDER = Path(__file__).parent / "dashboard"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".json": "application/json"}
# The slash is a usual slip. Below it the page's own links would lead astray.
SLASH_PATH = "/dashboard/"
SETTINGS_PATH = "/dashboard/settings.json"
HEADERS = {
    # Nothing but the files of this folder is loaded, and nothing but this function is called.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Cached, but revalidated on each use: files of two deployments must not mix.
    "Cache-Control": "no-cache",
}


def _tagged(content: bytes, suffix: str) -> tuple[bytes, dict[str, str]]:
    # Not of the file's time, which deployments set to one and the same.
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return content, HEADERS | {"ETag": etag, "Content-Type": f"{MEDIA_TYPES[suffix]}; charset=utf-8"}


def _settings(config: ScenarioEvaluationConfig) -> bytes:
    """Returns what the page has to know before an operator signs in; nothing of it is secret."""
    key: str | None = getattr(config, "supabase_publishable_key", None)
    settings = {
        "auth_url": f"{config.supabase_url}/auth/v1" if key else None,
        "publishable_key": key,
        "project": urlsplit(config.supabase_url).netloc.removesuffix(".supabase.co"),
        "environment": config.environment_name,
    }
    return json.dumps(settings).encode()


_FILES = {
    "/dashboard" if file.name == "index.html" else f"/dashboard/{file.name}": _tagged(file.read_bytes(), file.suffix)
    for file in sorted(FOLDER.iterdir())
    if file.suffix in MEDIA_TYPES
}
PATHS = frozenset({*_FILES, SLASH_PATH, SETTINGS_PATH})


async def serve_dashboard(request: Request) -> Response:
    """Serves one of `PATHS`, or raises HTTPException 404."""
    path: str = request.scope["path"]
    if path == SLASH_PATH:
        # Relative, because the function may live below a path that it does not know.
        return RedirectResponse("../dashboard", 308)
    if path == SETTINGS_PATH:
        content, headers = _tagged(_settings(request.app.state.connect().config), ".json")
    elif path in _FILES:
        content, headers = _FILES[path]
    else:
        raise HTTPException(404)
    # A proxy that packs what it passes on makes a strong tag a weak one; for this page they are the same.
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {headers["ETag"], "*"}:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)
