"""Both ends of what the SQL has to work on: the oldest PostgreSQL of hosted projects, and the emulator's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.emulator.project import ProjectFactory
from tests.faults.system_packages import server_with_pgtap


@pytest.fixture(scope="session")
async def oldest() -> AsyncIterator[ProjectFactory]:
    async with ProjectFactory(binaries=server_with_pgtap()) as factory:
        yield factory


@pytest.fixture(scope="session", params=["oldest", "projects"], ids=["oldest_postgres", "newest_postgres"])
def server(request: pytest.FixtureRequest) -> ProjectFactory:
    """A migrated server of either kind."""
    factory = request.getfixturevalue(request.param)
    assert isinstance(factory, ProjectFactory)
    return factory
