"""The common part of the repositories."""

from __future__ import annotations

from shared.config import ScenarioEvaluationConfig
from shared.database import Database


class Repository:
    """Calls SQL functions, one for each method.

    Args:
        database: the Data API.
        config: what is recorded, and the limits that SQL has to know.

    Every method raises `DatabaseUnavailableError` or `DatabaseRefusedError` where the Data API does not comply.
    """

    def __init__(self, database: Database, config: ScenarioEvaluationConfig) -> None:
        self._database = database
        self._config = config
