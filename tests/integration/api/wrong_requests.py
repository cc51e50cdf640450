"""Requests with one thing wrong each, and how each is refused."""

from __future__ import annotations

import base64
import json
from typing import NamedTuple

from tests.integration.api.served import API

JSON = {"Content-Type": "application/json"}
UNKNOWN_ID = "0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10"


def cursor_of(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


class Wrong(NamedTuple):
    """A request with one thing wrong."""

    method: str
    path: str
    code: str
    status: int
    field: str | None = None
    content: bytes | None = None
    headers: dict[str, str] | None = None


NOT_JSON = [
    Wrong("POST", API, "malformed_json", 400, content=content, headers=JSON)
    for content in (
        b"{",
        b"nonsense",
        b" ",
        b'{"note": "' + b"\xff" + b'"}',
        b'{"note": ' + b"1" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"dry_run": true} {"dry_run": true}',
    )
]
OTHER_TYPES = [
    Wrong("POST", API, "unsupported_media_type", 415, content=b'{"dry_run": true}', headers=headers)
    for headers in (
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "text/json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json, text/plain"},
    )
]
BODIES = [
    Wrong("POST", path, code, 422, field, content, JSON)
    for path, code, field, content in (
        (API, "invalid_field", "body", b"[]"),
        (API, "invalid_field", "body", b"1"),
        (API, "invalid_field", "body", b'"\\ud800"'),
        (API, "invalid_field", "note", b'{"note": NaN}'),
        (API, "invalid_field", "note", b'{"note": "\\u0000"}'),
        (API, "invalid_field", "note", b'{"note": "\\ud800"}'),
        (API, "invalid_field", "note", json.dumps({"note": "n" * 2001}).encode()),
        (API, "invalid_field", "dry_run", b'{"dry_run": "true"}'),
        (API, "invalid_field", "dry_run", b'{"dry_run": 1}'),
        (API, "invalid_field", "user_ids", b'{"user_ids": []}'),
        (API, "invalid_field", "user_ids.1", json.dumps({"user_ids": [UNKNOWN_ID, "0171e38f"]}).encode()),
        (API, "invalid_field", "scenario_types", b'{"scenario_types": ["unheard_of"]}'),
        (API, "invalid_field", "scenario_types", b'{"scenario_types": ["\\u0000"]}'),
        (API, "invalid_field", "retry_of", json.dumps({"retry_of": UNKNOWN_ID}).encode()),
        (API, "invalid_field", "retry_of", json.dumps({"retry_of": f"urn:uuid:{UNKNOWN_ID}"}).encode()),
        (API, "invalid_field", "retry_of", json.dumps({"retry_of": UNKNOWN_ID, "user_ids": [UNKNOWN_ID]}).encode()),
        (API, "unknown_field", "user_id", json.dumps({"user_id": UNKNOWN_ID}).encode()),
        (API, "unknown_field", "\N{REPLACEMENT CHARACTER}", b'{"\\u0000": 1}'),
        ("/", "unknown_field", "slot", b'{"slot": null}'),
        ("/", "invalid_field", "scheduled_for", b'{"scheduled_for": 1}'),
        ("/", "invalid_field", "scheduled_for", b'{"scheduled_for": "2026-02-30T00:00:00Z"}'),
        ("/", "invalid_field", "scheduled_for", b'{"scheduled_for": "0001-01-01T00:00:00+23:59"}'),
        ("/", "not_a_slot", "scheduled_for", b'{"scheduled_for": "0001-01-01T00:00:00Z"}'),
        ("/", "not_a_slot", "scheduled_for", b'{"scheduled_for": "9999-12-31T23:59:59.999999Z"}'),
        (f"{API}/evaluation-batch", "invalid_field", "body", b""),
        (f"{API}/evaluation-batch", "invalid_field", "user_ids", b"{}"),
        (
            f"{API}/evaluation-batch",
            "unknown_field",
            "note",
            json.dumps({"user_ids": [UNKNOWN_ID], "note": ""}).encode(),
        ),
        (
            f"{API}/evaluation-batch",
            "idempotency_key_missing",
            "Idempotency-Key",
            json.dumps({"user_ids": [UNKNOWN_ID]}).encode(),
        ),
    )
]
HEADERS = [
    Wrong("POST", path, "invalid_field", 422, name, headers={name: value})
    for path, name, value in (
        (API, "Idempotency-Key", ""),
        (API, "Idempotency-Key", "k" * 201),
        (API, "Idempotency-Key", "two words"),
        (API, "Idempotency-Key", "\xff"),
        ("/", "X-Scheduler-Dispatch", "0"),
        ("/", "X-Scheduler-Dispatch", str(2**63)),
        ("/", "X-Scheduler-Dispatch", "null"),
        ("/", "X-CloudScheduler-ScheduleTime", "tonight"),
        ("/", "X-CloudScheduler-ScheduleTime", "2026-11-23T02:00:00"),
    )
]
QUERIES = [
    Wrong("GET", f"{API}{query}", "invalid_field", 422, field)
    for query, field in (
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?limit=99999999999999999999", "limit"),
        ("?limit=", "limit"),
        ("?limit=nan", "limit"),
        ("?limit=%00", "limit"),
        ("?limit=%ff", "limit"),
        ("?status=late", "status.0"),
        ("?status=pending&status=", "status.1"),
        ("?scheduled_from=0", "scheduled_from"),
        ("?scheduled_from=infinity", "scheduled_from"),
        ("?scheduled_to=9999-12-31T23:59:59-23:59", "scheduled_to"),
        ("?scheduled_to=2026-11-23T02:00:00Z%00", "scheduled_to"),
        ("?user_id=0171e38f30f15e6c9a4d4b6f0a3c2d10", "user_id"),
        (f"?user_id={UNKNOWN_ID}%0a", "user_id"),
        (f"?cursor={'a' * 301}", "cursor"),
        ("/active-peer-mentors?limit=1001", "limit"),
    )
] + [
    Wrong("GET", "/health/last-run?max_age_hours=" + hours, "invalid_field", 422, "max_age_hours")
    for hours in ("0", "-1", "nan", "inf", "1e308", "soon", "")
]
CURSORS = [
    Wrong("GET", f"{path}?cursor={cursor}", "invalid_field", 422, "cursor")
    for path in (API, f"{API}/active-peer-mentors")
    for cursor in (
        "a",
        "====",
        "%00",
        "%C3%A9",
        "W10",
        cursor_of([1, 2]),
        cursor_of({"a": "b"}),
        cursor_of(["2026-11-23T02:00:00Z", "no id"]),
        cursor_of(["0001-01-01T00:00:00+23:59", UNKNOWN_ID]),
        cursor_of(["\0", UNKNOWN_ID]),
        base64.urlsafe_b64encode(b"[" * 200).decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    )
]
IDS = [
    Wrong(method, f"{API}/{invocation_id}", "invalid_field", 422, "invocation_id", content, JSON if content else None)
    for method, content in (("GET", None), ("PUT", b"{}"), ("DELETE", None))
    for invocation_id in (
        "1",
        "latest",
        "%00",
        "%ff",
        UNKNOWN_ID[:-1],
        f"{{{UNKNOWN_ID}}}",
        UNKNOWN_ID.replace("-", ""),
    )
] + [
    Wrong(method, f"{API}/{UNKNOWN_ID}", "not_found", 404, None, content, JSON if content else None)
    for method, content in (("GET", None), ("PUT", b"{}"), ("DELETE", None))
]
PATHS = [
    Wrong("GET", path, "not_found", 404)
    for path in (
        "/nothing",
        "/api/v1",
        "/health/",
        "//health",
        "/%2e%2e/health",
        "/health%00",
        f"{API}/",
        f"{API}//",
        f"{API}/{UNKNOWN_ID}/",
        f"{API}/{UNKNOWN_ID}/batches",
        f"{API}/..%2f",
        f"/{'a' * 8000}",
    )
]
WRONG_REQUESTS = NOT_JSON + OTHER_TYPES + BODIES + HEADERS + QUERIES + CURSORS + IDS + PATHS
