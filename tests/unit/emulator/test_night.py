"""What is said when the first tick opened no run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from tests.emulator.connections import Connection
from tests.emulator.night import reason_for_none


class OneRow:
    """A database that answers every query with this row."""

    def __init__(self, row: tuple[Any, ...] | None) -> None:
        self._row = row

    async def execute(self, query: bytes, parameters: object) -> OneRow:
        return self

    async def fetchone(self) -> tuple[Any, ...] | None:
        return self._row


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (("no_answer", None, None), "could not call the function: no_answer"),
        ((None, 401, "no"), "answered pg_cron's call with 401: no"),
        ((None, 200, '{"scheduled_for": "SLOT", "status": "succeeded"}'), "SLOT, has had its run, which is succeeded"),
        ((None, 200, '{"status": "idle"}'), "MISSED_SLOT_MAX_GAP_HOURS"),
    ],
)
async def test_the_reason_says_what_the_function_answered(answer: tuple[Any, ...], said: str) -> None:
    assert said in str(await reason_for_none(cast(Connection, OneRow(answer)), datetime.now(UTC)))


async def test_a_call_without_an_answer_yet_is_no_reason() -> None:
    assert await reason_for_none(cast(Connection, OneRow(None)), datetime.now(UTC)) is None
