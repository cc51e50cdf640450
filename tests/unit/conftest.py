"""Fixtures that tests of several modules share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.clock import ManualClock
from tests.unit.log_lines import LogLines, captured_log


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def log() -> Iterator[LogLines]:
    with captured_log() as lines:
        yield lines
