"""`GET /dashboard`: the operator's page and its parts, the files of the folder `dashboard` beside this module.

The page holds no data and needs no token: an operator signs in within it, and it calls the REST API.
"""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from shared.config import ScenarioEvaluationConfig
from shared.sign_in import SignIn

FOLDER = Path(__file__).parent / "dashboard"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# The slash is a usual slip. Below it the page's own links would lead astray.
SLASH_PATH = "/dashboard/"
# What the page has to know of the installation.
CONFIG_PATH = "/dashboard/config.json"
PATHS = frozenset(
    {"/dashboard", SLASH_PATH, CONFIG_PATH}
    | {f"/dashboard/{file.name}" for file in FOLDER.iterdir() if file.suffix in MEDIA_TYPES}
) - {"/dashboard/index.html"}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Cached, but revalidated on each use: files of two deployments must not mix.
    "Cache-Control": "no-cache",
}


class Dashboard:
    """The files as they are now, since they may be replaced while the process goes on with what it has imported.

    `sign_in`: where the page signs users in, if it may.
    """

    def __init__(self, sign_in: SignIn | None) -> None:
        # Nothing but the files of this folder is loaded; nothing but this function, and where users sign in, is called.
        called = "'self'" if sign_in is None else f"'self' {sign_in.origin}"
        self._policy = policy = (
            f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src {called}; img-src 'self' data:; "
            "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        )
        self._sign_in = sign_in and {"auth_url": sign_in.auth_url, "publishable_key": sign_in.publishable_key}
        self._files = {}
        for path in PATHS - {SLASH_PATH, CONFIG_PATH}:
            file = FOLDER / ("index.html" if path == "/dashboard" else path.rpartition("/")[2])
            self._files[path] = _answer(file.read_bytes(), MEDIA_TYPES[file.suffix], policy)

    async def serve(self, request: Request) -> Response:
        """Serves one of `PATHS`, or raises HTTPException 404."""
        path: str = request.scope["path"]
        if path == SLASH_PATH:
            # Relative, because the function may live below a path that it does not know.
            return RedirectResponse("../dashboard", 308)
        if path == CONFIG_PATH:
            config = orjson.dumps({"sign_in": self._sign_in, **_installation(request.app.state.connect().config)})
            content, headers = _answer(config, "application/json", self._policy)
        elif path in self._files:
            content, headers = self._files[path]
        else:
            raise HTTPException(404)
        # A proxy that packs what it passes on makes a strong tag a weak one; for this page they are the same.
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if known & {headers["ETag"], "*"}:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)


def _installation(config: ScenarioEvaluationConfig) -> dict[str, Any]:
    project = urlsplit(config.supabase_url).netloc.removesuffix(".supabase.co")
    return {"project": project, "environment": config.environment_name}


def _answer(content: bytes, media_type: str, policy: str) -> tuple[bytes, dict[str, str]]:
    # Not of the file's time, which deployments set to one and the same. The policy: a cache keeps it with the file.
    etag = f'"{hashlib.sha256(content + policy.encode()).hexdigest()[:32]}"'
    headers = {"Content-Security-Policy": policy, "ETag": etag, "Content-Type": f"{media_type}; charset=utf-8"}
    return content, HEADERS | headers
