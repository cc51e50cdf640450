"""Who is to be evaluated: the active mentors, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from shared.database import Database

# Hosted projects cut an answer at 1,000 rows without saying so.
PAGE_SIZE = 1000


class ActivePeerMentor(NamedTuple):
    """A row of the view `active_peer_mentors`, the seam to a team's own schema."""

    user_id: str
    segments: frozenset[str]


class MentorsPage(NamedTuple):
    """A page of mentors; `next`: the id after which the next one begins, None at the end."""

    mentors: list[ActivePeerMentor]
    next: str | None


async def read_mentors_page(database: Database, *, after: str | None, limit: int) -> MentorsPage:
    """Reads one page of the active mentors, and whether anybody comes after it.

    Args:
        database: the Data API.
        after: the user id to go on from; None: from the start.
        limit: mentors, at most.

    Raises:
        DatabaseError: the database is away, or the view cannot be read.
    """
    rows = await _read_rows(database, after=after, limit=limit)
    last = rows[-1]["user_id"] if rows else None
    # A short page is not the end: the Data API may be set to return fewer rows than were asked for.
    more = last is not None and await _read_rows(database, after=last, limit=1)
    return MentorsPage(_merge_rows(rows), last if more else None)


async def fetch_active_among(database: Database, user_ids: Sequence[str]) -> list[ActivePeerMentor]:
    """Reads those of these mentors who are active, in any order.

    Args:
        database: the Data API.
        user_ids: some thousands at most: they go in one request.

    Raises:
        DatabaseError: the database is away, or the view cannot be read.
    """
    return _merge_rows(await database.call("scheduler_active_mentors", user_ids=list(user_ids)))


async def fetch_active_peer_mentors(
    database: Database, *, after: str | None = None, page_size: int = PAGE_SIZE
) -> AsyncIterator[list[ActivePeerMentor]]:
    """Reads the active mentors in the order of their ids.

    Keyset pages: offsets would cost the square of the number of mentors. An empty page is the end, a short one is not:
    the Data API may be set to return fewer rows than were asked for. A mentor whom the view shows twice in a page
    comes once, with the segments of both rows.

    Args:
        database: the Data API.
        after: the user id to go on from; None: from the start.
        page_size: rows to ask for at a time.

    Yields:
        Pages, none of them empty.

    Raises:
        DatabaseUnavailableError: the database is away.
        DatabaseRefusedError: the view cannot be read.
    """
    while True:
        rows = await _read_rows(database, after=after, limit=page_size)
        if not rows:
            return
        yield _merge_rows(rows)
        after = rows[-1]["user_id"]


async def _read_rows(database: Database, *, after: str | None, limit: int) -> list[dict[str, Any]]:
    return await database.read_page("active_peer_mentors", "user_id,segments", key="user_id", after=after, limit=limit)


def _merge_rows(rows: Iterable[dict[str, Any]]) -> list[ActivePeerMentor]:
    """The mentors in rows of the view; one who is in several has the segments of all of them."""
    mentors: dict[str, frozenset[str]] = {}
    for row in rows:
        user_id = row["user_id"]
        segments = _as_set(tuple(row["segments"] or ()))
        known = mentors.get(user_id)
        mentors[user_id] = segments if known is None else known | segments
    return [ActivePeerMentor(user_id, segments) for user_id, segments in mentors.items()]


@lru_cache(maxsize=1024)
def _as_set(segments: tuple[str, ...]) -> frozenset[str]:
    """The same value for all who share their segments: many do, and there may be a million of them."""
    return frozenset(segments)
