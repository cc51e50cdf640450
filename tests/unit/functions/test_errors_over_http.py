"""Over HTTP: what is not served, what goes wrong on our side, and callers' text that an answer repeats."""

from __future__ import annotations

import json

import pytest

from functions.http.invocations import PREFIX
from functions.http.problems import MAX_DETAIL_LENGTH, MAX_FIELD_LENGTH, problem
from shared.errors import DatabaseRefusedError, DatabaseTimeoutError, DatabaseUnavailableError, MentorsViewError
from tests.unit.functions.http_function import ADMIN, Function, problem_in
from tests.unit.functions.pretend_sql import RUN_ID
from tests.unit.log_lines import LogLines

TRACE = "0af7651916cd43dd8448eb211c80319c"
# What each endpoint asks the database, and its arguments for that.
ASKING = [
    ("GET", "", None, "scheduler_list"),
    ("POST", "", {}, "scheduler_open"),
    ("GET", f"/{RUN_ID}", None, "scheduler_get"),
    ("PUT", f"/{RUN_ID}", {"note": "n"}, "scheduler_update"),
    ("DELETE", f"/{RUN_ID}", None, "scheduler_delete"),
    ("POST", "/evaluation-batch", {"user_ids": [RUN_ID], "dry_run": True}, "scheduler_active_mentors"),
]
NOT_THERE = ["/nowhere", "/api", "/health/nowhere", "/%2e%2e/etc/passwd", "/API/v1/scheduler-invocations"]


async def test_an_unknown_path_is_404(function: Function) -> None:
    for path in [*NOT_THERE, f"{PREFIX}/", f"{PREFIX}/{RUN_ID}/", f"{PREFIX}/{RUN_ID}/batches"]:
        problem_in(await function.http.get(path, headers=ADMIN), 404, "not_found")


@pytest.mark.parametrize(
    ("methods", "path", "allowed"),
    [
        ("GET PUT", "/", {"POST"}),
        ("DELETE", "/health", {"GET", "HEAD"}),
        ("POST", "/health/last-run", {"GET", "HEAD"}),
        ("POST", "/dashboard", {"GET", "HEAD"}),
        ("DELETE PUT", PREFIX, {"GET", "HEAD", "POST"}),
        ("POST PATCH BREW", f"{PREFIX}/{RUN_ID}", {"GET", "HEAD", "PUT", "DELETE"}),
        ("POST PUT DELETE", f"{PREFIX}/active-peer-mentors", {"GET", "HEAD"}),
        ("GET PUT DELETE", f"{PREFIX}/evaluation-batch", {"POST"}),
    ],
)
async def test_another_method_is_405_with_all_that_are_served(
    function: Function, methods: str, path: str, allowed: set[str]
) -> None:
    for method in methods.split():
        response = await function.http.request(method, path, headers=ADMIN)
        problem_in(response, 405, "method_not_allowed")
        assert set(response.headers["allow"].split(", ")) == allowed
    assert function.sql.called() == []


# What goes wrong on our side


async def test_a_defect_is_500_with_a_trace_id_and_no_internals(function: Function, log: LogLines) -> None:
    """The trace is the caller's, or one of ours for each request."""
    function.broken_by = LookupError("column shoe_size of anna@example.org")
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    responses = [await function.start(None, **headers), await function.start(), await function.start()]
    traces = [line["trace_id"] for line in log.of("internal_error")]
    assert (traces[0], len({*traces})) == (TRACE, 3)
    assert "shoe_size" in log.text
    for response, trace in zip(responses, traces, strict=True):
        assert trace in problem_in(response, 500, "internal_error")["detail"]
        assert "shoe_size" not in response.text
        assert "LookupError" not in response.text


async def test_a_database_answer_that_no_model_knows_is_a_defect(function: Function, log: LogLines) -> None:
    function.sql.answers["scheduler_get"] = {"shoe_size": 38}
    response = await function.ask("GET", f"/{RUN_ID}")
    problem_in(response, 500, "internal_error")
    assert "shoe_size" not in response.text
    assert len(log.of("internal_error")) == 1


@pytest.mark.parametrize(("method", "path", "body", "asked"), ASKING)
async def test_a_failure_of_the_database_is_answered_without_its_words(
    function: Function, log: LogLines, method: str, path: str, body: object, asked: str
) -> None:
    function.sql.answers[asked] = DatabaseUnavailableError("the Data API answered PGRST002")
    away = await function.ask(method, path, body=body)
    assert "PGRST002" not in problem_in(away, 503, "database_unavailable")["detail"]
    assert "PGRST002" in log.of("database_unavailable")[0]["message"]
    function.sql.answers[asked] = DatabaseTimeoutError("57014")
    late = await function.ask(method, path, body=body)
    assert "57014" in problem_in(late, 503, "database_timeout")["detail"]
    assert log.of("database_timeout")[0]["error_code"] == "57014"
    for response in (away, late):
        assert int(response.headers["retry-after"]) > 0
    function.sql.answers[asked] = DatabaseRefusedError("42501", "permission denied for view anna")
    detail = problem_in(await function.ask(method, path, body=body), 500, "database_refused")["detail"]
    (line,) = log.of("database_refused")
    assert ("42501" in detail, "anna" in detail, line["trace_id"] in detail) == (True, False, True)
    assert "permission denied" in line["message"]


async def test_a_start_without_a_database_says_what_is_wrong(function: Function) -> None:
    function.broken_by = DatabaseUnavailableError("away")
    response = await function.start()
    problem_in(response, 503, "database_unavailable")
    assert int(response.headers["retry-after"]) > 0
    function.broken_by = DatabaseRefusedError("invalid_api_key", "the Data API refuses SUPABASE_SECRET_KEY")
    assert "SUPABASE_SECRET_KEY" in problem_in(await function.start(), 500, "database_key_rejected")["detail"]
    function.broken_by = MentorsViewError("column segments: expected text[], found text")
    detail = problem_in(await function.start(), 500, "mentors_view_invalid")["detail"]
    assert detail == "column segments: expected text[], found text"


# What a problem repeats

HOSTILE = ["\ud800", "a\nb", "\x00", "\u2028", "\x1b[2J", '"}, {"', "x" * 1_000_000, "\udc00" * 1_000_000]


def test_a_callers_text_becomes_one_bounded_line_of_utf8() -> None:
    for text in HOSTILE:
        content = json.loads(bytes(problem(422, "unknown_field", text, field=text).body).decode("utf-8"))
        for shown, limit in ((content["detail"], MAX_DETAIL_LENGTH), (content["field"], MAX_FIELD_LENGTH)):
            assert shown.isprintable()
            assert 0 < len(shown) <= limit
