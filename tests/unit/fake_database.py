"""A `Database` without one: mentors in a list, SQL functions as Python functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from shared.database import Database


class FakeDatabase(Database):
    """Answers as the Data API would.

    Args:
        rows: the rows of the one relation there is, in the order of their keys.
        most_rows: the Data API's own limit for an answer.
        functions: what each SQL function does with its arguments.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]] = (),
        *,
        most_rows: int = 1000,
        functions: dict[str, Callable[[dict[str, Any]], Any]] | None = None,
    ) -> None:
        self._rows = rows
        self._most_rows = most_rows
        self._functions = functions or {}
        self.pages_read = 0
        self.called: list[tuple[str, dict[str, Any]]] = []

    def patient(self) -> Self:
        return self

    async def call(self, function: str, **arguments: Any) -> Any:
        self.called.append((function, arguments))
        return self._functions[function](arguments)

    async def read_page(
        self, relation: str, columns: str, *, key: str, after: str | None, limit: int
    ) -> list[dict[str, Any]]:
        assert relation == "active_peer_mentors"
        assert columns == "user_id,segments"
        self.pages_read += 1
        rows = [row for row in self._rows if after is None or row[key] > after]
        return rows[: min(limit, self._most_rows)]
