"""A small engine over real HTTP that keeps the contract, but for one thing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, get_args

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.engine_conformance.engine import Pair

TOKEN = "the-engines-own-token"
USERS = [f"00000000-0000-4000-8000-{number:012}" for number in range(120)]
TYPES = ["applies", "does_not_apply"]

Fault = Literal[
    "none",
    "answers nobody",
    "takes fifty users",
    "answers as text",
    "answers a bare list",
    "has an outcome of its own",
    "fails without an error",
    "leaves a pair out",
    "answers a pair twice",
    "answers about somebody else",
    "echoes the token",
    "writes user ids in capitals",
    "tells stories",
    "refuses a call with an unknown user",
    "crashes at an unknown type",
    "triggers an unknown user",
    "lets unknown types be tried again",
    "decides by who is asked about beside her",
    "says that unknown types do not apply",
    "takes any token",
    "takes half of a token for the whole",
    "forbids instead",
    "takes no token",
    "crashes at what is no call",
    "guesses whether it is dry",
    "is broken by what is no call",
    "notifies in a dry run",
    "notifies in a dry run and cools down",
    "cools down after a dry run",
    "remembers dry runs",
    "keeps the key of a dry run",
    "names no notification",
    "notifies both of two at once",
    "refuses the second of two at once",
    "notifies at every repeat",
    "suppresses a repeat",
    "keeps keys of calls",
    "keeps keys of users",
    "replays failures",
    "ties keys to users",
    "takes too long",
    "dribbles about a hundred",
]
FAULTS = [fault for fault in get_args(Fault) if fault not in ("none", "ties keys to users")]


class BrokenEngine:
    """Args: fault: what it does wrong."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._keys: dict[str, str | None] = {}
        self._notifications = 0
        self._dry_before: set[Pair] = set()
        self._working: set[str] = set()
        self._is_broken = False
        self._cooling: set[Pair] = set()
        self._failed: dict[str, dict[str, Any]] = {}

    async def serve(self, request: Request) -> Response:
        """POST /v1/evaluations."""
        fault = self._fault
        if fault == "answers nobody" or self._is_broken:
            return Response(status_code=500)
        given = request.headers.get("authorization")
        if given != f"Bearer {TOKEN}" and not self._lets_in(given):
            return Response(status_code=403 if fault == "forbids instead" else 401)
        try:
            call = json.loads(await request.body())
            if fault == "guesses whether it is dry":
                call.setdefault("dry_run", True)
            evaluations, is_dry = call["evaluations"], call["dry_run"]
        except (ValueError, KeyError):
            self._is_broken = fault == "is broken by what is no call"
            return Response(status_code=500 if fault == "crashes at what is no call" else 400)
        users = [evaluation["user_id"] for evaluation in evaluations]
        if fault == "takes fifty users" and len(users) > 50:
            return Response(status_code=413)
        if fault == "dribbles about a hundred" and len(users) > 50:
            return StreamingResponse(_dribble(), media_type="application/json")
        if fault == "takes too long":
            await asyncio.sleep(60)
        if fault == "refuses a call with an unknown user" and not set(users) <= set(USERS):
            return Response(status_code=422)
        if fault == "crashes at an unknown type" and any(
            set(each["scenario_types"]) - set(TYPES) for each in evaluations
        ):
            return Response(status_code=500)
        if fault == "refuses the second of two at once" and not is_dry:
            key = evaluations[0]["idempotency_key_prefix"]
            if key in self._working:
                return Response(status_code=409)
            self._working.add(key)
            await asyncio.sleep(0.05)
            self._working.discard(key)
        results = [
            await self._decide(each["user_id"], scenario_type, each["idempotency_key_prefix"], users, is_dry=is_dry)
            for each in evaluations
            for scenario_type in each["scenario_types"]
        ]
        return self._answer(results)

    def _lets_in(self, given: str | None) -> bool:
        if self._fault == "takes half of a token for the whole":
            return (given or "").startswith(f"Bearer {TOKEN}")
        return self._fault == ("takes any token" if given else "takes no token")

    async def _decide(
        self, user_id: str, scenario_type: str, prefix: str, users: list[str], *, is_dry: bool
    ) -> dict[str, Any]:
        fault = self._fault
        result: dict[str, Any] = {"user_id": user_id, "scenario_type": scenario_type}
        if fault == "replays failures" and f"{prefix}:{scenario_type}" in self._failed:
            return result | self._failed[f"{prefix}:{scenario_type}"]
        if fault == "ties keys to users" and not prefix.endswith(user_id):
            return result | {"outcome": "failed", "error": {"code": "key_of_another_user", "retryable": False}}
        unknown = "user" if user_id not in USERS else "scenario_type" if scenario_type not in TYPES else None
        if unknown == "user" and fault == "triggers an unknown user":
            unknown = None
        if unknown == "scenario_type" and fault == "says that unknown types do not apply":
            return result | {"outcome": "not_triggered"}
        if unknown is not None:
            retryable = fault == "lets unknown types be tried again" and unknown == "scenario_type"
            error = {"code": f"unknown_{unknown}", "message": "not known", "retryable": retryable}
            self._failed[f"{prefix}:{scenario_type}"] = {"outcome": "failed", "error": error}
            return result | {"outcome": "failed"} | ({} if fault == "fails without an error" else {"error": error})
        if scenario_type != TYPES[0]:
            outcome = "later" if fault == "has an outcome of its own" else "not_triggered"
            return result | {"outcome": outcome}
        if fault == "decides by who is asked about beside her" and not set(users) <= set(USERS):
            return result | {"outcome": "suppressed"}
        key, pair = f"{prefix}:{scenario_type}", (user_id, scenario_type)
        if fault in ("notifies in a dry run and cools down", "cools down after a dry run"):
            if pair in self._cooling and key not in self._keys:
                return result | {"outcome": "suppressed"}
            self._cooling.add(pair)
        if is_dry and fault not in ("notifies in a dry run", "notifies in a dry run and cools down"):
            return result | {"outcome": self._dry_outcome(pair, key)}
        if fault == "keeps keys of calls":
            key = f"{key} of {','.join(users)}"
        if fault == "keeps keys of users":
            key = f"{user_id}:{scenario_type}"
        return result | await self._act(key)

    def _dry_outcome(self, pair: Pair, key: str) -> str:
        if self._fault == "keeps the key of a dry run" and key.startswith("manual:"):
            self._keys[key] = None
        if self._fault == "remembers dry runs" and key.startswith("manual:"):
            is_known = pair in self._dry_before
            self._dry_before.add(pair)
            return "suppressed" if is_known else "triggered"
        return "triggered"

    async def _act(self, key: str) -> dict[str, Any]:
        if key in self._keys and self._fault != "notifies at every repeat":
            if self._fault == "suppresses a repeat" and self._keys[key] != "first":
                return {"outcome": "suppressed"}
            return {"outcome": "triggered", "notification_id": self._keys[key]}
        if self._fault == "names no notification":
            return {"outcome": "triggered"}
        if self._fault == "notifies both of two at once":
            await asyncio.sleep(0.02)
        self._notifications += 1
        self._keys[key] = f"n-{self._notifications}"
        return {"outcome": "triggered", "notification_id": self._keys[key]}

    def _answer(self, results: list[dict[str, Any]]) -> Response:
        changed: dict[str, Callable[[], Any]] = {
            "leaves a pair out": lambda: results[1:],
            "answers a pair twice": lambda: [*results, results[0]],
            "answers about somebody else": lambda: [*results, results[0] | {"user_id": "somebody"}],
            "echoes the token": lambda: [*results, results[0] | {"user_id": f"{TOKEN}\x1b[2J"}],
            "writes user ids in capitals": lambda: [each | {"user_id": each["user_id"] + "A"} for each in results],
            "tells stories": lambda: [each | {"story": "x" * 2_000_000} for each in results[:1]] + results[1:],
        }
        if self._fault in changed:
            results = changed[self._fault]()
        if self._fault == "answers a bare list":
            return JSONResponse(results)
        response = JSONResponse({"results": results})
        if self._fault == "answers as text":
            response.headers["content-type"] = "text/plain"
        return response


async def _dribble() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.sleep(0.05)


@asynccontextmanager
async def broken_engine(fault: Fault) -> AsyncIterator[str]:
    """Serves one; its URL."""
    app = Starlette(routes=[Route("/v1/evaluations", BrokenEngine(fault).serve, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=0))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
