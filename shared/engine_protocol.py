"""How an engine is spoken to: path, headers and body of a call, and how its answer is read.

`batch` is this project's own contract, `single` the API that the published trigger engine has; docs/engine-contract.md
describes both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import orjson

from shared.config import ScenarioEvaluationConfig
from shared.engine_response import EngineResponse, read_decision, read_results
from shared.evaluations import MentorScenarios
from shared.post_client import HttpResponse


@dataclass(frozen=True)
class EvaluationContext:
    """What all calls of one invocation have in common; see `EvaluationBatch`."""

    invocation_id: str
    scheduled_for: str
    engine_scope: str
    dry_run: bool

    @property
    def members(self) -> dict[str, object]:
        """Returns the members of every call's body."""
        return {"invocation_id": self.invocation_id, "scheduled_for": self.scheduled_for, "dry_run": self.dry_run}

    def key_prefix(self, user_id: str) -> str:
        """Returns the idempotency key of a user's pairs without their scenario type."""
        return f"{self.engine_scope}:{user_id}"


Users = Sequence[MentorScenarios]


@dataclass(frozen=True, slots=True)
class EngineProtocol:
    """One way to call an engine, and what the engine supports beyond it.

    Args:
        path: below the engine's URL.
        request: makes the body of a call, and the headers that are its own.
        read: reads the answer to a call; raises what `EngineClient.evaluate` says of the engine's answer.
        is_single: a call is about one pair, so a 404 may be about that pair.
        dry_run: the engine supports evaluating without acting.
        idempotency: the engine acts once for a key, so a call may be repeated whatever became of it.
    """

    path: str
    request: Callable[[EvaluationContext, Users], tuple[bytes, dict[str, str]]]
    read: Callable[[HttpResponse, EvaluationContext, Users], EngineResponse]
    is_single: bool = False
    dry_run: bool = True
    idempotency: bool = True


def _batch_request(context: EvaluationContext, users: Users) -> tuple[bytes, dict[str, str]]:
    evaluations = [
        {"user_id": user_id, "scenario_types": types, "idempotency_key_prefix": context.key_prefix(user_id)}
        for user_id, types, *_ in users
    ]
    return orjson.dumps(context.members | {"evaluations": evaluations}), {}


def _single_request(context: EvaluationContext, users: Users) -> tuple[bytes, dict[str, str]]:
    ((user_id, (scenario_type,), *_),) = users
    body = {"user_id": user_id, "scenario_type": scenario_type} | context.members
    return orjson.dumps(body), {"Idempotency-Key": f"{context.key_prefix(user_id)}:{scenario_type}"}


BATCH = EngineProtocol(
    "/v1/evaluations", _batch_request, lambda response, context, users: read_results(response, users)
)
SINGLE = EngineProtocol(
    "/api/v1/scenario-trigger-evaluations",
    _single_request,
    lambda response, context, users: read_decision(response, users, dry_run=context.dry_run),
    is_single=True,
)


def protocol_of(config: ScenarioEvaluationConfig) -> EngineProtocol:
    """Returns the protocol that `ENGINE_PROTOCOL` and `ENGINE_SUPPORTS` name."""
    supports = config.engine_supports
    protocol = SINGLE if config.engine_protocol == "single" else BATCH
    return replace(protocol, dry_run="dry_run" in supports, idempotency="idempotency" in supports)
