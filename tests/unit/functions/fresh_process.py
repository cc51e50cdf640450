"""A function's process that has just started: serves some requests, and tells after each which modules it has by then.

Run as a program, with the function's environment. An argument is a request, `METHOD PATH`; each is by an admin, and a
POST is as pg_cron sends it. On standard output is one JSON array of `[status, modules]`, that of the import first.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from starlette.requests import Request
from starlette.types import Message, Scope


async def serve(method: str, path: str) -> int:
    """One request, as functions-framework hands it over; answers the status."""
    from functions.main import handle_scheduled_invocation

    token = os.environ["SCHEDULER_ADMIN_TOKENS"]
    body = b"{}" if method == "POST" else b""
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json", "x-scheduler-dispatch": "17"}
    scope: Scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
    }
    incoming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    statuses: list[int] = []

    async def receive() -> Message:
        return incoming.pop()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    response = await handle_scheduled_invocation(Request(scope, receive))
    await response(scope, receive, send)
    return statuses[0]


async def main(asked: list[str]) -> None:
    import functions.main  # noqa: F401  # what the platform does before there is a request

    told: list[tuple[int | None, list[str]]] = [(None, sorted(sys.modules))]
    for request in asked:
        method, path = request.split()
        told.append((await serve(method, path), sorted(sys.modules)))
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
