"""A scheduled run on the real stack: a project with mentors, a scripted engine, the deployed function, the oracle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx

from functions.http.schemas import RunSummary
from tests.emulator.function import FunctionProcess
from tests.emulator.project import Project
from tests.scripted_engine import ScriptedEngine

ESTABLISHED_TYPES = ("inactivity", "milestone")
CERTIFIED_TYPES = ("milestone", "certification_expiry")

Pair = tuple[str, str]
T = TypeVar("T")


def slot_minutes_ago(minutes: int = 1) -> tuple[str, datetime]:
    """A daily schedule whose latest slot was so long ago, and that slot."""
    slot = (datetime.now(UTC) - timedelta(minutes=minutes)).replace(second=0, microsecond=0)
    return f"{slot.minute} {slot.hour} * * *", slot


def mentor_ids(count: int) -> list[str]:
    """Ids that look like any others, the same in every run."""
    return [str(uuid.uuid5(uuid.NAMESPACE_URL, f"mentor-{number}")) for number in range(count)]


async def eventually(look: Callable[[], Awaitable[T]], within: float = 60) -> T:
    """Looks until it finds something, or raises TimeoutError: for what another process does without an event."""
    pause = 0.02
    async with asyncio.timeout(within):
        while not (found := await look()):  # another process has no Event to set
            await asyncio.sleep(pause)
            # To look costs a connection each time: what takes long is not made longer by waiting for it.
            pause = min(pause * 1.2, 0.2)
        return found


class Harness:
    def __init__(self, project: Project, engine: ScriptedEngine, http: httpx.AsyncClient) -> None:
        self.project = project
        self.engine = engine
        self.http = http
        self.schedule, self.slot = slot_minutes_ago()
        self.mentors: list[str] = []
        self.served: list[FunctionProcess] = []

    async def add_mentors(self, count: int) -> list[str]:
        """Adds established mentors, two scenario types each; every tenth is onboarding and certified, two others."""
        self.mentors = mentor_ids(count)
        await self.execute(
            b"insert into public.peer_mentors (user_id, status, segments, joined_at, onboarding_completed_at,"
            b" certification_expires_at)"
            b" select user_id, 'active', '{}', now() - interval '90 days', case when number %% 10 <> 0 then now() end,"
            b" case when number %% 10 = 0 then now() + interval '10 days' end"
            b" from unnest(%s::uuid[]) with ordinality as added (user_id, number)",
            [self.mentors],
        )
        return self.mentors

    def expected_pairs(self) -> dict[Pair, str]:
        """The outcome of every pair where no rule disturbs the engine."""
        return {
            (user_id, scenario_type): self.engine.expected_outcome(user_id, scenario_type)
            for number, user_id in enumerate(self.mentors)
            for scenario_type in (CERTIFIED_TYPES if number % 10 == 9 else ESTABLISHED_TYPES)
        }

    async def start_function(self, env: Mapping[str, str] | None = None, **options: Any) -> FunctionProcess:
        """One more instance of the function, with the scripted engine's address and the slot due."""
        return await self.project.start_function(
            {"EVALUATION_SCHEDULE": self.schedule, **(env or {})},
            engine_url=options.pop("engine_url", self.engine.url),
            **options,
        )

    async def fire(
        self, function: FunctionProcess, body: object = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """`POST /` with the invoke token, whose answers have no note, no message of the engine and no user ids."""
        answer = await self.http.post(
            f"{function.url}/",
            json={} if body is None else body,
            headers={"Authorization": f"Bearer {self.project.invoke_token}", **(headers or {})},
        )
        if answer.is_success and "id" in answer.json():
            assert answer.json().keys() == RunSummary.model_fields.keys()
            self.served.append(function)
        return answer

    async def run(self, function: FunctionProcess, **options: Any) -> dict[str, Any]:
        """Fires; returns the slot's invocation in full, as it is afterwards."""
        answer = await self.fire(function, **options)
        assert answer.is_success, answer.text
        return await self.describe(answer.json()["id"])

    async def rows(self, query: bytes, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        async with self.project.connect() as connection:
            return await (await connection.execute(query, parameters)).fetchall()

    async def execute(self, statement: bytes, parameters: Sequence[Any] = ()) -> None:
        async with self.project.connect() as connection:
            await connection.execute(statement, parameters)

    async def invocations(self) -> list[dict[str, Any]]:
        """Every invocation as callers see it, the oldest first."""
        found = await self.rows(
            b"select scheduler.describe_invocation(id) from public.scheduler_invocations order by invoked_at"
        )
        return [row[0] for row in found]

    async def describe(self, invocation_id: str) -> dict[str, Any]:
        ((found,),) = await self.rows(b"select scheduler.describe_invocation(%s)", [invocation_id])
        assert isinstance(found, dict), f"there is no invocation {invocation_id}"
        return found

    async def ended(self) -> dict[str, Any] | None:
        """The only invocation, once it has ended."""
        return next((invocation for invocation in await self.invocations() if invocation["finished_at"]), None)

    async def recorded_pairs(self, invocation_id: str) -> dict[Pair, str]:
        """The outcome of every frozen pair of an invocation, read back from rows and batches."""
        stored_rows = {
            (str(user_id), scenario_type): outcome
            for user_id, scenario_type, outcome in await self.rows(
                b"select user_id, scenario_type, outcome from public.scheduler_evaluations where invocation_id = %s",
                [invocation_id],
            )
        }
        frozen: list[tuple[Pair, str]] = []
        for pairs, state in await self.rows(
            b"select pairs, state from public.scheduler_invocation_batches where invocation_id = %s", [invocation_id]
        ):
            remaining = {"done": "not_triggered", "abandoned": "not_evaluated", "open": "open"}[state]
            frozen += [
                ((user_id, scenario_type), remaining)
                for group in pairs
                for user_id in group["user_ids"]
                for scenario_type in group["scenario_types"]
            ]
        assert len(frozen) == len(dict(frozen)), "a pair is in two batches"
        assert set(stored_rows) <= set(dict(frozen)), "a row belongs to no frozen pair"
        return dict(frozen) | stored_rows

    async def check_truth(self, invocation: dict[str, Any]) -> None:
        """The oracle: every mentor accounted for exactly once, counts equal to rows and to the engine's ledger."""
        pairs = await self.recorded_pairs(invocation["id"])
        described = await self.describe(invocation["id"])
        counts = invocation["counts"]
        outcomes = Counter(pairs.values())
        assert pairs.keys() == self.expected_pairs().keys()
        assert counts["mentors"] == len(self.mentors)
        assert counts["evaluations"] == len(pairs)
        for outcome in ("triggered", "not_triggered", "suppressed", "skipped", "failed", "not_evaluated"):
            assert counts[outcome] == outcomes[outcome], outcome
            assert sum(by.get(outcome, 0) for by in described["scenarios"].values()) == outcomes[outcome], outcome
        shown = sum(cause["count"] for cause in described["failures"])
        assert shown + described["other_failures"]["count"] == outcomes["failed"]
        assert {act.pair for act in self.engine.acts.values()} >= {
            pair for pair, outcome in pairs.items() if outcome == "triggered"
        }
        assert self.engine.notified_twice == []
        assert self.engine.violations == []
        if invocation["status"] in ("success", "partial", "failed"):
            assert await self.queue_lengths() == [0, 0, 0]

    async def queue_lengths(self) -> list[int]:
        """Messages in the queues: of scheduled runs, of manual ones, poison."""
        found = await self.rows(
            b"select (select count(*) from pgmq.q_scenario_evaluation_batches),"
            b" (select count(*) from pgmq.q_scenario_evaluation_batches_manual),"
            b" (select count(*) from pgmq.q_scenario_evaluation_batches_poison)"
        )
        return list(found[0])

    def log_lines(self, function: FunctionProcess) -> list[dict[str, Any]]:
        """What the function logged, each line parsed: a line that is no JSON object fails the test."""
        return [json.loads(line) for line in function.log_path.read_text().splitlines()]


@contextlib.asynccontextmanager
async def harness(project: Project, http: httpx.AsyncClient) -> AsyncIterator[Harness]:
    """A scheduled run with its engine up and its slot due; the test adds mentors and functions."""
    async with ScriptedEngine(token=project.engine_token) as engine:
        await project.make_slot_due()
        harness = Harness(project, engine, http)
        yield harness
        # The project's logs are searched for secrets next, and empty logs would prove nothing. A function called when
        # all was done logs nothing.
        logged = [len(harness.log_lines(function)) for function in harness.served]
        assert not logged or max(logged) > 0, "a run was served, and no function logged a line"
