"""Over HTTP: what is a body, and that no text of a caller's is a defect of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from functions.http.invocations import PREFIX
from functions.http.middleware import MAX_BODY_BYTES
from tests.unit.functions.http_function import ADMIN, INVOKE, JSON, Function, problem_in
from tests.unit.functions.pretend_sql import RUN_ID
from tests.unit.log_lines import LogLines

# Every route that reads a body.
READERS = [
    ("POST", "/"),
    ("POST", PREFIX),
    ("PUT", f"{PREFIX}/{RUN_ID}"),
    ("POST", f"{PREFIX}/evaluation-batch"),
]


@pytest.mark.parametrize(("method", "path"), READERS)
@pytest.mark.parametrize(
    "content", [b"{", b"not json", b'{"note": }', b"{'note': 1}", b'{"note": 1} trailing', b"\xef\xbb\xbf"]
)
async def test_text_that_is_not_json_is_400(function: Function, method: str, path: str, content: bytes) -> None:
    response = await function.http.request(method, path, content=content, headers=ADMIN | JSON)
    problem_in(response, 400, "malformed_json")
    assert function.sql.called() == []


@pytest.mark.parametrize(("method", "path"), READERS)
@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\xfd", b"[" * 100_000, b'{"note":' * 100_000, b"9" * 5000, b'{"note": ' + b"9" * 5000 + b"}"],
    ids=["not UTF-8", "deep list", "deep object", "long number", "long number within"],
)
async def test_text_that_no_parser_bears_is_400(
    function: Function, log: LogLines, method: str, path: str, content: bytes
) -> None:
    response = await function.http.request(method, path, content=content, headers=ADMIN | JSON)
    problem_in(response, 400, "malformed_json")
    assert function.sql.called() == []
    assert log.of("internal_error") == []


@pytest.mark.parametrize(("method", "path"), READERS)
@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("content", ["%s", '{"note": %s}', '{"dry_run": %s}', '{"user_ids": [%s]}'])
async def test_what_json_has_no_word_for_is_refused(
    function: Function, method: str, path: str, content: str, constant: str
) -> None:
    response = await function.http.request(method, path, content=content % constant, headers=ADMIN | JSON)
    assert response.status_code in (400, 422)
    problem_in(response, response.status_code, response.json()["code"])
    assert function.sql.called() == []


@pytest.mark.parametrize(("method", "path"), READERS)
@pytest.mark.parametrize(
    "content",
    [
        r'"\ud800"',
        r'{"\ud800": 1}',
        r'{"note": "\ud800"}',
        r'{"note": "\udfff\ud800"}',
        r'{"scheduled_for": "\ud800"}',
        r'{"user_ids": ["\ud800"]}',
        r'{"status": "\ud800"}',
        r'{"retry_of": "\ud800"}',
    ],
)
async def test_a_lone_surrogate_is_422_wherever_it_stands(
    function: Function, log: LogLines, method: str, path: str, content: str
) -> None:
    response = await function.http.request(method, path, content=content, headers=ADMIN | JSON)
    assert response.status_code == 422, response.text
    problem_in(response, 422, response.json()["code"])
    assert function.sql.called() == []
    assert log.of("internal_error") == []


async def test_a_lone_surrogate_in_a_scenario_type_is_422(function: Function) -> None:
    for path, others in (("", ""), ("/evaluation-batch", f'"user_ids": ["{RUN_ID}"], "dry_run": true, ')):
        content = "{" + others + r'"scenario_types": ["\ud800"]}'
        response = await function.http.post(PREFIX + path, content=content, headers=ADMIN | JSON)
        assert problem_in(response, 422, "invalid_field")["field"].startswith("scenario_types")
    assert function.sql.called() == []


@pytest.mark.parametrize(("method", "path"), READERS)
async def test_an_unknown_member_is_422_and_named(function: Function, method: str, path: str) -> None:
    response = await function.http.request(method, path, json={"shoe_size": 38}, headers=ADMIN)
    field = problem_in(response, 422, "invalid_field" if "batch" in path else "unknown_field")["field"]
    assert field == ("user_ids" if "batch" in path else "shoe_size")


@pytest.mark.parametrize(("method", "path"), READERS[:3])
@pytest.mark.parametrize("name", ["body", "path", "query", "header", "a.b", ""])
async def test_an_unknown_member_of_any_name_is_named(function: Function, method: str, path: str, name: str) -> None:
    response = await function.http.request(method, path, json={name: 1}, headers=ADMIN)
    assert problem_in(response, 422, "unknown_field")["field"] == name


@pytest.mark.parametrize(("method", "path"), READERS)
@pytest.mark.parametrize("body", [[], [1], "text", 7, True])
async def test_a_body_that_is_no_object_is_422(function: Function, method: str, path: str, body: object) -> None:
    response = await function.http.request(method, path, json=body, headers=ADMIN)
    assert problem_in(response, 422, "invalid_field")["field"] == "body"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "",
        "json",
        "+json",
        "x+json",
        "application/+json",
    ],
)
async def test_a_body_that_does_not_claim_to_be_json_is_415(function: Function, content_type: str) -> None:
    response = await function.http.post("/", content=b"{}", headers=INVOKE | {"Content-Type": content_type})
    problem_in(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["gzip", "identity, br", ""])
async def test_a_body_in_a_coding_is_415(function: Function, coding: str) -> None:
    response = await function.http.post("/", content=b"{}", headers=INVOKE | JSON | {"Content-Encoding": coding})
    problem_in(response, 415, "unsupported_media_type")


async def test_a_body_without_any_type_is_415(function: Function) -> None:
    problem_in(await function.http.post("/", content=b"{}", headers=INVOKE), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"]
)
@pytest.mark.parametrize("content", [b"", b"{}", b"null", b" {} \n", b'{"scheduled_for": null}'])
async def test_an_empty_body_asks_for_whatever_is_due(function: Function, content: bytes, content_type: str) -> None:
    response = await function.http.post("/", content=content, headers=INVOKE | {"Content-Type": content_type})
    assert response.status_code == 200
    assert function.sql.arguments_of("scheduler_open_slot")["requested_slot"] is None


@pytest.mark.parametrize("content", [b"", b"{}", b"null"])
async def test_an_empty_body_asks_for_a_run_of_everybody(function: Function, content: bytes) -> None:
    response = await function.http.post(PREFIX, content=content, headers=ADMIN | JSON)
    assert response.status_code == 201
    asked = function.sql.arguments_of("scheduler_open")
    assert asked["request"] == {"user_ids": None, "scenario_types": None}
    assert (asked["dry_run"], asked["retry_of"], asked["note"]) == (False, None, None)


async def test_a_body_of_more_than_a_mebibyte_is_413(function: Function) -> None:
    response = await function.http.post("/", content=b" " * (MAX_BODY_BYTES + 1), headers=INVOKE | JSON)
    problem_in(response, 413, "body_too_large")


async def test_a_body_of_exactly_a_mebibyte_is_read(function: Function) -> None:
    response = await function.http.post("/", content=b"{}".ljust(MAX_BODY_BYTES), headers=INVOKE | JSON)
    assert response.status_code == 200


async def test_an_endless_body_that_does_not_tell_its_length_is_413(function: Function) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b" " * 65536

    response = await function.http.post("/", content=endless(), headers=INVOKE | JSON)
    assert "content-length" not in response.request.headers
    problem_in(response, 413, "body_too_large")
    assert sent <= MAX_BODY_BYTES + 2 * 65536
