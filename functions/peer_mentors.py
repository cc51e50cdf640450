"""Who is to be evaluated: the active mentors, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from shared.database import Database

# Hosted projects cut an answer at 1,000 rows without saying so.
PAGE_SIZE = 1000


class ActivePeerMentor(NamedTuple):
    """A row of the view `active_peer_mentors`, the seam to a team's own schema."""

    user_id: str
    segments: frozenset[str]


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
        rows = await database.read_page(
            "active_peer_mentors", "user_id,segments", key="user_id", after=after, limit=page_size
        )
        if not rows:
            return
        page: dict[str, frozenset[str]] = {}
        for row in rows:
            user_id = row["user_id"]
            page[user_id] = page.get(user_id, frozenset()).union(row["segments"] or ())
        yield [ActivePeerMentor(user_id, segments) for user_id, segments in page.items()]
        after = rows[-1]["user_id"]
