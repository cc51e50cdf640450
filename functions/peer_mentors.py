"""Who is to be evaluated: the active mentors, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from shared.database import Database

# Rows to ask for at a time: each page costs two requests, and what is in hand costs memory. As many as fill batches of
# common sizes, since a page ends its last one.
PAGE_SIZE = 5000


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
    page = await _read_page(database, after=after, rows=limit + 1)
    if len(page.mentors) <= limit:
        return page
    mentors = page.mentors[:limit]
    return MentorsPage(mentors, mentors[-1].user_id)


async def fetch_active_among(database: Database, user_ids: Sequence[str]) -> list[ActivePeerMentor]:
    """Reads those of these mentors who are active, in any order.

    Args:
        database: the Data API.
        user_ids: some thousands at most: they go in one request.

    Raises:
        DatabaseError: the database is away, or the view cannot be read.
    """
    rows = await database.call("scheduler_active_mentors", user_ids=list(user_ids))
    return _merged(ActivePeerMentor(row["user_id"], frozenset(row["segments"] or ())) for row in rows)


async def fetch_active_peer_mentors(
    database: Database, *, after: str | None = None, page_size: int = PAGE_SIZE
) -> AsyncIterator[list[ActivePeerMentor]]:
    """Reads the active mentors in the order of their ids.

    Keyset pages: offsets would cost the square of the number of mentors. A mentor whom the view shows in several rows
    comes once, with the segments of all of them.

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
        page = await _read_page(database, after=after, rows=page_size)
        if page.mentors:
            yield page.mentors
        after = page.next
        if after is None:
            return


async def _read_page(database: Database, *, after: str | None, rows: int) -> MentorsPage:
    answer: dict[str, Any] = await database.call("scheduler_active_mentors_page", after=after, rows=rows)
    # One value for all who share their segments: there may be a million of them.
    groups = [(frozenset(group["segments"] or ()), group["user_ids"]) for group in answer["groups"]]
    mentors = [ActivePeerMentor(user_id, segments) for segments, user_ids in groups for user_id in user_ids]
    if len({user_id for user_id, _ in mentors}) < len(mentors):
        mentors = _merged(mentors)
    mentors.sort(key=itemgetter(0))
    return MentorsPage(mentors, None if answer["is_last"] or not mentors else mentors[-1].user_id)


def _merged(rows: Iterable[ActivePeerMentor]) -> list[ActivePeerMentor]:
    """The mentors in rows of the view; one who is in several has the segments of all of them."""
    mentors: dict[str, ActivePeerMentor] = {}
    for row in rows:
        known = mentors.get(row.user_id)
        mentors[row.user_id] = row if known is None else ActivePeerMentor(row.user_id, known.segments | row.segments)
    return list(mentors.values())
