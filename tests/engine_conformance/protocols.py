"""What an engine is sent and how its answer is read, in each of the contract's protocols."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

SUPPORTABLE = frozenset({"dry_run", "idempotency"})
MAX_KEYS = 8

Pair = tuple[str, str]


class Failure(BaseModel):
    code: str = Field(min_length=1)
    retryable: bool = False


class Item(BaseModel):
    """A pair's result. `evaluated_at` is for the single protocol."""

    user_id: str
    scenario_type: str
    outcome: Literal["triggered", "not_triggered", "suppressed", "failed"]
    notification_id: str | int | None = None
    error: Failure | None = None
    evaluated_at: Any = None

    @model_validator(mode="after")
    def _says_why_it_failed(self) -> Self:
        if self.outcome == "failed" and self.error is None:
            raise PydanticCustomError("no_error", "an error with a code, as the outcome is failed")
        return self


class _Items(BaseModel):
    results: list[Item]


class _SingleItem(BaseModel):
    id: str | int | None
    user_id: str
    scenario_type: str
    should_notify: bool
    evaluated_at: datetime
    evaluation_metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class Evaluations:
    """What is asked, under the keys of each user, or under those of `keys_of`."""

    users: Sequence[str]
    scenario_types: Sequence[str]
    scope: str
    dry_run: bool
    keys_of: str | None = None

    @property
    def pairs(self) -> list[Pair]:
        return [(user_id, scenario_type) for user_id in self.users for scenario_type in self.scenario_types]

    def body(self) -> dict[str, Any]:
        """What a batch call sends."""
        return {
            "invocation_id": self.scope.partition(":")[2],
            "scheduled_for": "2026-01-01T02:00:00+00:00",
            "dry_run": self.dry_run,
            "evaluations": [
                {
                    "user_id": user_id,
                    "scenario_types": list(self.scenario_types),
                    "idempotency_key_prefix": f"{self.scope}:{self.keys_of or user_id}",
                }
                for user_id in self.users
            ],
        }

    def cut(self, users: int, types: int) -> list[Evaluations]:
        """The calls that the scheduler makes of it, of so many users and types at most."""
        return [
            replace(self, users=self.users[user : user + users], scenario_types=self.scenario_types[at : at + types])
            for at in range(0, len(self.scenario_types), types)
            for user in range(0, len(self.users), users)
        ]


@dataclass(frozen=True)
class Batch:
    """Many pairs a call."""

    users_per_call: int = 100
    types_per_call: int = 1000
    supports: ClassVar = SUPPORTABLE
    path: ClassVar = "/v1/evaluations"
    accepted: ClassVar = (200,)
    required: ClassVar = "dry_run"

    def request(self, asked: Evaluations) -> tuple[dict[str, Any], dict[bytes, bytes]]:
        """The body and the headers of a call."""
        return asked.body(), {}

    def read(self, content: bytes) -> list[Item]:
        """Raises ValidationError."""
        return _Items.model_validate_json(content, strict=True).results


@dataclass(frozen=True)
class Single:
    """One pair a call: the API that the trigger engine publishes."""

    supports: frozenset[str] = frozenset()
    users_per_call: ClassVar = 1
    types_per_call: ClassVar = 1
    path: ClassVar = "/api/v1/scenario-trigger-evaluations"
    accepted: ClassVar = (200, 201)
    required: ClassVar = "scenario_type"

    def request(self, asked: Evaluations) -> tuple[dict[str, Any], dict[bytes, bytes]]:
        body, [(user_id, scenario_type)] = asked.body(), asked.pairs
        [evaluation] = body.pop("evaluations")
        key = f"{evaluation['idempotency_key_prefix']}:{scenario_type}"
        return {"user_id": user_id, "scenario_type": scenario_type, **body}, {b"Idempotency-Key": key.encode()}

    def read(self, content: bytes) -> list[Item]:
        """Raises ValidationError."""
        read = _SingleItem.model_validate_json(content, strict=True)
        outcome = "triggered" if read.should_notify else "not_triggered"
        return [Item.model_validate({**dict(read), "outcome": outcome, "notification_id": read.id})]


def oddities(error: ValidationError) -> tuple[str, ...]:
    """What was expected and what was found, once for all results.

    Values are not cut: what is cut before the token is replaced could keep a part of it.
    """
    expected: dict[tuple[str, str], dict[str, None]] = {}
    for each in error.errors(include_url=False):
        where = [part for part in each["loc"] if isinstance(part, str)]
        if each["type"] == "json_invalid":
            return ("the body is not JSON",)
        if each["type"] == "missing":
            demand = f"`{where.pop()}`"
            keys = [f"`{key}`" for key in each["input"]]
            found = ", ".join(keys[:MAX_KEYS] + ["…"] * (len(keys) > MAX_KEYS)) or "no member"
        else:
            demand, found = each["msg"].removeprefix("Input should be "), json.dumps(each["input"])
        expected.setdefault((".".join(where) or "the body", found), {})[demand] = None
    return tuple(f"{where}: expected {', '.join(names)}, found {found}" for (where, found), names in expected.items())
