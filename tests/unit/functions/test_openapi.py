"""`/openapi.json` is a document that tools can read, and says what the routes do; `/docs` shows it."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from functions.http.invocations import PREFIX
from functions.http.middleware import OPEN_PATHS
from functions.http.schemas import MAX_CHOSEN_MENTORS, MAX_NOTE_LENGTH
from shared.version import VERSION
from tests.unit.functions.http_function import Function

ONE = PREFIX + "/{invocation_id}"
OPERATIONS = {
    ("post", "/"): "handle_start",
    ("get", "/health"): "health",
    ("get", "/health/last-run"): "last_run",
    ("get", PREFIX): "list_invocations",
    ("post", PREFIX): "create_invocation",
    ("get", ONE): "get_invocation",
    ("put", ONE): "change_invocation",
    ("delete", ONE): "delete_invocation",
    ("get", f"{PREFIX}/active-peer-mentors"): "list_active_peer_mentors",
    ("post", f"{PREFIX}/evaluation-batch"): "evaluate_batch",
}


@pytest.fixture(scope="module")
async def document() -> dict[str, Any]:
    """Read once: it takes the function some time to make."""
    async with Function().http as http:
        response = await http.get("/openapi.json")
    assert response.status_code == 200
    described: dict[str, Any] = response.json()
    return described


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method, path): operation for path, item in document["paths"].items() for method, operation in item.items()}


def test_it_is_valid_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == VERSION
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_route_is_in_it_under_a_name_of_its_own(document: dict[str, Any]) -> None:
    found = {place: operation["operationId"] for place, operation in operations(document).items()}
    assert found == OPERATIONS
    assert len(set(found.values())) == len(found)


async def test_it_is_made_of_the_routes_that_are_served(function: Function, document: dict[str, Any]) -> None:
    for method, path in operations(document):
        response = await function.http.request(method, path.replace("{invocation_id}", "x"))
        assert response.status_code in ({200, 503} if path in OPEN_PATHS else {401}), (method, path)


def test_only_what_is_open_to_all_asks_for_no_token(document: dict[str, Any]) -> None:
    assert "security" not in document
    assert set(document["components"]["securitySchemes"]) == {"token"}
    for (_, path), operation in operations(document).items():
        assert operation.get("security") == (None if path in OPEN_PATHS else [{"token": []}])


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_route_says_how_it_refuses(document: dict[str, Any], method: str, path: str) -> None:
    responses = document["paths"][path][method]["responses"]
    of_tokens = () if path in OPEN_PATHS else ("401", "403")
    of_bodies = ("413", "415") if "requestBody" in document["paths"][path][method] else ()
    for status in ("400", "500", "503", *of_tokens, *of_bodies):
        content = responses[status]["content"]
        assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert {"401", "403", "413", "415"} & set(responses) == {*of_tokens, *of_bodies}


def test_no_route_answers_an_error_of_another_shape(document: dict[str, Any]) -> None:
    """FastAPI would add a 422 of its own wherever something is validated."""
    for place, operation in operations(document).items():
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert set(response["content"]) == {"application/problem+json"}, (place, status)
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("post", "/", {"200", "202", "422"}),
        ("get", "/health/last-run", {"200", "422", "503"}),
        ("get", PREFIX, {"200", "422"}),
        ("post", PREFIX, {"200", "201", "202", "409", "422"}),
        ("get", ONE, {"200", "404", "422"}),
        ("put", ONE, {"200", "404", "409", "422"}),
        ("delete", ONE, {"204", "404", "409", "422"}),
        ("get", f"{PREFIX}/active-peer-mentors", {"200", "422"}),
        ("post", f"{PREFIX}/evaluation-batch", {"200", "422", "502", "503", "504"}),
    ],
)
def test_a_route_says_what_it_may_answer(document: dict[str, Any], method: str, path: str, statuses: set[str]) -> None:
    assert statuses <= set(document["paths"][path][method]["responses"])


def test_links_lead_to_operations_that_exist_by_parameters_that_they_have(document: dict[str, Any]) -> None:
    by_name = {operation["operationId"]: operation for operation in operations(document).values()}
    links = [
        link
        for operation in operations(document).values()
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert {link["operationId"] for link in links} == {"get_invocation", "change_invocation", "delete_invocation"}
    for link in links:
        parameters = {parameter["name"] for parameter in by_name[link["operationId"]]["parameters"]}
        assert set(link["parameters"]) <= parameters


def test_what_is_created_says_where_it_is(document: dict[str, Any]) -> None:
    responses = document["paths"][PREFIX]["post"]["responses"]
    assert "Location" in responses["201"]["headers"]
    assert {"Location", "Preference-Applied"} <= set(responses["202"]["headers"])


def test_limits_are_those_that_are_enforced(document: dict[str, Any]) -> None:
    parameters = {
        parameter["name"]: parameter["schema"] for parameter in document["paths"][PREFIX]["get"]["parameters"]
    }
    assert (parameters["limit"]["minimum"], parameters["limit"]["maximum"], parameters["limit"]["default"]) == (
        1,
        100,
        20,
    )
    run = document["components"]["schemas"]["RunRequest"]["properties"]
    assert MAX_CHOSEN_MENTORS in [kind.get("maxItems") for kind in run["user_ids"]["anyOf"]]
    assert MAX_NOTE_LENGTH in [kind.get("maxLength") for kind in run["note"]["anyOf"]]


def test_bodies_take_no_unknown_members(document: dict[str, Any]) -> None:
    for name in ("StartRequest", "RunRequest", "InvocationChange", "BatchRequest"):
        assert document["components"]["schemas"][name]["additionalProperties"] is False


def test_nothing_in_it_tells_of_the_installation(document: dict[str, Any]) -> None:
    """It is open to all."""
    assert "example.org" not in str(document)


# The page


async def test_the_page_reads_the_document_beside_it(function: Function) -> None:
    response = await function.http.get("/docs")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert 'url: "openapi.json"' in response.text


async def test_every_file_of_the_page_is_pinned_by_its_digest_and_its_version(function: Function) -> None:
    page = (await function.http.get("/docs")).text
    foreign = re.findall(r"<(?:script|link)[^>]*(?:src|href)=[^>]*>", page)
    assert len(foreign) == 2
    for tag in foreign:
        assert re.search(r'"https://cdn\.jsdelivr\.net/npm/swagger-ui-dist@\d+\.\d+\.\d+/', tag), tag
        assert 'crossorigin="anonymous"' in tag
        digest = re.search(r'integrity="sha384-([^"]+)"', tag)
        assert digest is not None, tag
        assert len(base64.b64decode(digest[1], validate=True)) == hashlib.sha384().digest_size


async def test_the_page_may_run_nothing_else_and_be_framed_by_nobody(function: Function) -> None:
    response = await function.http.get("/docs")
    policy = dict(rule.strip().partition(" ")[::2] for rule in response.headers["content-security-policy"].split(";"))
    (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["default-src"] == "'none'"
    files = dict(re.findall(r'<(script|link)[^>]*(?:src|href)="([^"]+)"', response.text))
    assert policy["script-src"].split() == [files["script"], f"'sha256-{digest}'"]
    assert policy["style-src"].split() == [files["link"]]
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
