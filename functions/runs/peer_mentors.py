"""Reads the active mentors, page by page, from the view `active_peer_mentors`.

The view is the team's own. An unusable row affects that row only; a view that cannot be read raises
`MentorsViewError`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from shared.database import ANSWER_TOO_LARGE, Database
from shared.errors import DatabaseRefusedError, MentorsViewError
from shared.evaluations import INVALID_SEGMENTS

# Rows of a page: each page costs two requests, and its rows memory. A multiple of common batch sizes, because a page
# ends its last batch.
PAGE_SIZE = 5000

# SQL bounds a row's segments, so an answer of so few rows is always short enough.
_FEW_ROWS = 50

_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
# A missing right is no fault of the view's definition.
_PERMISSION_DENIED = "42501"


class ActivePeerMentor(NamedTuple):
    """A mentor of the view, with the segments of all rows that can be used.

    Args:
        skip_reason: why the user cannot be evaluated; None: at least one row can be used.
        unusable_rows: how many rows of the user's cannot.
    """

    user_id: str
    segments: frozenset[str]
    skip_reason: str | None = None
    unusable_rows: int = 0


class MentorsPage(NamedTuple):
    """A page of mentors.

    Args:
        next: the id after which the next page begins; None at the end.
        without_user_id: at the end, how many rows of the view have no user id; else 0.
    """

    mentors: list[ActivePeerMentor]
    next: str | None
    without_user_id: int = 0


async def read_mentors_page(database: Database, *, after: str | None, limit: int) -> MentorsPage:
    """Reads one page of at most `limit` active mentors, and whether another page follows; raises DatabaseError."""
    page = await _read_page(database, after=after, rows=limit + 1)
    if len(page.mentors) > limit:
        mentors = page.mentors[:limit]
        return MentorsPage(mentors, mentors[-1].user_id)
    return page if page.next else page._replace(without_user_id=await _count_without_user_id(database))


async def fetch_active_among(database: Database, user_ids: Sequence[str]) -> list[ActivePeerMentor]:
    """Reads which of these mentors, some thousands at most, are active, in any order; raises DatabaseError."""
    try:
        rows = await call_through_view(database, "scheduler_active_mentors", user_ids=list(user_ids))
    except DatabaseRefusedError as error:
        if error.code != ANSWER_TOO_LARGE or len(user_ids) <= _FEW_ROWS:
            raise
        middle = len(user_ids) // 2
        return [
            *await fetch_active_among(database, user_ids[:middle]),
            *await fetch_active_among(database, user_ids[middle:]),
        ]
    return _merged(ActivePeerMentor(row["user_id"], *_checked(row["segments"])) for row in rows)


async def call_through_view(database: Database, function: str, **arguments: Any) -> Any:
    """Calls an SQL function that reads the view; raises MentorsViewError where the database cannot carry it out."""
    try:
        return await database.call(function, **arguments)
    except DatabaseRefusedError as error:
        if not _SQLSTATE.fullmatch(error.code) or error.code == _PERMISSION_DENIED:
            raise
        # The database's own message may quote a value of the row.
        raise MentorsViewError(
            f"public.active_peer_mentors: expected rows, found that reading it fails with SQLSTATE {error.code}; "
            "psql shows the error in full (docs/adapting.md)"
        ) from error


async def fetch_active_peer_mentors(database: Database, *, after: str | None = None) -> AsyncIterator[MentorsPage]:
    """Reads the active mentors with ids greater than `after`, in the order of their ids.

    Keyset pages: offsets would cost the square of the number of mentors. A mentor with several rows
    comes once, with the segments of all usable rows.

    Yields:
        Pages with mentors; after them one with the number of rows without a user id, if any.

    Raises:
        MentorsViewError: the view has the wrong columns, or reading it fails.
        DatabaseError: the database is away, or the view may not be read.
    """
    while True:
        page = await _read_page(database, after=after, rows=PAGE_SIZE)
        if page.mentors:
            yield page
        if page.next is None:
            break
        after = page.next
    if without_user_id := await _count_without_user_id(database):
        yield MentorsPage([], None, without_user_id)


async def _read_page(database: Database, *, after: str | None, rows: int) -> MentorsPage:
    try:
        answer = await call_through_view(database, "scheduler_active_mentors_page", after=after, rows=rows)
    except DatabaseRefusedError as error:
        if error.code != ANSWER_TOO_LARGE or rows <= _FEW_ROWS:
            raise
        return await _read_page(database, after=after, rows=max(_FEW_ROWS, rows // 10))
    # One value for all who share their segments: there may be a million of them.
    groups = [(_checked(group["segments"]), group["user_ids"]) for group in answer["groups"]]
    mentors = [ActivePeerMentor(user_id, *checked) for checked, user_ids in groups for user_id in user_ids]
    if len({mentor.user_id for mentor in mentors}) < len(mentors):
        mentors = _merged(mentors)
    mentors.sort(key=itemgetter(0))
    is_last = answer["is_last"] or not mentors
    return MentorsPage(mentors, None if is_last else mentors[-1].user_id)


async def _count_without_user_id(database: Database) -> int:
    count: int = await call_through_view(database, "scheduler_mentors_without_user_id")
    return count


def _checked(segments: object) -> tuple[frozenset[str], str | None, int]:
    """Returns a row's segments, its reason to be skipped, and 1 if it cannot be used. Null is no segments."""
    if segments is None:
        return frozenset(), None, 0
    # A text has members too, which are letters; an array of several dimensions comes as a list of lists.
    if isinstance(segments, list) and all(isinstance(segment, str) for segment in segments):
        return frozenset(segments), None, 0
    return frozenset(), INVALID_SEGMENTS, 1


def _merged(rows: Iterable[ActivePeerMentor]) -> list[ActivePeerMentor]:
    """Returns one mentor for all rows of a user, with the segments of all usable rows."""
    mentors: dict[str, ActivePeerMentor] = {}
    for row in rows:
        known = mentors.setdefault(row.user_id, row)
        if known is not row:
            mentors[row.user_id] = ActivePeerMentor(
                row.user_id,
                known.segments | row.segments,
                known.skip_reason and row.skip_reason,
                known.unusable_rows + row.unusable_rows,
            )
    return list(mentors.values())
