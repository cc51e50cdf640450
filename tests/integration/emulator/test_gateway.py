"""Which API key may do what at the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.emulator.project import Project, ProjectFactory
from tests.integration.project_logs import project_without_leaks

BROWSER = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"


@pytest.fixture(scope="module")
async def project(projects: ProjectFactory) -> AsyncIterator[Project]:
    """One for all: nothing here changes it."""
    async with project_without_leaks(projects) as project:
        yield project


async def read_mentors(http: httpx.AsyncClient, project: Project, **headers: str) -> httpx.Response:
    return await http.get(f"{project.rest_url}/peer_mentors?limit=1", headers=headers)


async def test_secret_key_acts_as_service_role(project: Project, http: httpx.AsyncClient) -> None:
    assert (await read_mentors(http, project, apikey=project.secret_key)).status_code == 200


async def test_secret_key_sent_twice_is_not_taken_for_a_jwt(project: Project, http: httpx.AsyncClient) -> None:
    """As supabase-py does, which sends its key as Authorization, too."""
    key = project.secret_key
    answer = await read_mentors(http, project, apikey=key, authorization=f"Bearer {key}")
    assert answer.status_code == 200


async def test_secret_key_is_refused_from_a_browser(project: Project, http: httpx.AsyncClient) -> None:
    answer = await read_mentors(http, project, apikey=project.secret_key, **{"user-agent": BROWSER})
    assert answer.status_code == 401
    assert answer.json()["message"] == "Forbidden use of secret API key in browser"


async def test_publishable_key_works_in_a_browser_and_is_anon(project: Project, http: httpx.AsyncClient) -> None:
    answer = await read_mentors(http, project, apikey=project.publishable_key, **{"user-agent": BROWSER})
    assert answer.status_code == 401
    assert answer.json()["code"] == "42501", "PostgreSQL refuses anon, not the gateway"


async def test_legacy_keys_are_their_own_authorization(project: Project, http: httpx.AsyncClient) -> None:
    assert (await read_mentors(http, project, apikey=project.service_role_jwt)).status_code == 200
    assert (await read_mentors(http, project, apikey=project.anon_jwt)).json()["code"] == "42501"


async def test_legacy_authorization_is_passed_on(project: Project, http: httpx.AsyncClient) -> None:
    answer = await read_mentors(
        http, project, apikey=project.anon_jwt, authorization=f"Bearer {project.service_role_jwt}"
    )
    assert answer.status_code == 200


async def test_jwt_beside_an_opaque_key_is_passed_on(project: Project, http: httpx.AsyncClient) -> None:
    answer = await read_mentors(http, project, apikey=project.secret_key, authorization=f"Bearer {project.anon_jwt}")
    assert answer.json()["code"] == "42501"


@pytest.mark.parametrize("key", ["sb_secret_guess_00000000", "eyJhbGciOiJIUzI1NiJ9.e30.x", "x"])
async def test_unknown_key_is_refused(project: Project, http: httpx.AsyncClient, key: str) -> None:
    answer = await read_mentors(http, project, apikey=key, authorization=f"Bearer {project.service_role_jwt}")
    assert answer.status_code == 401
    assert answer.json()["message"] == "Invalid API key"


async def test_no_key_is_refused(project: Project, http: httpx.AsyncClient) -> None:
    answer = await read_mentors(http, project, authorization=f"Bearer {project.service_role_jwt}")
    assert answer.status_code == 401
    assert answer.json()["message"] == "No API key found in request"


async def test_other_paths_lead_nowhere(project: Project, http: httpx.AsyncClient) -> None:
    answer = await http.get(f"{project.supabase_url}/peer_mentors", headers={"apikey": project.secret_key})
    assert answer.status_code == 404
