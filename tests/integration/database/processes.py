"""Processes of the function, as far as they open slots: the real repository, over a session instead of the Data API."""

from __future__ import annotations

from typing import Any

from shared.config import ScenarioEvaluationConfig
from shared.database import Database
from shared.scenario_table import ScenarioTable
from shared.slice_repository import SliceRepository

from .sql_core import Worker


class _OverSession(Database):
    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        # Arguments that are others than the process gives.
        self.limits: dict[str, int] = {}

    async def call(self, function: str, **arguments: Any) -> Any:
        arguments |= {name: limit for name, limit in self.limits.items() if name in arguments}
        return await self._worker.call(function.removeprefix("scheduler_"), **arguments)


class Process:
    """One process: what it knows of the table of scenario types, and its slices."""

    def __init__(self, worker: Worker, config: ScenarioEvaluationConfig) -> None:
        self.database = _OverSession(worker)
        self.table = ScenarioTable(config.scenario_types)
        self.slices = SliceRepository(self.database, config, self.table)
