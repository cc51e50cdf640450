"""A cursor comes back as the place it stands for; whatever else a caller sends is refused, and never a crash."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.http.invocations import cursor_of, mentor_of_cursor, position_of_cursor
from functions.http.schemas import ListQuery
from shared.errors import RequestError
from shared.invocation_records import Position
from tests.unit.functions.pretend_sql import RUN_ID, mentor_id

READERS: list[Callable[[str], object]] = [position_of_cursor, mentor_of_cursor]
MOMENT = "2026-11-23T02:00:03.204113+00:00"

ids = st.uuids().map(str)
moments = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | ids | moments,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def is_list_of_texts(value: object) -> bool:
    """Such a list may be a place."""
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def pack(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def assert_refused(read: Callable[[str], object], cursor: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(cursor)
    assert (caught.value.status, caught.value.code, caught.value.field) == (422, "invalid_field", "cursor")


@given(moments, ids)
def test_a_place_in_the_list_comes_back(created_at: str, invocation_id: str) -> None:
    assert position_of_cursor(cursor_of(created_at, invocation_id)) == Position(created_at, invocation_id)


@given(ids)
def test_a_mentor_comes_back(user_id: str) -> None:
    assert mentor_of_cursor(cursor_of(user_id)) == user_id


@given(moments, ids)
def test_a_cursor_needs_no_quoting_and_fits_what_is_accepted(created_at: str, invocation_id: str) -> None:
    for cursor in (cursor_of(created_at, invocation_id), cursor_of(invocation_id)):
        assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        assert ListQuery(cursor=cursor).cursor == cursor


@pytest.mark.parametrize("read", READERS)
@given(text=st.text() | st.text(st.characters(max_codepoint=127)))
def test_any_text_is_refused(read: Callable[[str], object], text: str) -> None:
    assert_refused(read, text)


@pytest.mark.parametrize("read", READERS)
@given(content=st.binary())
def test_any_bytes_in_base64_are_refused(read: Callable[[str], object], content: bytes) -> None:
    assert_refused(read, base64.urlsafe_b64encode(content).decode())


@pytest.mark.parametrize("read", READERS)
@given(value=json_values.filter(lambda value: not is_list_of_texts(value)))
def test_any_other_json_in_base64_is_refused(read: Callable[[str], object], value: object) -> None:
    assert_refused(read, pack(value))


@given(st.lists(st.text() | ids | moments, max_size=3))
def test_a_list_of_texts_is_refused_unless_it_is_a_place(parts: list[str]) -> None:
    try:
        position = position_of_cursor(pack(parts))
    except RequestError:
        pass
    else:
        assert position_of_cursor(cursor_of(position.created_at, position.id)) == position
    try:
        user_id = mentor_of_cursor(pack(parts))
    except RequestError:
        return
    assert mentor_of_cursor(cursor_of(user_id)) == user_id


@pytest.mark.parametrize(
    "parts",
    [
        [MOMENT],
        [MOMENT, RUN_ID, RUN_ID],
        [RUN_ID, MOMENT],
        [MOMENT, "nobody"],
        [MOMENT, None],
        [MOMENT.removesuffix("+00:00"), RUN_ID],
        ["0001-01-01T00:00:00+14:00", RUN_ID],
        ["9999-12-31T23:59:59-14:00", RUN_ID],
        ["2026-13-01T00:00:00Z", RUN_ID],
        [1795399200, RUN_ID],
        ["\x00", RUN_ID],
        [MOMENT, "\ud800"],
        {"created_at": MOMENT, "id": RUN_ID},
        [],
        None,
        MOMENT + RUN_ID,
    ],
    ids=repr,
)
def test_what_is_almost_a_place_in_the_list_is_refused(parts: object) -> None:
    assert_refused(position_of_cursor, pack(parts))


@pytest.mark.parametrize("parts", [[], ["nobody"], [None], [1], [mentor_id(1), mentor_id(2)], ["\ud800"], "x", None])
def test_what_is_almost_a_mentor_is_refused(parts: object) -> None:
    assert_refused(mentor_of_cursor, pack(parts))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "NaN", "[NaN]", '"\\ud800"'], ids=lambda text: text[:5]
)
def test_json_that_no_parser_bears_is_refused(read: Callable[[str], object], text: str) -> None:
    assert_refused(read, base64.urlsafe_b64encode(text.encode()).decode())


def test_the_cursor_of_one_list_is_none_of_the_other() -> None:
    assert_refused(mentor_of_cursor, cursor_of(MOMENT, RUN_ID))
    assert_refused(position_of_cursor, cursor_of(mentor_id(1)))
