"""A problem is sent, whatever text of the caller's it repeats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from functions.http.problems import MAX_DETAIL_LENGTH, MAX_FIELD_LENGTH, problem

HOSTILE = ["\ud800", "a\nb", "\x00", "\u2028", "\x1b[2J", '"}, {"', "x" * 1_000_000, "\udc00" * 1_000_000]


def sent(text: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(bytes(problem(422, "unknown_field", text, field=text).body).decode("utf-8"))
    return content


def test_a_problem_says_what_why_and_where() -> None:
    answer = problem(400, "invalid_field", "limit: expected a number", field="limit", headers={"X-Some": "thing"})
    assert json.loads(bytes(answer.body)) == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "code": "invalid_field",
        "detail": "limit: expected a number",
        "field": "limit",
    }
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-some"] == "thing"


def test_a_problem_without_a_field_has_none() -> None:
    assert b"field" not in bytes(problem(404, "not_found", "nothing here").body)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:8]))
def test_a_callers_text_becomes_one_bounded_line_of_valid_utf8(text: str) -> None:
    content = sent(text)
    for shown, limit in ((content["detail"], MAX_DETAIL_LENGTH), (content["field"], MAX_FIELD_LENGTH)):
        assert shown.isprintable()
        assert 0 < len(shown) <= limit
