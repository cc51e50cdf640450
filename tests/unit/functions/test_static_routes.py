"""What is open to all and holds no data: `/openapi.json`, `/docs`, and the page and files of `/dashboard`."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from functions.http.dashboard import PATHS
from functions.http.middleware import OPEN_PATHS
from shared.sign_in import SignIn
from shared.version import VERSION
from tests.unit.functions.http_function import Function

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


@pytest.fixture(scope="module")
async def document() -> dict[str, Any]:
    """Read once: it takes the function some time to make."""
    async with Function().http as http:
        response = await http.get("/openapi.json")
    described: dict[str, Any] = response.raise_for_status().json()
    return described


def test_it_is_valid_and_tells_nothing_of_the_installation(document: dict[str, Any]) -> None:
    assert (document["openapi"][:4], document["info"]["version"]) == ("3.1.", VERSION)
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    assert "example.org" not in str(document)


def test_each_route_says_its_token_and_its_refusals(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            expected = {"400", "500", "503"} if path in OPEN_PATHS else {"400", "401", "403", "500", "503"}
            expected |= {"413", "415"} if "requestBody" in operation else set()
            assert expected <= operation["responses"].keys()
            assert operation.get("security") == (None if path in OPEN_PATHS else [{"token": []}])
            # FastAPI would add a 422 of its own wherever something is validated.
            for status, response in operation["responses"].items():
                assert int(status) < 400 or response["content"] == PROBLEM, (path, status)


async def test_the_docs_page_runs_only_pinned_files(function: Function) -> None:
    response = await function.http.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert 'url: "openapi.json"' in response.text
    pinned = r'="(https://cdn\.jsdelivr\.net/npm/swagger-ui-dist@\d+\.\d+\.\d+/[^"]+)" crossorigin="anonymous"'
    files = re.findall(pinned + r'\s+integrity="sha384-[\w+/]{64}"', response.text)
    assert len(files) == len(re.findall(r"<(?:script|link)[^>]*(?:src|href)=", response.text))
    style, bundle = files
    policy = dict(rule.strip().partition(" ")[::2] for rule in response.headers["content-security-policy"].split(";"))
    (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"].split() == [bundle, f"'sha256-{digest}'"]
    assert policy["style-src"] == style
    assert (policy["default-src"], policy["connect-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")


FILES = sorted(PATHS - {"/dashboard/"})
SELF, NONE = "'self'", "'none'"
POLICY = dict.fromkeys(("script-src", "style-src", "connect-src"), SELF) | {"img-src": "'self' data:"}
POLICY |= dict.fromkeys(("default-src", "frame-ancestors", "base-uri", "form-action"), NONE)


@pytest.mark.parametrize("path", FILES)
async def test_each_file_is_served_under_a_strict_policy(function: Function, path: str) -> None:
    response = (await function.http.get(path)).raise_for_status()
    headers, tag = response.headers, response.headers["etag"]
    assert dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")) == POLICY
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    kinds = {"css": "text/css", "js": "text/javascript", "json": "application/json"}
    kind = kinds.get(path.rpartition(".")[2], "text/html")
    assert (headers["content-type"], headers["cache-control"]) == (f"{kind}; charset=utf-8", "no-cache")
    for known in ([tag], [f'"other", W/{tag}'], ['"other"', tag]):
        again = await function.http.get(path, headers=[("If-None-Match", each) for each in known])
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (await function.http.get(path, headers={"If-None-Match": '"other"'})).content == response.content
    assert function.sql.called() == []


async def test_the_page_learns_where_it_is_and_where_users_sign_in(function: Function) -> None:
    path = "/dashboard/config.json"
    hosted = "https://abcdefghijklmnopqrst.supabase.co"
    without = await Function(SUPABASE_URL=hosted, ENVIRONMENT_NAME="production").http.get(path)
    assert without.json() == {"sign_in": None, "project": "abcdefghijklmnopqrst", "environment": "production"}
    own = "https://Bücher.example:8443/sub"
    async with Function(sign_in=SignIn(own, "sb_publishable_x"), SUPABASE_URL=own).http as http:
        answer = await http.get(path)
        page = await http.get("/dashboard")
    address = {"auth_url": "https://xn--bcher-kva.example:8443/sub/auth/v1", "publishable_key": "sb_publishable_x"}
    assert answer.json() == {"sign_in": address, "project": "Bücher.example:8443", "environment": None}
    for response in (answer, page):
        policy = response.headers["content-security-policy"]
        assert "; connect-src 'self' https://xn--bcher-kva.example:8443; " in policy
    assert page.headers["etag"] != (await function.http.get("/dashboard")).headers["etag"], "a 304 keeps the policy"


async def test_a_files_tag_follows_its_content(function: Function) -> None:
    tags = {(await function.http.get(path)).headers["etag"] for path in FILES}
    assert len(tags) == len(FILES)
    slip = await function.http.get("/dashboard/")
    assert (slip.status_code, slip.headers["location"]) == (308, "../dashboard")
