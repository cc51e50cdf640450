"""What is answered without pydantic is what pydantic would answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.answered_invocation import answered, answered_time
from functions.contract import InvocationSummary
from tests.unit.functions.pretend_sql import RUN_ID, summarized

OPEN = {"started_at": None, "finished_at": None, "lateness_seconds": None, "status": "pending"}
offsets = st.integers(-(14 * 60), 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=offsets | st.just(UTC))  # noqa: DTZ001  # hypothesis wants them naive


def in_postgresql(moment: datetime) -> str:
    """As PostgreSQL writes it in JSON: a fraction without zeros at its end, or none."""
    text = moment.isoformat()
    if not moment.microsecond:
        return text
    fraction = f"{moment.microsecond:06}"
    return text.replace(f".{fraction}", f".{fraction.rstrip('0')}")


def by_the_contract(invocation: dict[str, Any], *, deduplicated: bool) -> str:
    told = {name: value for name, value in invocation.items() if name != "note"}
    return InvocationSummary.model_validate(told | {"deduplicated": deduplicated}).model_dump_json()


def by_hand(invocation: dict[str, Any], *, deduplicated: bool) -> str:
    answer = answered(invocation, deduplicated=deduplicated)
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("deduplicated", [True, False])
@pytest.mark.parametrize(
    "members",
    [
        {},
        OPEN,
        {"retry_of": RUN_ID, "triggered_by": "retry", "error": "expired", "dry_run": True, "status": "partial"},
    ],
)
def test_an_invocation_is_answered_as_the_contract_says_in_its_order(
    members: dict[str, Any], deduplicated: bool
) -> None:
    # jsonb has its own order, in which nothing would be where the contract says.
    mixed = dict(sorted(summarized(**members).items()))
    mixed["counts"] = dict(sorted(mixed["counts"].items()))
    assert by_hand(mixed, deduplicated=deduplicated) == by_the_contract(mixed, deduplicated=deduplicated)


@given(times)
def test_every_time_is_answered_as_the_contract_says(moment: datetime) -> None:
    invocation = summarized(created_at=in_postgresql(moment), expires_at=in_postgresql(moment.replace(microsecond=0)))
    assert by_hand(invocation, deduplicated=True) == by_the_contract(invocation, deduplicated=True)


def test_no_time_is_answered_as_none() -> None:
    assert answered_time(None) is None


@pytest.mark.parametrize("missing", ["id", "counts", "started_at"])
def test_a_description_that_leaves_something_out_is_a_defect(missing: str) -> None:
    invocation = summarized()
    del invocation[missing]
    with pytest.raises(KeyError):
        answered(invocation, deduplicated=True)


@pytest.mark.parametrize("member", ["engine_scope", "idempotency_key", "request_hash", "note", "failures"])
def test_what_the_contract_does_not_know_is_not_let_out(member: str) -> None:
    assert member not in answered(summarized(**{member: "x"}), deduplicated=True)
