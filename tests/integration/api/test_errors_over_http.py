"""Every error is a problem of RFC 9457 with a stable code, whatever was wrong, and says nothing of the inside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import httpx

from tests.integration.api.served import API, Served
from tests.integration.api.wrong_requests import JSON, UNKNOWN_ID, WRONG_REQUESTS

ONE_MIB = 1024 * 1024


def check_problem(answer: httpx.Response, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    """That the answer is this problem, whole and with nothing else in it."""
    where = f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json", where
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), where
    assert problem["title"] == HTTPStatus(status).phrase, where
    assert problem["type"] == "about:blank", where
    assert problem["detail"], where
    assert problem.get("field") == field, where
    assert problem.keys() <= {"type", "title", "status", "code", "detail", "field"}, where
    return problem


async def test_a_wrong_request_is_refused_by_name_and_nothing_comes_of_it(served: Served) -> None:
    for wrong in WRONG_REQUESTS:
        answer = await served.call(wrong.method, wrong.path, content=wrong.content, headers=wrong.headers)
        check_problem(answer, wrong.status, wrong.code, wrong.field)

    assert await served.night.invocations() == []
    assert served.night.engine.calls == []
    assert served.defects() == []


async def test_a_method_that_is_not_served_is_405_and_the_answer_names_those_that_are(served: Served) -> None:
    serves = {
        "/": {"POST"},
        "/docs": {"GET", "HEAD"},
        "/openapi.json": {"GET", "HEAD"},
        "/health": {"GET", "HEAD"},
        "/health/last-run": {"GET", "HEAD"},
        API: {"GET", "HEAD", "POST"},
        f"{API}/active-peer-mentors": {"GET", "HEAD"},
        f"{API}/evaluation-batch": {"POST"},
        f"{API}/{UNKNOWN_ID}": {"GET", "HEAD", "PUT", "DELETE"},
    }
    for path, served_there in serves.items():
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - served_there:
            answer = await served.call(method, path)
            check_problem(answer, 405, "method_not_allowed")
            assert set(answer.headers["allow"].split(", ")) == served_there, (method, path)
    assert await served.night.invocations() == []


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * 65536


async def test_a_body_beyond_one_mib_is_413_whatever_it_says_of_its_length(served: Served) -> None:
    largest = json.dumps({"dry_run": True}).encode().ljust(ONE_MIB)
    assert (await served.call("POST", API, content=largest, headers=JSON)).status_code == 201
    check_problem(await served.call("POST", API, content=largest + b" ", headers=JSON), 413, "body_too_large")
    check_problem(await served.call("POST", API, content=chunks(17), headers=JSON), 413, "body_too_large")
    assert len(await served.night.invocations()) == 1


async def test_nobody_gets_in_without_a_token_and_an_invoke_token_may_only_start(served: Served) -> None:
    document = (await served.call("GET", "/openapi.json", token="")).json()
    operations = [
        (method.upper(), path.replace("{invocation_id}", UNKNOWN_ID), operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    protected = [(method, path) for method, path, operation in operations if operation.get("security")]
    assert len(protected) == 8

    for method, path in protected:
        check_problem(await served.call(method, path, token=""), 401, "unauthorized")
    answer = await served.call("GET", API, token="a-token-that-nobody-gave-out-to-anybody")
    check_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")

    for method, path in protected:
        if path != "/":
            check_problem(await served.call(method, path, token=served.project.invoke_token), 403, "forbidden")
    assert await served.night.invocations() == []


async def test_without_a_database_every_route_that_needs_it_is_503_with_a_time_to_wait(served: Served) -> None:
    await served.project.gateway.stop()

    batch = {"user_ids": [UNKNOWN_ID], "dry_run": True}
    answers = await asyncio.gather(
        served.call("POST", "/"),
        served.call("GET", "/health/last-run", token=""),
        served.call("GET", API),
        served.call("POST", API, json={}),
        served.call("GET", f"{API}/active-peer-mentors"),
        served.call("POST", f"{API}/evaluation-batch", json=batch),
        served.call("GET", f"{API}/{UNKNOWN_ID}"),
        served.call("PUT", f"{API}/{UNKNOWN_ID}", json={}),
        served.call("DELETE", f"{API}/{UNKNOWN_ID}"),
    )

    for answer in answers:
        check_problem(answer, 503, "database_unavailable")
        assert int(answer.headers["retry-after"]) > 0
    assert (await served.call("GET", "/health", token="")).status_code == 200
    assert {line["event"] for line in served.defects()} == {"database_unavailable"}

    await served.project.gateway.start()
    assert (await served.call("GET", API)).json() == {"items": [], "next_cursor": None}


async def test_a_defect_of_ours_is_500_without_a_word_of_the_inside_and_the_log_has_it_under_the_trace_id(
    served: Served,
) -> None:
    """As if a migration and the function did not belong together."""
    await served.night.execute(
        b"create or replace function public.scheduler_get(p_invocation_id uuid) returns jsonb"
        b""" language sql stable security definer set search_path = '' as $$ select '{"private": "Ann"}'::jsonb $$"""
    )

    answer = await served.call("GET", f"{API}/{UNKNOWN_ID}")

    problem = check_problem(answer, 500, "internal_error")
    (line,) = served.defects()
    assert line["event"] == "internal_error"
    assert line["trace_id"] in problem["detail"]
    assert "InvocationDetail" in line["exc_info"]
    for inside in ("Ann", "private", "pydantic", "Traceback", "InvocationDetail"):
        assert inside not in answer.text
    # What was wrong may be about a person: the log names the fields, not what stood in them.
    assert "Ann" not in json.dumps(line)


async def test_what_the_database_refuses_is_500_and_its_words_are_only_in_the_log(served: Served) -> None:
    await served.night.execute(
        b"create or replace function public.scheduler_get(p_invocation_id uuid) returns jsonb"
        b" language plpgsql stable security definer set search_path = ''"
        b" as $$ begin raise exception 'the inside of table so_and_so'; end $$"
    )

    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    answer = await served.call("GET", f"{API}/{UNKNOWN_ID}", headers=trace)

    problem = check_problem(answer, 500, "database_refused")
    (line,) = served.defects()
    assert line["event"] == "database_refused"
    assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert line["trace_id"] in problem["detail"]
    assert "so_and_so" in line["message"]
    assert "so_and_so" not in answer.text
