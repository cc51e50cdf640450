"""What may be sent: times and ids in one spelling, cursors as they were given out; anything else is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from functions.http.invocations import cursor_of, mentor_of_cursor, position_of_cursor
from functions.http.schemas import InvocationChange, ListedInvocation, ListQuery, RunRequest, StartRequest
from shared.errors import RequestError
from shared.invocation_records import Position
from tests.unit.functions.pretend_sql import RUN_ID, mentor_id, summarized

MOMENT = "2026-11-23T02:00:03.204113+00:00"

offsets = st.integers(-(23 * 60 + 59), 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
# Not at the ends of time: there UTC has no year for what an offset has.
times = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=offsets)  # noqa: DTZ001  # hypothesis wants them naive
ids = st.uuids().map(str)
moments = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)

# Times and ids


@given(times)
def test_a_time_with_any_offset_becomes_utc(moment: datetime) -> None:
    for text in (moment.isoformat(), moment.isoformat(" "), moment.isoformat("t")):
        understood = StartRequest.model_validate({"scheduled_for": text}).scheduled_for
        assert understood is not None
        assert (understood, understood.tzinfo) == (moment, UTC)


ALMOST_TIMES = [
    *("2026-13-23T02:00:00Z", "2026-11-23T25:00:00Z", "2026-11-23T02:00:00+24:00", "+2026-11-23T02:00:00Z"),
    *("2026-W48-1T02:00:00Z", "2026-327T02:00:00Z", "20261123T020000Z", "1795399200", "2026-11-23T02:00Z\x00"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-23T02:00:00Z\n", "2026-11-23T02:00:00"),
]


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.dates().map(str))
def test_any_other_value_is_neither_time_nor_id(value: object) -> None:
    with pytest.raises(ValidationError):
        StartRequest.model_validate({"scheduled_for": value})
    with pytest.raises(ValidationError):
        RunRequest.model_validate({"retry_of": value})


@pytest.mark.parametrize("text", ALMOST_TIMES)
def test_an_almost_right_time_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        StartRequest.model_validate({"scheduled_for": text})


@given(st.uuids())
def test_an_id_has_one_spelling_in_either_case(wanted: UUID) -> None:
    for text in (str(wanted), str(wanted).upper()):
        assert RunRequest.model_validate({"retry_of": text}).retry_of == wanted
    for text in (wanted.hex, wanted.urn, f"{{{wanted}}}", f" {wanted}", f"{wanted}\n", f"\uff10{str(wanted)[1:]}"):
        with pytest.raises(ValidationError):
            RunRequest.model_validate({"retry_of": text})


def test_an_error_does_not_repeat_what_was_sent() -> None:
    for model in (StartRequest, RunRequest, InvocationChange, ListQuery):
        with pytest.raises(ValidationError) as caught:
            model.model_validate({"scheduled_for": "anna@example.org", "note": 1, "limit": "anna@example.org"})
        assert "anna" not in str(caught.value)


def test_a_member_that_the_contract_does_not_know_is_not_answered() -> None:
    ListedInvocation.model_validate(summarized())
    for member in ("engine_scope", "idempotency_key", "request_hash"):
        with pytest.raises(ValidationError, match="extra_forbidden"):
            ListedInvocation.model_validate(summarized(**{member: "x"}))


# Cursors

READERS: list[Callable[[str], object]] = [position_of_cursor, mentor_of_cursor]


def assert_refused(read: Callable[[str], object], cursor: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(cursor)
    assert (caught.value.status, caught.value.code, caught.value.field) == (422, "invalid_field", "cursor")


@given(moments, ids)
def test_a_cursor_comes_back_as_its_place(created_at: str, wanted: str) -> None:
    place, mentor = cursor_of(created_at, wanted), cursor_of(wanted)
    assert position_of_cursor(place) == Position(created_at, wanted)
    assert mentor_of_cursor(mentor) == wanted
    for cursor in (place, mentor):
        assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        assert ListQuery(cursor=cursor).cursor == cursor
    assert_refused(mentor_of_cursor, place)
    assert_refused(position_of_cursor, mentor)


ALMOST_PLACES = [
    *([MOMENT], [MOMENT, RUN_ID, RUN_ID], [RUN_ID, MOMENT], [MOMENT, "anna"], [MOMENT, None], ["\x00", RUN_ID]),
    *(["0001-01-01T00:00:00+14:00", RUN_ID], ["2026-13-01T00:00:00Z", RUN_ID], [1795399200, RUN_ID]),
    *([MOMENT.removesuffix("+00:00"), RUN_ID], [MOMENT, "\ud800"], {"created_at": MOMENT, "id": RUN_ID}, []),
    *(["anna"], [None], [1], [mentor_id(1), mentor_id(2)], ["\ud800"], "x", None, MOMENT + RUN_ID),
]
UNREADABLE = [text.encode() for text in ("[" * 100_000, '{"a":' * 100_000, "9" * 5000, "[NaN]")]


def encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@given(st.text() | st.text(st.characters(max_codepoint=127)) | st.binary().map(encode))
def test_any_other_text_is_no_cursor(text: str) -> None:
    for read in READERS:
        assert_refused(read, text)


@pytest.mark.parametrize("read", READERS)
def test_an_almost_right_cursor_is_refused(read: Callable[[str], object]) -> None:
    for content in [*(json.dumps(place).encode() for place in ALMOST_PLACES), *UNREADABLE]:
        assert_refused(read, encode(content))
