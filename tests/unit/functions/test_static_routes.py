"""What is open to all and holds no data: `/openapi.json`, `/docs`, and the page and files of `/dashboard`."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from functions.http.dashboard import FOLDER, PATHS
from functions.http.invocations import PREFIX
from functions.http.middleware import OPEN_PATHS
from shared.version import VERSION
from tests.unit.functions.http_function import Function

ONE = PREFIX + "/{invocation_id}"
# Each operation with its name and with the statuses that only it has.
OPERATIONS = {
    ("post", "/"): ("handle_start", "200 202 422"),
    ("get", "/health"): ("health", "200"),
    ("get", "/health/last-run"): ("last_run", "200 422"),
    ("get", PREFIX): ("list_invocations", "200 422"),
    ("post", PREFIX): ("create_invocation", "200 201 202 409 422"),
    ("get", ONE): ("get_invocation", "200 404 422"),
    ("put", ONE): ("change_invocation", "200 404 409 422"),
    ("delete", ONE): ("delete_invocation", "204 404 409 422"),
    ("get", f"{PREFIX}/active-peer-mentors"): ("list_active_peer_mentors", "200 422"),
    ("post", f"{PREFIX}/evaluation-batch"): ("evaluate_batch", "200 422 502 504"),
}
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


@pytest.fixture(scope="module")
async def document() -> dict[str, Any]:
    """Read once: it takes the function some time to make."""
    async with Function().http as http:
        response = await http.get("/openapi.json")
    described: dict[str, Any] = response.raise_for_status().json()
    return described


def test_it_is_valid_and_tells_nothing_of_the_installation(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == VERSION
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    assert "example.org" not in str(document)


def test_each_route_has_its_name_and_says_how_it_answers(document: dict[str, Any]) -> None:
    found = {(method, path): each for path, item in document["paths"].items() for method, each in item.items()}
    names = {place: operation["operationId"] for place, operation in found.items()}
    assert names == {place: name for place, (name, _) in OPERATIONS.items()}
    for place, operation in found.items():
        is_open = place[1] in OPEN_PATHS
        expected = {"400", "500", "503", *OPERATIONS[place][1].split()}
        expected |= set() if is_open else {"401", "403"}
        expected |= {"413", "415"} if "requestBody" in operation else set()
        assert set(operation["responses"]) == expected, place
        assert operation.get("security") == (None if is_open else [{"token": []}]), place
        # FastAPI would add a 422 of its own wherever something is validated.
        for status, response in operation["responses"].items():
            assert int(status) < 400 or response["content"] == PROBLEM, (place, status)
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])


async def test_the_page_runs_nothing_but_pinned_files_and_its_own_line(function: Function) -> None:
    response = await function.http.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert 'url: "openapi.json"' in response.text
    files: dict[str, str] = {}
    for tag in re.findall(r"<(?:script|link)[^>]*(?:src|href)=[^>]*>", response.text):
        pinned = r'="(https://cdn\.jsdelivr\.net/npm/swagger-ui-dist@\d+\.\d+\.\d+/[^"]+)" crossorigin="anonymous"'
        found = re.search(pinned + r'\s+integrity="sha384-([^"]+)"', tag)
        assert found is not None, tag
        assert len(base64.b64decode(found[2], validate=True)) == hashlib.sha384().digest_size
        files[tag[1:5]] = found[1]
    policy = dict(rule.strip().partition(" ")[::2] for rule in response.headers["content-security-policy"].split(";"))
    (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"].split() == [files["scri"], f"'sha256-{digest}'"]
    assert policy["style-src"] == files["link"]
    assert (policy["default-src"], policy["connect-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")


# The dashboard

FILES = sorted(PATHS - {"/dashboard/"})
SELF, NONE = "'self'", "'none'"
POLICY = dict.fromkeys(("script-src", "style-src", "connect-src"), SELF) | {"img-src": "'self' data:"}
POLICY |= dict.fromkeys(("default-src", "frame-ancestors", "base-uri", "form-action"), NONE)


@pytest.mark.parametrize("path", FILES)
async def test_each_file_is_served_without_a_token_under_a_strict_policy(function: Function, path: str) -> None:
    headers = (await function.http.get(path)).raise_for_status().headers
    assert dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")) == POLICY
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    kind = "css" if path.endswith(".css") else "javascript" if path.endswith(".js") else "html"
    assert headers["content-type"] == f"text/{kind}; charset=utf-8"
    assert function.sql.called() == []


async def test_a_file_is_sent_again_only_when_it_changed(function: Function) -> None:
    tags: set[str] = set()
    for path in FILES:
        first = await function.http.get(path)
        tag = first.headers["etag"]
        assert first.headers["cache-control"] == "no-cache"
        for known in ([tag], [f'"other", W/{tag}'], ['"other"', tag]):
            again = await function.http.get(path, headers=[("If-None-Match", each) for each in known])
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert (await function.http.get(path, headers={"If-None-Match": '"other"'})).content == first.content
        tags.add(tag)
    assert len(tags) == len(FILES)
    slip = await function.http.get("/dashboard/")
    assert (slip.status_code, slip.headers["location"]) == (308, "../dashboard")


def test_every_address_in_the_page_is_its_own_and_exists() -> None:
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    linked = re.findall(r'(?:href|src)="(?!#|data:)([^"]+)"', page)
    assert {f"/{link}" for link in linked} == set(FILES) - {"/dashboard"}
    for file in FOLDER.glob("*.js"):
        for imported in re.findall(r'^import .* from "(.+)";$', file.read_text(encoding="utf-8"), re.MULTILINE):
            assert (FOLDER / imported).exists(), f"{file.name}: {imported}"


def test_no_file_would_need_a_weaker_policy_or_another_host() -> None:
    for file in FOLDER.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        weaker = r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|https?://|style=\"| on\w+=\""
        assert not re.search(weaker, text), file.name
