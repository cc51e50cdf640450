"""The running function that every test here calls."""

from __future__ import annotations

import pytest

from tests.integration.api.served import Served
from tests.integration.nightly.night import Night


@pytest.fixture
async def served(night: Night) -> Served:
    """The function on a project with twelve mentors and a slot that is due."""
    await night.add_mentors(12)
    return Served(night, await night.start_function())
