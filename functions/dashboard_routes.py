"""`GET /dashboard`: the operator's page and its parts, as they lie in `functions/dashboard`.

The page holds no data and asks for no token: whoever opens it signs in within it, and it asks the REST API as any
caller does. It is served without FastAPI, from the files beside this one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from functions.refusals import not_served

FOLDER = Path(__file__).parent / "dashboard"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
PAGE_PATH = "/dashboard"
# Whoever types the slash gets there as well. Below it the page's own links would lead astray.
SLASH_PATH = "/dashboard/"

_FILES = {
    PAGE_PATH if file.name == "index.html" else f"{PAGE_PATH}/{file.name}": file
    for file in sorted(FOLDER.iterdir())
    if file.suffix in MEDIA_TYPES
}
PATHS = frozenset({*_FILES, SLASH_PATH})

HEADERS = {
    # Nothing but the files of this folder is loaded, and nobody but this function is called.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Kept, but asked about each time: the files of a new deployment shall not be mixed with older ones.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    etag: str


async def serve_dashboard(scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one request to one of `PATHS`.

    Raises:
        RequestError: 405.
    """
    request = Request(scope, receive)
    if request.method not in ("GET", "HEAD"):
        raise not_served(request.method, ("GET", "HEAD"))
    await _answer(request)(scope, receive, send)


def _answer(request: Request) -> Response:
    path: str = request.scope["path"]
    if path == SLASH_PATH:
        # Relative, because the function may live below a path that it does not know.
        return RedirectResponse("../dashboard", 308)
    file = _read(_FILES[path])
    headers = HEADERS | {"ETag": file.etag}
    if file.etag in _etags(request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers | {"Content-Type": MEDIA_TYPES[_FILES[path].suffix]})


def _etags(header: str) -> set[str]:
    # A proxy that packs what it passes on makes a strong tag a weak one; for us they are the same.
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}


@lru_cache(maxsize=64)
def _read(path: Path) -> _File:
    content = path.read_bytes()
    return _File(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
