"""Each error code of docs/api.md over the running function: a problem of RFC 9457 without internals."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from tests.emulator.function import FunctionProcess
from tests.emulator.staging import ROOT
from tests.integration.manual.caller import PATH as API
from tests.integration.manual.caller import Caller, a_caller
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules

JSON = {"Content-Type": "application/json"}
UNKNOWN = "0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10"
TABLE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("## Errors")[2]
ROWS = re.findall(r"^\| \d{3}[^|]*\|([^|]*)\|", TABLE, re.MULTILINE)
DOCUMENTED = {code for row in ROWS for code in re.findall(r"`(\w+)`", row)}
# In tests/unit/functions: of evaluation-batch in test_on_demand.py, of a test alert in test_alerting.py, of the check
# of the last run in test_health_routes.py. Of access tokens: test_sign_in.py.
ELSEWHERE = {"dry_run_not_supported", "engine_busy", "time_budget_exceeded", "paused", "sign_in_unavailable"}
ELSEWHERE |= {"alert_not_delivered"}


BATCH, KEY = f"{API}/evaluation-batch", "Idempotency-Key"
# Method, path, status, code, field, body and headers.
Row = tuple[str, str, int, str, str | None, bytes, Any]
WRONG_REQUESTS: list[Row] = [
    ("POST", API, 400, "malformed_json", None, b"[" * 100_000, JSON),
    ("POST", API, 413, "body_too_large", None, b"{}".ljust(1024 * 1024 + 1), JSON),
    ("POST", API, 415, "unsupported_media_type", None, b"{}", {"Content-Type": "text/plain"}),
    ("POST", API, 422, "unknown_field", "\N{REPLACEMENT CHARACTER}", b'{"\\u0000": 1}', JSON),
    ("POST", API, 422, "invalid_field", "retry_of", b'{"retry_of": "%s"}' % UNKNOWN.encode(), JSON),
    ("POST", BATCH, 422, "idempotency_key_missing", KEY, b'{"user_ids": ["%s"]}' % UNKNOWN.encode(), JSON),
    ("POST", "/", 422, "not_a_slot", "scheduled_for", b'{"scheduled_for": "9999-12-31T23:59:59.999999Z"}', JSON),
    ("POST", "/", 422, "invalid_field", "X-Scheduler-Dispatch", b"", {"X-Scheduler-Dispatch": str(2**63)}),
    ("POST", API, 422, "invalid_field", KEY, b"", {KEY: "\xff"}),
    ("POST", API, 400, "repeated_header", KEY, b"", [(KEY, "a"), (KEY, "b")]),
    ("GET", f"{API}?status=pending&status=late", 422, "invalid_field", "status.1", b"", None),
    ("GET", f"{API}/%00", 422, "invalid_field", "invocation_id", b"", None),
    ("GET", f"{API}/{UNKNOWN}/evaluations", 406, "not_acceptable", "Accept", b"", {"Accept": "image/png"}),
    ("GET", "/health/last-run", 503, "last_run_missing", None, b"", None),
    *(("GET", path, 404, "not_found", None, b"", None) for path in ("/nothing", f"{API}/..%2f", f"{API}/{UNKNOWN}")),
    ("PUT", f"{API}/{UNKNOWN}", 404, "not_found", None, b"{}", JSON),
    ("PUT", "/api/v1/scenario-configs/retired", 404, "not_found", None, b"{}", JSON),
    ("POST", "/api/v1/test-alert", 409, "no_webhook", None, b"", None),
    ("DELETE", f"{API}/{UNKNOWN}", 404, "not_found", None, b"", None),
    ("PATCH", f"{API}/{UNKNOWN}", 405, "method_not_allowed", None, b"", None),
]


# A failure after the answer has begun.
BROKEN_CSV = b"""
create or replace function public.scheduler_evaluations_page(
  p_invocation_id uuid, p_outcomes text[], p_code text, p_scenario_type text, p_limit integer, p_after_user_id uuid,
  p_after_scenario_type text
) returns json language plpgsql stable security definer set search_path = '' as $$
begin
  if p_after_user_id is not null then raise 'the second page'; end if;
  return json_build_object('is_open', false, 'items', '[]'::json, 'next', json_build_array(p_invocation_id, 'x'));
