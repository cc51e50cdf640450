"""The function's process: staged as deployed, and started again when it dies."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.emulator.project import Project


async def test_it_serves_from_a_staged_folder_with_a_bare_environment(
    project: Project, http: httpx.AsyncClient, idle_function: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAKED", "from the emulator's own environment")
    (idle_function / "functions" / "main.py").write_text(
        "import os\nfrom starlette.responses import JSONResponse\n"
        "async def handle_scheduled_invocation(request):\n    return JSONResponse(dict(os.environ))\n"
    )
    function = await project.start_function({"EXTRA": "1"}, root=idle_function)
    seen = (await http.get(function.url)).json()
    assert seen["EXTRA"] == "1"
    assert seen["SUPABASE_SECRET_KEY"] == project.secret_key
    assert "LEAKED" not in seen


async def test_it_is_started_again_after_a_kill(project: Project, http: httpx.AsyncClient, idle_function: Path) -> None:
    function = await project.start_function(root=idle_function)
    first = function.pid
    await function.kill()
    await function.until_ready()
    assert function.pid != first
    assert (await http.get(function.url)).status_code == 200


async def test_without_restart_a_death_is_final(project: Project, idle_function: Path) -> None:
    function = await project.start_function(root=idle_function, restart=False)
    await function.kill()
    assert not function.alive
