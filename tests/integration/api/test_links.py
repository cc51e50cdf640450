"""From its opening to its end, an invocation is followed by nothing but the links of the OpenAPI document."""

from __future__ import annotations

from typing import Any

import httpx

from tests.integration.api.served import API, Served


class Follower:
    """Follows the links that the document gives an answer's status."""

    def __init__(self, served: Served, document: dict[str, Any]) -> None:
        self._served = served
        self._operations = {
            operation["operationId"]: (method, path, operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        }

    async def follow(self, answer: httpx.Response, of: str, link: str, **options: Any) -> httpx.Response:
        """Makes the request that this link of this operation's answer leads to."""
        links = self._operations[of][2]["responses"][str(answer.status_code)]["links"]
        method, path, _ = self._operations[links[link]["operationId"]]
        for name, expression in links[link]["parameters"].items():
            place = expression.removeprefix("$response.body#/")
            path = path.replace(f"{{{name}}}", answer.json()[place])
        return await self._served.call(method.upper(), path, **options)


async def test_an_invocation_is_opened_read_cancelled_deleted_and_gone(served: Served) -> None:
    follower = Follower(served, (await served.call("GET", "/openapi.json", token="")).json())

    opened = await served.call("POST", API, json={"note": "n"}, headers={"Prefer": "respond-async; wait=5"})
    assert opened.status_code == 202
    assert opened.headers["preference-applied"] == "respond-async"

    read = await follower.follow(opened, "create_invocation", "get")
    assert read.json()["status"] == "pending"
    assert read.json() == (await served.call("GET", opened.headers["location"])).json()
    too_early = await follower.follow(opened, "create_invocation", "delete")
    assert (too_early.status_code, too_early.json()["code"]) == (409, "still_open")

    cancelled = await follower.follow(opened, "create_invocation", "change", json={"status": "cancelled"})
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    again = await follower.follow(cancelled, "change_invocation", "change", json={"status": "cancelled"})
    assert again.json() == cancelled.json()

    deleted = await follower.follow(cancelled, "change_invocation", "delete")
    assert (deleted.status_code, deleted.content) == (204, b"")
    for link, options in {"get": {}, "change": {"json": {"note": "late"}}, "delete": {}}.items():
        gone = await follower.follow(cancelled, "change_invocation", link, **options)
        assert (gone.status_code, gone.json()["code"]) == (404, "not_found"), link
    assert (await served.call("GET", API)).json()["items"] == []
    assert served.night.engine.calls == []


async def test_one_that_has_ended_can_be_read_and_deleted_and_not_cancelled(served: Served) -> None:
    follower = Follower(served, (await served.call("GET", "/openapi.json", token="")).json())

    opened = await served.call("POST", API, json={"dry_run": True})
    assert (opened.status_code, opened.json()["status"]) == (201, "succeeded")

    read = await follower.follow(opened, "create_invocation", "get")
    assert read.json().items() >= (opened.json() | {"deduplicated": True}).items()
    late = await follower.follow(opened, "create_invocation", "change", json={"status": "cancelled"})
    assert (late.status_code, late.json()["code"], late.json()["field"]) == (409, "already_ended", "status")
    assert (await follower.follow(opened, "create_invocation", "delete")).status_code == 204
    assert (await follower.follow(opened, "create_invocation", "get")).status_code == 404
