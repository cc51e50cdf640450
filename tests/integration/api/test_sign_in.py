"""Users of the project sign in with a password, as the page does, and do what their role allows."""

from __future__ import annotations

from typing import Any

import httpx
import jwt

from tests.emulator.auth import claims, key_id, new_user, private_key
from tests.emulator.project import Project
from tests.integration.manual.caller import PATH, Caller, a_caller
from tests.integration.scheduled_runs.harness import Harness

OPERATOR, VIEWER, MENTOR = (new_user(f"{name}@example.org") for name in ("operator", "viewer", "mentor"))
PAGE = {"Origin": "https://function.example.org"}


class AuthClient:
    """Calls Auth with what the page reads in `config.json`."""

    def __init__(self, http: httpx.AsyncClient, project: Project, given: dict[str, str]) -> None:
        self._http = http
        self._project = project
        self._url, self._apikey = given["auth_url"], {"apikey": given["publishable_key"]}

    async def post(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        answer = await self._http.post(f"{self._url}/{path}", json=body, headers=PAGE | self._apikey | headers)
        assert answer.headers["access-control-allow-origin"] == "*"
        return answer

    async def sign_in(self, user: dict[str, Any]) -> dict[str, Any]:
        password = self._project.sign_in.passwords[user["email"].partition("@")[0]]
        answer = await self.post("token?grant_type=password", {"email": user["email"], "password": password})
        return dict(answer.raise_for_status().json())

    async def refresh(self, refresh_token: str) -> httpx.Response:
        return await self.post("token?grant_type=refresh_token", {"refresh_token": refresh_token})

    async def change_role(self, user: dict[str, Any], role: str | None) -> None:
        """As docs/deployment.md says."""
        answer = await self._http.put(
            f"{self._url}/admin/users/{user['id']}",
            json={"app_metadata": {"scheduler_role": role}},
            headers={"apikey": self._project.secret_key},
        )
        assert answer.raise_for_status().json()["app_metadata"].get("scheduler_role") == role


async def statuses(caller: Caller, token: str) -> list[int]:
    """What comes of reading, running, a slice and a batch."""
    batch = f"{PATH}/evaluation-batch"
    return [
        (await caller.call(method, path, token=token)).status_code
        for method, path in (("GET", PATH), ("POST", PATH), ("POST", "/"), ("POST", batch))
    ]


async def test_users_do_what_their_role_allows(harness: Harness) -> None:
    project, http = harness.project, harness.http
    await project.start_auth()
    await harness.add_mentors(3)
    caller = await a_caller(harness)
    given = (await caller.call("GET", "/dashboard/config.json", token="")).json()["sign_in"]
    assert given == {"auth_url": f"{project.supabase_url}/auth/v1", "publishable_key": project.publishable_key}
    auth = AuthClient(http, project, given)
    operator, viewer, mentor = [await auth.sign_in(user) for user in (OPERATOR, VIEWER, MENTOR)]

    answer = await caller.call("POST", PATH, token=operator["access_token"], json={"dry_run": True})
    assert (answer.status_code, answer.json()["triggered_by"]) == (201, OPERATOR["id"])
    seen = await caller.call("GET", f"{PATH}?triggered_by={OPERATOR['id']}", token=viewer["access_token"])
    assert [run["id"] for run in seen.json()["data"]] == [answer.json()["id"]]
    assert await statuses(caller, operator["access_token"]) == [200, 201, 200, 422]
    assert await statuses(caller, viewer["access_token"]) == [200, 403, 403, 403]
    assert await statuses(caller, mentor["access_token"]) == [403] * 4

    secret, issuer = project.sign_in.signing_secret, project.auth_url
    forged = jwt.encode(claims(issuer, OPERATOR, "x"), private_key("ab" * 31), "ES256", {"kid": key_id(secret)})
    expired = jwt.encode(claims(issuer, OPERATOR, "x", -60), private_key(secret), "ES256", {"kid": key_id(secret)})
    theirs = claims("https://other.supabase.co/auth/v1", OPERATOR, "x")
    foreign = jwt.encode(theirs, private_key("ab" * 31), "ES256", {"kid": key_id("ab" * 31)})
    for token in (forged, expired, foreign, project.service_role_jwt, project.publishable_key):
        assert await statuses(caller, token) == [401] * 4

    # What is taken from a user or ended holds from the next token on.
    await auth.change_role(OPERATOR, None)
    assert (await statuses(caller, operator["access_token"]))[1] == 201
    renewed = (await auth.refresh(operator["refresh_token"])).raise_for_status().json()
    assert await statuses(caller, renewed["access_token"]) == [403] * 4
    bearer = f"Bearer {viewer['access_token']}"
    assert (await auth.post("logout?scope=local", Authorization=bearer)).status_code == 204
    assert (await auth.refresh(viewer["refresh_token"])).json()["error_code"] == "refresh_token_not_found"
    assert (await statuses(caller, viewer["access_token"]))[0] == 200

    assert project.auth is not None
    await project.auth.stop()
    assert (await statuses(caller, viewer["access_token"]))[0] == 200
    late = Caller(harness, await harness.start_function())
    refused = await late.call("GET", PATH, token=viewer["access_token"])
    assert (refused.status_code, refused.json()["code"]) == (503, "sign_in_unavailable")
    assert refused.headers["retry-after"] == "30"
    assert (await late.call("GET", PATH)).status_code == 200
    (line,) = harness.log_lines(late.function, "signing_keys_unavailable")
    assert "502" in line["message"]


async def test_auth_refuses_as_supabase_does(project: Project, http: httpx.AsyncClient) -> None:
    await project.start_auth()
    given = {"auth_url": project.auth_url, "publishable_key": project.publishable_key}
    auth = AuthClient(http, project, given)
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "apikey,content-type"}
    allowed = await http.request("OPTIONS", f"{project.auth_url}/token", headers=PAGE | preflight)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "*")
    assert {"apikey", "Authorization", "Content-Type"} <= {*allowed.headers["access-control-allow-headers"].split(", ")}
    keys = await http.get(f"{project.auth_url}/.well-known/jwks.json")
    assert [(key["alg"], key["crv"], "d" in key) for key in keys.json()["keys"]] == [("ES256", "P-256", False)]
    without_key = await http.post(f"{project.auth_url}/token?grant_type=password")
    assert (without_key.status_code, without_key.json()["message"]) == (401, "No API key found in request")

    wrong = {"email": OPERATOR["email"], "password": "guess"}
    for path, body, status, code in (
        ("token?grant_type=password", wrong, 400, "invalid_credentials"),
        ("token?grant_type=password", wrong | {"email": "eve@example.org"}, 400, "invalid_credentials"),
        ("token?grant_type=password", {}, 400, "validation_failed"),
        ("token?grant_type=refresh_token", {"refresh_token": "guess"}, 400, "refresh_token_not_found"),
        ("token?grant_type=magic", {}, 400, "invalid_credentials"),
        ("logout", None, 403, "bad_jwt"),
        ("nowhere", None, 404, "unknown"),
    ):
        answer = await auth.post(path, body)
        assert (answer.status_code, answer.json()["code"], answer.json()["error_code"]) == (status, status, code)
        assert answer.json()["msg"]

    session = await auth.sign_in(VIEWER)
    assert (
        jwt.decode(session["access_token"], options={"verify_signature": False}).keys() == claims("", VIEWER, "").keys()
    )
    tokens = [session["refresh_token"]]
    for _ in range(2):
        tokens.append((await auth.refresh(tokens[-1])).json()["refresh_token"])
    assert (await auth.refresh(tokens[1])).json()["refresh_token"] == tokens[2]
    assert (await auth.refresh(tokens[0])).json()["error_code"] == "refresh_token_already_used"
    assert (await auth.refresh(tokens[2])).json()["error_code"] == "refresh_token_not_found"
    answers = [await auth.post("token?grant_type=password", wrong) for _ in range(30)]
    assert (answers[-1].status_code, answers[-1].json()["error_code"]) == (429, "over_request_rate_limit")
