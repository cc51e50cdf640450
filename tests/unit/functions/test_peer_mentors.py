"""Every active mentor is read, once, whatever the Data API makes of a page."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.peer_mentors import (
    ActivePeerMentor,
    fetch_active_among,
    fetch_active_peer_mentors,
    read_mentors_page,
)
from shared.database import ANSWER_TOO_LARGE
from shared.errors import DatabaseRefusedError, MentorsViewError
from shared.evaluations import INVALID_SEGMENTS
from tests.unit.fake_database import FakeDatabase


def row(number: int, *segments: str | None) -> dict[str, Any]:
    return {"user_id": f"mentor-{number:04}", "segments": list(segments)}


async def read(
    database: FakeDatabase, *, after: str | None = None, page_size: int = 10
) -> list[list[ActivePeerMentor]]:
    return [page.mentors async for page in fetch_active_peer_mentors(database, after=after, page_size=page_size)]


async def read_ids(database: FakeDatabase, *, after: str | None = None, page_size: int = 10) -> list[str]:
    return [mentor.user_id for page in await read(database, after=after, page_size=page_size) for mentor in page]


@pytest.mark.parametrize("count", [1, 9, 10, 11, 20, 25])
async def test_each_mentor_is_read_once_in_the_order_of_the_ids(count: int) -> None:
    rows = [row(n) for n in range(count)]
    assert await read_ids(FakeDatabase(rows)) == [each["user_id"] for each in rows]


async def test_without_mentors_there_is_no_page() -> None:
    assert await read(FakeDatabase()) == []


async def test_reading_goes_on_after_a_given_mentor() -> None:
    rows = [row(n) for n in range(25)]
    assert await read_ids(FakeDatabase(rows), after="mentor-0022") == ["mentor-0023", "mentor-0024"]


async def test_the_next_page_is_read_when_it_is_asked_for_and_not_before() -> None:
    database = FakeDatabase([row(n) for n in range(25)])
    pages = fetch_active_peer_mentors(database, page_size=10)
    await anext(pages)
    assert database.pages_read == 1


async def test_a_mentor_whom_the_view_shows_twice_comes_once_with_the_segments_of_both() -> None:
    database = FakeDatabase([row(1, "new"), row(2, "old", "far"), row(2, "old", "near"), row(3)])
    (page,) = await read(database)
    assert page == [
        ActivePeerMentor("mentor-0001", frozenset({"new"})),
        ActivePeerMentor("mentor-0002", frozenset({"old", "far", "near"})),
        ActivePeerMentor("mentor-0003", frozenset()),
    ]


async def test_a_mentor_whom_the_view_shows_twice_is_in_one_page_with_both() -> None:
    database = FakeDatabase([row(1, "new"), row(2, "old"), row(2, "near"), row(3)])
    assert await read(database, page_size=2) == [
        [
            ActivePeerMentor("mentor-0001", frozenset({"new"})),
            ActivePeerMentor("mentor-0002", frozenset({"old", "near"})),
        ],
        [ActivePeerMentor("mentor-0003", frozenset())],
    ]


async def test_nobody_is_asked_for_after_the_last_page() -> None:
    database = FakeDatabase([row(n) for n in range(15)])
    await read(database, page_size=10)
    assert database.pages_read == 2


@pytest.mark.parametrize("odd", [[None], ["new", None], [["new"], ["old"]], "new", 5, {"new": "old"}])
async def test_unusable_segments_cost_their_row_only(odd: Any) -> None:
    rows = [{"user_id": f"mentor-{n:04}", "segments": odd} for n in (2, 3)]
    (page,) = await read(FakeDatabase([row(1, "new"), rows[0], row(2, "old"), rows[1]]))
    assert page == [
        ActivePeerMentor("mentor-0001", frozenset({"new"})),
        ActivePeerMentor("mentor-0002", frozenset({"old"}), None, unusable_rows=1),
        ActivePeerMentor("mentor-0003", frozenset(), INVALID_SEGMENTS, unusable_rows=1),
    ]


@pytest.mark.parametrize("count", [0, 9, 10, 11])
async def test_rows_without_a_user_id_are_counted_once_at_the_end(count: int) -> None:
    rows = [{"user_id": None, "segments": None}] * 3 + [row(n) for n in range(count)]
    database = FakeDatabase(rows)
    pages = [page async for page in fetch_active_peer_mentors(database, page_size=10)]
    assert sum(len(page.mentors) for page in pages) == count
    assert [page.without_user_id for page in pages] == [0] * (len(pages) - 1) + [3]
    called = [function for function, _ in database.called]
    assert called.index("scheduler_mentors_without_user_id") == len(called) - 1


async def test_a_view_that_raises_is_named_without_its_words() -> None:
    error = DatabaseRefusedError("22P02", 'invalid input syntax for type uuid: "anna"')

    def raises(_: object) -> None:
        raise error

    database = FakeDatabase(functions={"scheduler_active_mentors_page": raises})
    with pytest.raises(MentorsViewError, match="SQLSTATE 22P02") as caught:
        await read(database)
    assert "anna" not in str(caught.value)
    for code in ("42501", "PGRST202", "invalid_api_key"):
        error = DatabaseRefusedError(code, "not the view's fault")
        with pytest.raises(DatabaseRefusedError):
            await read(database)


async def test_segments_that_are_null_are_none() -> None:
    (page,) = await read(FakeDatabase([{"user_id": "mentor-0001", "segments": None}]))
    assert page == [ActivePeerMentor("mentor-0001", frozenset())]


@given(st.sets(st.integers(0, 9999), max_size=30), st.integers(1, 40))
async def test_whatever_the_size_of_pages_nobody_is_missed(ids: set[int], page_size: int) -> None:
    rows = [row(n, f"region:{n % 3}") for n in sorted(ids)]
    assert await read_ids(FakeDatabase(rows), page_size=page_size) == [each["user_id"] for each in rows]


@given(st.sets(st.integers(0, 9999), max_size=30), st.integers(1, 20))
async def test_a_page_says_where_the_next_one_begins_if_anybody_comes_after_it(ids: set[int], limit: int) -> None:
    database, after, read = FakeDatabase([row(n) for n in sorted(ids)]), None, 0
    while True:
        page = await read_mentors_page(database, after=after, limit=limit)
        read += len(page.mentors)
        assert len(page.mentors) <= limit
        if page.next is None:
            break
        assert page.next == page.mentors[-1].user_id
        after = page.next
    assert read == len(ids)
    assert bool(page.mentors) == bool(ids)


class _ShortAnswers(FakeDatabase):
    """No answer of more than 60 mentors can be read."""

    async def call(self, function: str, **arguments: Any) -> Any:
        if arguments.get("rows", 0) > 60 or len(arguments.get("user_ids", ())) > 60:
            raise DatabaseRefusedError(ANSWER_TOO_LARGE, "too long")
        return await super().call(function, **arguments)


async def test_an_answer_that_is_too_long_is_read_in_parts() -> None:
    rows = [row(n) for n in range(130)]
    ids = [each["user_id"] for each in rows]
    assert await read_ids(_ShortAnswers(rows), page_size=5000) == ids
    database = _ShortAnswers(
        functions={
            "scheduler_active_mentors": lambda asked: [
                {"user_id": user_id, "segments": []} for user_id in asked["user_ids"]
            ]
        }
    )
    assert sorted(mentor.user_id for mentor in await fetch_active_among(database, ids)) == ids


async def test_who_of_some_is_active_is_asked_in_one_call() -> None:
    rows = [row(1, "new"), row(1, "near")]
    database = FakeDatabase(functions={"scheduler_active_mentors": lambda _: rows})
    found = await fetch_active_among(database, ("mentor-0001", "mentor-0002"))
    assert found == [ActivePeerMentor("mentor-0001", frozenset({"new", "near"}))]
    assert database.called == [("scheduler_active_mentors", {"user_ids": ["mentor-0001", "mentor-0002"]})]
