"""Which token may do what, and that two of a kind are known at once, so that they can be rotated."""

from __future__ import annotations

import secrets

from tests.integration.manual.caller import a_caller
from tests.integration.scheduled_runs.harness import Harness


async def test_each_token_may_do_what_its_role_may(harness: Harness) -> None:
    admins, invokers = [[secrets.token_urlsafe(32) for _ in range(2)] for _ in range(2)]
    unknown = ["", "a-token-that-was-never-given-out-to-a-caller", harness.project.admin_token]
    settings = {"SCHEDULER_ADMIN_TOKENS": ", ".join(admins), "SCHEDULER_INVOKE_TOKENS": ", ".join(invokers)}
    caller = await a_caller(harness, settings)
    document = (await caller.call("GET", "/openapi.json", token="")).json()
    protected = [
        (method.upper(), path.replace("{invocation_id}", "0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10"))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if operation.get("security")
    ]
    assert len(protected) == 8

    for method, path in protected:
        for tokens, allowed in (
            (unknown, {401}),
            (invokers, {200} if path == "/" else {403}),
            (admins, {200, 201, 404, 422}),
        ):
            statuses = {(await caller.call(method, path, token=token)).status_code for token in tokens}
            assert statuses <= allowed, (method, path)
