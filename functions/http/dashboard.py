"""`GET /dashboard`: the operator's page and its parts, the files of the folder `dashboard` beside this module.

The page holds no data and needs no token: an operator signs in within it, and it calls the REST API.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

FOLDER = Path(__file__).parent / "dashboard"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# The slash is a usual slip. Below it the page's own links would lead astray.
SLASH_PATH = "/dashboard/"
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


def _read(file: Path) -> tuple[bytes, dict[str, str]]:
    content = file.read_bytes()
    # Not of the file's time, which deployments set to one and the same.
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return content, HEADERS | {"ETag": etag, "Content-Type": f"{MEDIA_TYPES[file.suffix]}; charset=utf-8"}


_FILES = {
    "/dashboard" if file.name == "index.html" else f"/dashboard/{file.name}": _read(file)
    for file in sorted(FOLDER.iterdir())
    if file.suffix in MEDIA_TYPES
}
PATHS = frozenset({*_FILES, SLASH_PATH})


async def serve_dashboard(request: Request) -> Response:
    """Serves one of `PATHS`, or raises HTTPException 404."""
    path: str = request.scope["path"]
    if path == SLASH_PATH:
        # Relative, because the function may live below a path that it does not know.
        return RedirectResponse("../dashboard", 308)
    if path not in _FILES:
        raise HTTPException(404)
    content, headers = _FILES[path]
    # A proxy that packs what it passes on makes a strong tag a weak one; for this page they are the same.
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {headers["ETag"], "*"}:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)
