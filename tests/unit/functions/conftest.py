"""The application as callers meet it, for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.functions.http_function import Function
from tests.unit.log_lines import LogLines


@pytest.fixture
async def function(log: LogLines) -> AsyncIterator[Function]:  # the log: what is logged shall not spill
    function = Function()
    async with function.http:
        yield function
