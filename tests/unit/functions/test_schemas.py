"""What may be sent: times and ids in the one spelling that everybody understands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from functions.http.schemas import (
    InvocationChange,
    InvocationDetail,
    InvocationPage,
    ListQuery,
    RunRequest,
    StartRequest,
)
from tests.unit.functions.pretend_sql import described, mentor_id, summarized

offsets = st.integers(-(23 * 60 + 59), 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
# Not at the ends of time: there UTC has no year for what an offset has.
times = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=offsets)  # noqa: DTZ001  # hypothesis wants them naive


@given(times)
def test_a_time_with_an_offset_is_understood_whatever_the_offset(moment: datetime) -> None:
    understood = StartRequest.model_validate({"scheduled_for": moment.isoformat()}).scheduled_for
    assert understood == moment
    assert understood is not None
    assert understood.tzinfo is UTC


@given(st.datetimes())
def test_a_time_without_an_offset_is_refused(moment: datetime) -> None:
    with pytest.raises(ValidationError):
        StartRequest.model_validate({"scheduled_for": moment.isoformat()})


@given(st.text() | st.integers() | st.floats() | st.dates().map(str))
def test_what_is_no_time_is_refused_and_does_not_crash(value: object) -> None:
    with pytest.raises(ValidationError):
        StartRequest.model_validate({"scheduled_for": value})


@given(st.uuids())
def test_an_id_is_understood_as_it_is_usually_written(wanted: UUID) -> None:
    for text in (str(wanted), str(wanted).upper()):
        assert RunRequest.model_validate({"retry_of": text}).retry_of == wanted


@given(st.uuids())
def test_an_id_that_is_written_in_another_way_is_refused(wanted: UUID) -> None:
    for text in (wanted.hex, wanted.urn, f"{{{wanted}}}", f" {wanted}", f"{wanted}\n"):
        with pytest.raises(ValidationError):
            RunRequest.model_validate({"retry_of": text})


@given(st.text() | st.integers() | st.floats() | st.booleans())
def test_what_is_no_id_is_refused_and_does_not_crash(value: object) -> None:
    with pytest.raises(ValidationError):
        RunRequest.model_validate({"retry_of": value})


def test_an_error_does_not_repeat_what_was_sent() -> None:
    for model in (StartRequest, RunRequest, InvocationChange, ListQuery):
        with pytest.raises(ValidationError) as caught:
            model.model_validate({"scheduled_for": "anna@example.org", "note": 1, "limit": "anna@example.org"})
        assert "anna" not in str(caught.value)


@pytest.mark.parametrize("member", ["engine_scope", "idempotency_key", "request_hash"])
def test_what_the_contract_does_not_know_is_not_let_out(member: str) -> None:
    with pytest.raises(ValidationError):
        InvocationPage.model_validate({"items": [summarized(**{member: "x"})], "next_cursor": None})
    with pytest.raises(ValidationError):
        InvocationDetail.model_validate(
            described(
                request={"users": None, "sample_user_ids": [], "scenario_types": None},
                config={},
                enumeration_done=True,
                not_evaluated_user_ids=[mentor_id(1)],
                dispatches=[],
                **{member: "x"},
            )
        )
