"""Idempotency-Key over HTTP: whatever is sent in whatever order, one key is one run, and the engine is asked once."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.manual.caller import Caller, a_caller
from tests.integration.nightly.night import Night, mentor_ids

ONE, OTHER = mentor_ids(2)
# Spellings of three requests: those in one row ask for the same.
SPELLINGS: tuple[tuple[dict[str, Any], ...], ...] = (
    (
        {"user_ids": [ONE, OTHER]},
        {"user_ids": [OTHER, ONE, OTHER], "dry_run": False},
        {"user_ids": [OTHER.upper(), ONE], "scenario_types": None, "retry_of": None, "note": None},
    ),
    (
        {"user_ids": [ONE], "scenario_types": ["milestone_reached", "inactivity_30_days"]},
        {"user_ids": [ONE, ONE], "scenario_types": ["inactivity_30_days", "milestone_reached", "milestone_reached"]},
    ),
    ({"user_ids": [ONE], "dry_run": True}, {"dry_run": True, "user_ids": [ONE, ONE.upper()], "note": None}),
)
names = count()


class Sent(NamedTuple):
    """One request; `key`: None is none, `delete_first`: its key's run is deleted before."""

    key: int | None
    asks_for: int
    spelling: int
    delete_first: bool

    def body(self) -> dict[str, Any]:
        spellings = SPELLINGS[self.asks_for]
        return spellings[self.spelling % len(spellings)]


sent = st.builds(
    Sent,
    st.none() | st.integers(0, 1),
    st.integers(0, len(SPELLINGS) - 1),
    st.integers(0, 2),
    st.sampled_from([False, False, False, True]),
)


class Known(NamedTuple):
    """What a key stands for."""

    id: str
    asks_for: int
    deleted: bool = False


class Ledger:
    """Sends requests, and knows what has to be answered."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._name = f"story-{next(names)}"
        self._known: dict[int, Known] = {}
        self.created: list[str] = []

    async def send(self, request: Sent) -> None:
        known = self._known.get(request.key) if request.key is not None else None
        if known and request.delete_first and not known.deleted:
            assert (await self._caller.delete(known.id)).status_code == 204
            assert request.key is not None
            known = self._known[request.key] = known._replace(deleted=True)
        key = None if request.key is None else f"{self._name}-{request.key}"
        answer = await self._caller.ask(request.body(), key=key)
        body = answer.json()
        if known is None:
            assert (answer.status_code, body["deduplicated"]) == (201, False)
            assert body["status"] == "succeeded"
            assert body["id"] not in self.created
            self.created.append(body["id"])
            if request.key is not None:
                self._known[request.key] = Known(body["id"], request.asks_for)
        elif known.deleted:
            assert (answer.status_code, body["code"]) == (409, "invocation_deleted")
        elif known.asks_for != request.asks_for:
            assert (answer.status_code, body["code"]) == (422, "idempotency_key_reused")
        else:
            assert (answer.status_code, body["id"], body["deduplicated"]) == (200, known.id, True)


@pytest.fixture
async def caller(night: Night) -> Caller:
    await night.add_mentors(2)
    return await a_caller(night)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(story=st.lists(sent, min_size=3, max_size=9))
async def test_any_story_of_keys_and_bodies_is_answered_by_the_rule_and_asked_of_the_engine_once(
    night: Night, caller: Caller, story: list[Sent]
) -> None:
    before, ledger = set(night.engine.keys_seen), Ledger(caller)
    for request in story:
        await ledger.send(request)

    new = set(night.engine.keys_seen) - before
    assert max(night.engine.keys_seen.values()) == 1
    assert {key.split(":")[1] for key in new} == set(ledger.created)
    assert all(key.startswith("manual:") for key in night.engine.acts)


async def test_many_simultaneous_requests_with_one_key_are_one_run(night: Night, caller: Caller) -> None:
    callers = [caller, await a_caller(night)]

    answers = await asyncio.gather(
        *(callers[number % 2].ask(SPELLINGS[0][number % 3], key="once") for number in range(20))
    )

    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert max(night.engine.keys_seen.values()) == 1
    assert night.engine.notified_twice == []
