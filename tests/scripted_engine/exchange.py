"""The values that rules see and change: a call, and the reply to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

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
    scheduled_for: str | None
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
    members = _object(body, "the body")
    evaluations = members.get("evaluations")
    if not isinstance(evaluations, list) or not evaluations:
        raise MalformedCallError(f"evaluations: expected a list that is not empty, found {evaluations!r:.80}")
    if not isinstance(members.get("dry_run"), bool):
        raise MalformedCallError(f"dry_run: expected a boolean, found {members.get('dry_run')!r:.80}")
    for name in ("invocation_id", "scheduled_for"):
        if not isinstance(members.get(name), str | None):
            raise MalformedCallError(f"{name}: expected a string, found {members[name]!r:.80}")
    return Call(
        number=number,
        in_flight=in_flight,
        headers=headers,
        invocation_id=members.get("invocation_id"),
        scheduled_for=members.get("scheduled_for"),
        dry_run=members["dry_run"],
        items=tuple(_item(evaluation) for evaluation in evaluations),
    )


def _item(evaluation: Any) -> Item:
    members = _object(evaluation, "an evaluation")
    user_id, types, prefix = (members.get(n) for n in ("user_id", "scenario_types", "idempotency_key_prefix"))
    try:
        UUID(user_id)
    except (ValueError, TypeError, AttributeError) as exc:
        raise MalformedCallError(f"user_id: expected a UUID, found {user_id!r:.80}") from exc
    if not isinstance(types, list) or not types or not all(isinstance(name, str) and name for name in types):
        raise MalformedCallError(f"scenario_types: expected a list of names, found {types!r:.80}")
    if not isinstance(prefix, str) or not prefix:
        raise MalformedCallError(f"idempotency_key_prefix: expected a string, found {prefix!r:.80}")
    return Item(user_id=str(user_id), scenario_types=tuple(types), idempotency_key_prefix=prefix)


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedCallError(f"{name}: expected an object, found {value!r:.80}")
    return value


def oddities(call: Call) -> list[str]:
    """What an engine would put up with, and no correct scheduler does."""
    found = []
    if len(set(call.user_ids)) != len(call.user_ids):
        found.append("names a user twice")
    for item in call.items:
        if len(set(item.scenario_types)) != len(item.scenario_types):
            found.append(f"names a scenario type twice for {item.user_id}")
        if not item.idempotency_key_prefix.endswith(f":{item.user_id}"):
            found.append(f"the key prefix {item.idempotency_key_prefix!r} does not end in its user {item.user_id}")
    if not call.headers.get("content-type", "").startswith("application/json"):
        found.append(f"content-type is {call.headers.get('content-type')!r}")
    if not _is_traceparent(call.headers.get("traceparent", "")):
        found.append(f"traceparent is {call.headers.get('traceparent')!r}")
    return found


def _is_traceparent(value: str) -> bool:
    """https://www.w3.org/TR/trace-context/: version, trace id, parent id, flags; no id is all zeros."""
    parts = value.split("-")
    if [len(part) for part in parts] != [2, 32, 16, 2] or set("".join(parts)) - set("0123456789abcdef"):
        return False
    return parts[0] != "ff" and bool(parts[1].strip("0")) and bool(parts[2].strip("0"))
