"""What grows with what: requests are counted, not seconds."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from functions.peer_mentors import PAGE_SIZE
from tests.unit.functions.http_function import Function
from tests.unit.functions.pretend_sql import mentor_row, opened_now

# Opening, the enumeration's end, a claim that finds nothing more, the end, handing back, and as much again to spare.
FIXED_REQUESTS = 10


@pytest.mark.parametrize(("mentors", "batch_size"), [(500, 500), (10_000, 500), (3_000, 100)])
async def test_requests_grow_with_batches_and_calls_with_users(mentors: int, batch_size: int) -> None:
    rows = [mentor_row(number) for number in range(mentors)]
    function = Function(rows=rows, EVALUATION_BATCH_SIZE=str(batch_size), ENGINE_USERS_PER_CALL="100")
    function.sql.answers["scheduler_open_slot"] = opened_now()
    assert (await function.start()).status_code == 202
    batches, pages = math.ceil(mentors / batch_size), math.ceil(mentors / PAGE_SIZE)
    called = Counter(function.sql.called())
    assert (called["scheduler_complete"], called["scheduler_active_mentors_page"]) == (batches, pages)
    assert called["scheduler_enqueue"] == pages + 1
    assert called.total() <= 3 * batches + FIXED_REQUESTS
    assert len(function.engine.calls) == math.ceil(mentors / 100)
