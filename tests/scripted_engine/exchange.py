"""The values that rules see and change: a call, and the reply to it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

Pair = tuple[str, str]
"""(user_id, scenario_type)"""

Result = dict[str, Any]
"""One member of `results`, as it goes over the wire."""


class MalformedCallError(ValueError):
    """The body breaks the engine contract so badly that there is nothing to evaluate."""


@dataclass(frozen=True)
class Item:
    """One member of `evaluations`."""

    user_id: str
    scenario_types: tuple[str, ...]
    idempotency_key_prefix: str

    def key(self, scenario_type: str) -> str:
        return f"{self.idempotency_key_prefix}:{scenario_type}"


@dataclass(frozen=True)
class Call:
    """A well-formed call. `number` counts from 1 in order of arrival; `in_flight` includes this call."""

    number: int
    in_flight: int
    headers: Mapping[str, str]
    invocation_id: str | None
    dry_run: bool
    items: tuple[Item, ...]

    @property
    def user_ids(self) -> list[str]:
        return [item.user_id for item in self.items]

    @property
    def pairs(self) -> list[Pair]:
        return [(item.user_id, scenario_type) for item in self.items for scenario_type in item.scenario_types]

    @property
    def keys(self) -> list[str]:
        return [item.key(scenario_type) for item in self.items for scenario_type in item.scenario_types]

    def names_any(self, users: Collection[str]) -> bool:
        return any(user_id in users for user_id in self.user_ids)

    def without(self, users: Collection[str]) -> Call:
        """The same call as if these users had not been asked about."""
        return replace(self, items=tuple(item for item in self.items if item.user_id not in users))


@dataclass
class Reply:
    """What is sent back. `body`, if given, replaces the results; `reset` drops the connection after it, or at once.

    `raw` replaces all of it, status line and headers included: it need not be HTTP. The connection is closed after it.
    """

    status: int = 200
    results: list[Any] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] | None = None
    reset: bool = False
    raw: AsyncIterator[bytes] | None = None


Proceed = Callable[[Call], Awaitable[Reply]]
"""Goes on with the next rule, and after the last one evaluates and acts."""

Rule = Callable[[Call, Proceed], Awaitable[Reply]]
"""Answers by itself, or proceeds (perhaps with a smaller call) and perhaps changes the reply."""


def parse_call(body: Any, *, number: int, in_flight: int, headers: Mapping[str, str]) -> Call:
    """The call in this decoded body. Raises MalformedCallError."""
    evaluations, dry_run, invocation_id = _values(body, ("evaluations", "dry_run", "invocation_id"))
    _require(isinstance(evaluations, list) and bool(evaluations), "evaluations: expected a list", evaluations)
    _require(isinstance(dry_run, bool), "dry_run: expected a boolean", dry_run)
    _require(isinstance(invocation_id, str | None), "invocation_id: expected a string", invocation_id)
    items = tuple(_item(evaluation) for evaluation in evaluations)
    return Call(number, in_flight, headers, invocation_id, dry_run, items)


def _item(evaluation: Any) -> Item:
    user_id, types, prefix = _values(evaluation, ("user_id", "scenario_types", "idempotency_key_prefix"))
    try:
        UUID(user_id)
    except (ValueError, TypeError, AttributeError) as exc:
        raise MalformedCallError(f"user_id: expected a UUID, found {user_id!r:.80}") from exc
    are_names = isinstance(types, list) and bool(types) and all(isinstance(name, str) and name for name in types)
    _require(are_names, "scenario_types: expected a list of names", types)
    _require(isinstance(prefix, str) and bool(prefix), "idempotency_key_prefix: expected a string", prefix)
    return Item(user_id, tuple(types), prefix)


def from_single(body: Any, headers: Mapping[str, str]) -> dict[str, Any]:
    """The decoded body of a call with the protocol `single`, as that of a `batch` call. Raises MalformedCallError."""
    user_id, scenario_type = _values(body, ("user_id", "scenario_type"))
    key = headers.get("idempotency-key", "")
    _require(isinstance(scenario_type, str), "scenario_type: expected a name", scenario_type)
    _require(key.endswith(f":{scenario_type}"), "Idempotency-Key: expected one that ends in the scenario type", key)
    prefix = key.removesuffix(f":{scenario_type}")
    evaluation = {"user_id": user_id, "scenario_types": [scenario_type], "idempotency_key_prefix": prefix}
    return {**body, "evaluations": [evaluation]}


def to_single(reply: Reply) -> Reply:
    """The same reply to a `single` call: it says whether to notify, and of a failure only that it is one."""
    if reply.body is not None or reply.raw is not None or reply.reset:
        return reply
    result = reply.results[0] if reply.results else {}
    if result.get("outcome") == "failed":
        return replace(reply, status=422, body=json.dumps(result["error"]).encode())
    answer = {name: result[name] for name in ("user_id", "scenario_type") if name in result}
    if result:
        answer |= {"id": result.get("notification_id", str(uuid4())), "evaluated_at": "2026-11-23T02:00:01Z"}
        answer |= {
            "should_notify": result["outcome"] == "triggered",
            "evaluation_metadata": {"rule": result["outcome"]},
        }
    return replace(reply, body=json.dumps(answer).encode())


def _values(value: Any, names: tuple[str, ...]) -> list[Any]:
    return [value.get(name) if isinstance(value, dict) else None for name in names]


def _require(holds: bool, expected: str, found: Any) -> None:
    if not holds:
        raise MalformedCallError(f"{expected}, found {found!r:.80}")


def oddities(call: Call) -> list[str]:
    """What an engine would put up with, and no correct scheduler does."""
    found = []
    content_type, traceparent = call.headers.get("content-type", ""), call.headers.get("traceparent", "")
    if len(set(call.user_ids)) != len(call.user_ids):
        found.append("names a user twice")
    for item in call.items:
        if len(set(item.scenario_types)) != len(item.scenario_types):
            found.append(f"names a scenario type twice for {item.user_id}")
        if not item.idempotency_key_prefix.endswith(f":{item.user_id}"):
            found.append(f"the key prefix {item.idempotency_key_prefix!r} does not end in its user {item.user_id}")
    if not content_type.startswith("application/json"):
        found.append(f"content-type is {content_type!r}")
    # https://www.w3.org/TR/trace-context/: version, trace id, parent id, flags; no id is all zeros
    if not re.fullmatch(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", traceparent):
        found.append(f"traceparent is {traceparent!r}")
    return found
