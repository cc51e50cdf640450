"""Fixtures that tests of several modules share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.unit.clock import ManualClock
from tests.unit.log_lines import LogLines, captured_log

# The same examples each time, and no verdict that depends on how busy this machine is.
settings.register_profile("unit", max_examples=40, deadline=None, derandomize=True)
settings.load_profile("unit")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def log() -> Iterator[LogLines]:
    with captured_log() as lines:
        yield lines
