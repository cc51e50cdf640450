"""Over HTTP: what is not served, and what goes wrong on our side."""

from __future__ import annotations

import pytest

from functions.http.invocations import PREFIX
from shared.errors import DatabaseRefusedError, DatabaseTimeoutError, DatabaseUnavailableError
from tests.unit.functions.http_function import ADMIN, Function, problem_in
from tests.unit.functions.pretend_sql import RUN_ID
from tests.unit.log_lines import LogLines

# What each endpoint asks the database, and its arguments for that.
ASKING = [
    ("GET", "", None, "scheduler_list"),
    ("POST", "", {}, "scheduler_open"),
    ("GET", f"/{RUN_ID}", None, "scheduler_get"),
    ("PUT", f"/{RUN_ID}", {"note": "n"}, "scheduler_update"),
    ("DELETE", f"/{RUN_ID}", None, "scheduler_delete"),
    ("POST", "/evaluation-batch", {"user_ids": [RUN_ID], "dry_run": True}, "scheduler_active_mentors"),
]


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/api",
        "/health/nowhere",
        "/index.php",
        "/%2e%2e/etc/passwd",
        f"{PREFIX}/",
        f"{PREFIX}/{RUN_ID}/",
        f"{PREFIX}/{RUN_ID}/batches",
        "/API/v1/scheduler-invocations",
    ],
)
async def test_what_does_not_exist_is_404(function: Function, path: str) -> None:
    problem_in(await function.http.get(path, headers=ADMIN), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/", {"POST"}),
        ("GET", "/", {"POST"}),
        ("DELETE", "/health", {"GET", "HEAD"}),
        ("POST", "/health/last-run", {"GET", "HEAD"}),
        ("DELETE", PREFIX, {"GET", "HEAD", "POST"}),
        ("PUT", PREFIX, {"GET", "HEAD", "POST"}),
        ("POST", f"{PREFIX}/{RUN_ID}", {"GET", "HEAD", "PUT", "DELETE"}),
        ("PATCH", f"{PREFIX}/{RUN_ID}", {"GET", "HEAD", "PUT", "DELETE"}),
        ("POST", f"{PREFIX}/active-peer-mentors", {"GET", "HEAD"}),
        ("DELETE", f"{PREFIX}/active-peer-mentors", {"GET", "HEAD"}),
        ("GET", f"{PREFIX}/evaluation-batch", {"POST"}),
        ("PUT", f"{PREFIX}/evaluation-batch", {"POST"}),
        ("BREW", f"{PREFIX}/{RUN_ID}", {"GET", "HEAD", "PUT", "DELETE"}),
    ],
)
async def test_a_method_that_is_not_served_is_405_and_told_all_that_are(
    function: Function, method: str, path: str, allowed: set[str]
) -> None:
    response = await function.http.request(method, path, headers=ADMIN)
    problem_in(response, 405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) == allowed
    assert function.sql.called() == []


async def test_a_defect_of_ours_is_500_without_internals_and_with_a_trace_id_that_the_log_has(
    function: Function, log: LogLines
) -> None:
    function.broken_by = LookupError("column shoe_size of anna@example.org")
    response = await function.start(None, traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    problem = problem_in(response, 500, "internal_error")
    assert "0af7651916cd43dd8448eb211c80319c" in problem["detail"]
    assert "shoe_size" not in response.text
    assert "LookupError" not in response.text
    (line,) = log.of("internal_error")
    assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert "shoe_size" in str(line)


@pytest.mark.parametrize(("method", "path", "body", "asked"), [each for each in ASKING if each[0] != "DELETE"])
async def test_an_answer_of_the_databases_that_no_model_knows_is_a_defect_of_ours_without_internals(
    function: Function, log: LogLines, method: str, path: str, body: object, asked: str
) -> None:
    function.sql.answers[asked] = {"shoe_size": 38}
    response = await function.ask(method, path, body=body)
    problem_in(response, 500, "internal_error")
    assert "shoe_size" not in response.text
    assert len(log.of("internal_error")) == 1


async def test_without_a_trace_of_the_callers_a_defect_has_one_of_ours(function: Function, log: LogLines) -> None:
    function.broken_by = LookupError()
    problem = problem_in(await function.start(), 500, "internal_error")
    assert log.of("internal_error")[0]["trace_id"] in problem["detail"]


async def test_two_requests_have_two_traces(function: Function, log: LogLines) -> None:
    function.broken_by = LookupError()
    await function.start()
    await function.start()
    first, second = log.of("internal_error")
    assert first["trace_id"] != second["trace_id"]


@pytest.mark.parametrize(("method", "path", "body", "asked"), ASKING)
async def test_a_database_that_is_away_is_503_with_retry_after(
    function: Function, log: LogLines, method: str, path: str, body: object, asked: str
) -> None:
    function.sql.answers[asked] = DatabaseUnavailableError("the Data API answered PGRST002")
    response = await function.ask(method, path, body=body)
    problem_in(response, 503, "database_unavailable")
    assert int(response.headers["retry-after"]) > 0
    assert "PGRST002" not in response.text
    assert "PGRST002" in log.of("database_unavailable")[0]["message"]


@pytest.mark.parametrize(("method", "path", "body", "asked"), ASKING)
async def test_a_database_timeout_is_503_and_no_outage(
    function: Function, log: LogLines, method: str, path: str, body: object, asked: str
) -> None:
    function.sql.answers[asked] = DatabaseTimeoutError("57014")
    response = await function.ask(method, path, body=body)
    assert "57014" in problem_in(response, 503, "database_timeout")["detail"]
    assert int(response.headers["retry-after"]) > 0
    assert log.of("database_timeout")[0]["error_code"] == "57014"


async def test_a_start_without_a_database_is_503_with_retry_after(function: Function) -> None:
    function.broken_by = DatabaseUnavailableError("away")
    response = await function.start()
    problem_in(response, 503, "database_unavailable")
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize(("method", "path", "body", "asked"), ASKING)
async def test_what_the_database_refuses_is_500_with_its_code_and_without_its_words(
    function: Function, log: LogLines, method: str, path: str, body: object, asked: str
) -> None:
    function.sql.answers[asked] = DatabaseRefusedError("42501", "permission denied for view anna")
    problem = problem_in(await function.ask(method, path, body=body), 500, "database_refused")
    assert "42501" in problem["detail"]
    assert "anna" not in problem["detail"]
    (line,) = log.of("database_refused")
    assert line["trace_id"] in problem["detail"]
    assert "permission denied" in line["message"]


async def test_a_wrong_database_key_is_named_as_what_it_is(function: Function) -> None:
    function.broken_by = DatabaseRefusedError("invalid_api_key", "the Data API refuses SUPABASE_SECRET_KEY")
    assert "SUPABASE_SECRET_KEY" in problem_in(await function.start(), 500, "database_key_rejected")["detail"]
