"""What the view of active mentors may show, and what becomes of an answer that cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from functions.peer_mentors import ActivePeerMentor, fetch_active_among, fetch_active_peer_mentors
from shared.database import ANSWER_TOO_LARGE
from shared.errors import DatabaseRefusedError, MentorsViewError
from shared.evaluations import INVALID_SEGMENTS
from tests.unit.fake_database import FakeDatabase


def row(number: int, *segments: str | None) -> dict[str, Any]:
    return {"user_id": f"mentor-{number:04}", "segments": list(segments)}


def mentor(number: int, *segments: str, **members: Any) -> ActivePeerMentor:
    return ActivePeerMentor(f"mentor-{number:04}", frozenset(segments), **members)


async def read(database: FakeDatabase, *, page_size: int = 10) -> list[list[ActivePeerMentor]]:
    return [page.mentors async for page in fetch_active_peer_mentors(database, page_size=page_size)]


async def test_a_mentor_in_several_rows_comes_once_with_all_segments() -> None:
    database = FakeDatabase([row(1, "new"), row(2, "old"), row(2, "near", "old"), row(3) | {"segments": None}])
    assert await read(database, page_size=2) == [[mentor(1, "new"), mentor(2, "old", "near")], [mentor(3)]]


@pytest.mark.parametrize("odd", [[None], ["new", None], [["new"], ["old"]], "new", 5, {"new": "old"}])
async def test_unusable_segments_cost_their_row_only(odd: Any) -> None:
    (page,) = await read(FakeDatabase([row(1), row(2) | {"segments": odd}, row(2, "old"), row(3) | {"segments": odd}]))
    unusable = mentor(3, skip_reason=INVALID_SEGMENTS, unusable_rows=1)
    assert page == [mentor(1), mentor(2, "old", unusable_rows=1), unusable]


@pytest.mark.parametrize(
    ("code", "is_of_the_view"), [("22P02", True), ("42501", False), ("PGRST202", False), ("invalid_api_key", False)]
)
async def test_a_view_that_raises_is_named_without_its_words(code: str, is_of_the_view: bool) -> None:
    def raises(_: object) -> None:
        raise DatabaseRefusedError(code, 'invalid input syntax for type uuid: "anna"')

    with pytest.raises(MentorsViewError if is_of_the_view else DatabaseRefusedError) as caught:
        await read(FakeDatabase(functions={"scheduler_active_mentors_page": raises}))
    if is_of_the_view:
        assert "SQLSTATE 22P02" in str(caught.value)
        assert "anna" not in str(caught.value)


class _ShortAnswers(FakeDatabase):
    """No answer of more than 60 mentors can be read."""

    async def call(self, function: str, **arguments: Any) -> Any:
        if arguments.get("rows", 0) > 60 or len(arguments.get("user_ids", ())) > 60:
            raise DatabaseRefusedError(ANSWER_TOO_LARGE, "too long")
        return await super().call(function, **arguments)


async def test_an_answer_that_is_too_long_is_read_in_parts() -> None:
    rows = [row(n) for n in range(130)]
    ids = [each["user_id"] for each in rows]
    database = _ShortAnswers(rows, functions={"scheduler_active_mentors": lambda asked: map(row_of, asked["user_ids"])})
    assert [each.user_id for page in await read(database, page_size=5000) for each in page] == ids
    assert sorted(each.user_id for each in await fetch_active_among(database, ids)) == ids


def row_of(user_id: str) -> dict[str, Any]:
    return {"user_id": user_id, "segments": []}


async def test_which_of_some_are_active_is_one_call() -> None:
    database = FakeDatabase(functions={"scheduler_active_mentors": lambda _: [row(1, "new"), row(1, "near")]})
    assert await fetch_active_among(database, ("mentor-0001", "mentor-0002")) == [mentor(1, "new", "near")]
    assert database.called == [("scheduler_active_mentors", {"user_ids": ["mentor-0001", "mentor-0002"]})]
