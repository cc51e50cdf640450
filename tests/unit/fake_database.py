"""A `Database` without one: mentors in a list, SQL functions as Python functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Self

from shared.database import Database


class FakeDatabase(Database):
    """Answers as the Data API would.

    Args:
        rows: of the view of active mentors, in the order of their ids; those without one anywhere.
        most_rows: of a page.
        functions: what each SQL function does with its arguments.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]] = (),
        *,
        most_rows: int = 10_000,
        functions: dict[str, Callable[[dict[str, Any]], Any]] | None = None,
    ) -> None:
        self._rows = [row for row in rows if row["user_id"] is not None]
        self._without_user_id = len(rows) - len(self._rows)
        self._most_rows = most_rows
        self._functions = {
            "scheduler_active_mentors_page": self._page,
            "scheduler_mentors_without_user_id": lambda _: self._without_user_id,
        } | (functions or {})
        self.pages_read = 0
        self.called: list[tuple[str, dict[str, Any]]] = []

    def with_longer_retries(self) -> Self:
        return self

    async def call(self, function: str, **arguments: Any) -> Any:
        self.called.append((function, arguments))
        return self._functions[function](arguments)

    def _page(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.pages_read += 1
        after, rows = arguments["after"], min(arguments["rows"], self._most_rows)
        left = [row for row in self._rows if after is None or row["user_id"] > after]
        page = left[:rows] + [row for row in left[rows:] if row["user_id"] == left[rows - 1]["user_id"]]
        alike: dict[str, list[str]] = {}
        for row in page:
            alike.setdefault(json.dumps(row["segments"]), []).append(row["user_id"])
        return {
            "groups": [{"segments": json.loads(each), "user_ids": user_ids} for each, user_ids in alike.items()],
            "is_last": len(page) == len(left),
        }