end
$$
"""


@dataclass
class Catalogue:
    """Sends what has to be refused, checks the whole answer, and keeps the codes that it saw."""

    caller: Caller
    seen: set[str] = field(default_factory=set)

    async def refused(
        self, status: int, code: str, method: str, path: str, *, of: str | None = None, **options: Any
    ) -> httpx.Response:
        answer = await self.caller.call(method, path, **options)
        where = f"{method} {path}: {answer.status_code} {answer.text}"
        assert answer.headers["content-type"] == "application/problem+json", where
        problem = answer.json()
        assert problem.pop("detail"), where
        expected = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "code": code}
        assert (answer.status_code, problem) == (status, expected | ({} if of is None else {"field": of})), where
        if code.endswith(("_unavailable", "_timeout")):
            assert int(answer.headers["retry-after"]) > 0
        self.seen.add(code)
        return answer


async def test_each_documented_error_has_its_status_code_and_field(harness: Harness) -> None:
    await harness.add_mentors(12)
    function = await harness.start_function({"ENGINE_MAX_ATTEMPTS": "1"})
    catalogue = Catalogue(Caller(harness, function))
    for method, path, status, code, of, body, headers in WRONG_REQUESTS:
        await catalogue.refused(status, code, method, path, of=of, content=body, headers=headers)
    assert (await catalogue.caller.send("PATCH")).headers["allow"] == "GET, HEAD, POST"
    await catalogue.refused(401, "unauthorized", "GET", API, token="")
    await catalogue.refused(403, "forbidden", "GET", API, token=harness.project.invoke_token)
    assert await harness.invocations() == []
    assert harness.engine.calls == []

    await refused_by_the_state_of_a_run(harness, catalogue)
    batch = {"user_ids": harness.mentors, "dry_run": True}
    harness.engine.rules = [rules.respond(401)]
    await catalogue.refused(502, "engine_rejected", "POST", BATCH, json=batch)
    harness.engine.rules = [rules.respond(503, headers={"Retry-After": "3600"})]
    await catalogue.refused(503, "engine_unavailable", "POST", BATCH, json=batch)
    await failed_by_the_database(harness, function, catalogue)
    assert catalogue.seen == DOCUMENTED - ELSEWHERE


async def refused_by_the_state_of_a_run(harness: Harness, catalogue: Catalogue) -> None:
    caller = catalogue.caller

    async def refused(code: str, source: str) -> None:
        await catalogue.refused(409, code, "POST", API, of="retry_of", json={"retry_of": source})

    source = (await caller.ask(prefer="respond-async")).json()["id"]
    await catalogue.refused(409, "still_open", "DELETE", f"{API}/{source}")
    await refused("retry_source_open", source)
    assert [(await caller.cancel(source)).status_code for _ in range(2)] == [200, 200]
    retry = (await caller.ask({"retry_of": source}, prefer="respond-async")).json()["id"]
    await refused("retry_already_open", source)
    await caller.cancel(retry)
    await harness.execute(b"update public.scheduler_invocations set engine_scope_since = now() - interval '1 year'")
    await refused("retry_window_closed", source)

    ended = (await caller.ask({"dry_run": True}, key="once")).json()["id"]
    late = {"status": "cancelled", "note": "late"}
    await catalogue.refused(409, "already_ended", "PUT", f"{API}/{ended}", of="status", json=late)
    await refused("nothing_to_retry", ended)
    key: dict[str, Any] = {"of": KEY, "headers": {KEY: "once"}}
    await catalogue.refused(422, "idempotency_key_reused", "POST", API, json={}, **key)
    assert (await caller.delete(ended)).status_code == 204
    await catalogue.refused(409, "invocation_deleted", "POST", API, json={"dry_run": True}, **key)

    for scenario_type in sorted({name for _, name in harness.expected_pairs()}):
        await caller.call("PUT", f"/api/v1/scenario-configs/{scenario_type}", json={"enabled": False})
    for path, body in ((API, {}), (BATCH, {"user_ids": harness.mentors, "dry_run": True})):
        await catalogue.refused(409, "no_enabled_scenarios", "POST", path, json=body)
    await harness.execute(b"delete from public.scenario_evaluation_config where not enabled")
    await harness.execute(
        b"insert into public.scenario_evaluation_config (scenario_type, organization)"
        b" select 'gone', n from generate_series(1, 500) as n"
    )
    configs = f"/api/v1/scenario-configs/{scenario_type}"
    await catalogue.refused(409, "too_many_rows", "PUT", configs, json={"enabled": True})
    await harness.execute(b"delete from public.scenario_evaluation_config where scenario_type = 'gone'")


async def failed_by_the_database(harness: Harness, function: FunctionProcess, catalogue: Catalogue) -> None:
    """As if migrations and function did not belong together; then away; and a wrong key."""
    await harness.execute(b"alter view public.active_peer_mentors rename to elsewhere")
    await catalogue.refused(500, "mentors_view_invalid", "GET", f"{API}/active-peer-mentors")
    await harness.execute(b"alter view public.elsewhere rename to active_peer_mentors")

    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    for body, status, code in (
        (b"""return '{"private": "Ann"}'::jsonb""", 500, "internal_error"),
        (b"raise exception 'private: Ann'", 500, "database_refused"),
        (b"raise exception 'private: Ann' using errcode = '57014'", 503, "database_timeout"),
    ):
        await harness.execute(
            b"create or replace function public.scheduler_get(p_invocation_id uuid, p_engine_key_ttl_hours integer)"
            b" returns jsonb"
            b" language plpgsql stable security definer set search_path = '' as $$ begin " + body + b"; end $$"
        )
        trace = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
        answer = await catalogue.refused(status, code, "GET", f"{API}/{UNKNOWN}", headers=trace)
        assert not re.search("Ann|private|pydantic|Traceback|InvocationDetail", answer.text)
        assert status == 503 or trace_id in answer.json()["detail"]
        (line,) = [line for line in harness.log_lines(function) if line["event"] == code]
        assert line["trace_id"] == trace_id
        # What no model knows may be about a person: the log names the fields, not what stood in them.
        assert ("Ann" in json.dumps(line)) == (code == "database_refused")

    await harness.execute(BROKEN_CSV)
    with pytest.raises(httpx.RemoteProtocolError):
        await catalogue.caller.send("GET", f"/{UNKNOWN}/evaluations", headers={"Accept": "text/csv"})
    lines = [line["message"] for line in harness.log_lines(function) if line["event"] == "database_refused"]
    assert "the second page" in lines[-1]

    await harness.project.gateway.stop()
    one, mentors = f"{API}/{UNKNOWN}", f"{API}/active-peer-mentors"
    asked = [("POST", "/"), ("GET", API), ("POST", API), ("GET", mentors), ("GET", one), ("DELETE", one)]
    await asyncio.gather(*(catalogue.refused(503, "database_unavailable", *request) for request in asked))
    assert (await catalogue.caller.call("GET", "/health", token="")).status_code == 200
    await harness.project.gateway.start()
    assert (await catalogue.caller.page())["data"]

    catalogue.caller = await a_caller(harness, {"SUPABASE_SECRET_KEY": "sb_secret_of_another_project"})
    await catalogue.refused(500, "database_key_rejected", "POST", "/")
