"""A real Supabase project for every test that requests one.

`projects` is a session's PostgreSQL with the migrations applied once; `project` is a clone of that database, with its
own PostgREST and gateway, and everything that the test starts on it ends with it. A secret in any of their logs fails
the test.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.emulator.project import Project, ProjectFactory
from tests.faults.system_packages import summary
from tests.integration.project_logs import project_without_leaks
from tests.integration.scheduled_runs.harness import Harness
from tests.integration.scheduled_runs.harness import harness as a_scheduled_run


def pytest_xdist_auto_num_workers() -> int:
    """Most tests wait for other processes half of their time: two workers more than there are cores."""
    return len(os.sched_getaffinity(0)) + 2


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with what takes longest, so that no worker ends with it while the others have nothing left."""
    items.sort(key=lambda item: item.path.parent.name not in ("state_machine", "deploy"))


NOT_FOUND = pytest.StashKey[set[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[Any]:
    """Passes a path or test that does not exist to the controller: xdist itself only reports that no tests ran."""
    try:
        return (yield)
    except pytest.UsageError as error:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["not_found"] = [str(line) for line in error.args]
        raise


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    not_found = getattr(node, "workeroutput", {}).get("not_found", [])
    node.config.stash.setdefault(NOT_FOUND, set()).update(not_found)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.stash.get(NOT_FOUND, None):
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    yield
    for error in sorted(config.stash.get(NOT_FOUND, ())):
        terminalreporter.write_line(f"ERROR: {error}", red=True)
    if skipped := summary(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(skipped, yellow=True)


@pytest.fixture(scope="session")
async def projects() -> AsyncIterator[ProjectFactory]:
    async with ProjectFactory(forked=True) as factory:
        yield factory


@pytest.fixture
async def project(projects: ProjectFactory) -> AsyncIterator[Project]:
    async with project_without_leaks(projects) as project:
        yield project


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture
async def harness(project: Project, http: httpx.AsyncClient) -> AsyncIterator[Harness]:
    async with a_scheduled_run(project, http) as prepared:
        yield prepared
