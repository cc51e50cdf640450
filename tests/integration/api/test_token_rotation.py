"""Tokens rotate without a refused call: the new one is added, handed out, and the old one is removed."""

from __future__ import annotations

import secrets

import pytest

from tests.integration.api.served import API
from tests.integration.nightly.night import Night


@pytest.mark.parametrize(
    ("setting", "method", "path"),
    [("SCHEDULER_ADMIN_TOKENS", "GET", API), ("SCHEDULER_INVOKE_TOKENS", "POST", "/")],
)
async def test_old_and_new_are_known_together_and_the_old_one_no_longer(
    night: Night, setting: str, method: str, path: str
) -> None:
    old, new = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    seen = []
    for known in (old, f"{old}, {new}", new):
        function = await night.start_function({setting: known})
        seen.append(
            [
                (
                    await night.http.request(
                        method, f"{function.url}{path}", headers={"Authorization": f"Bearer {token}"}
                    )
                ).status_code
                for token in (old, new)
            ]
        )
    assert seen == [[200, 401], [200, 200], [401, 200]]
