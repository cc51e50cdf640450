"""Runs that somebody asks for, and what is asked about runs: the calls behind the REST API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from .sql_core import Json, Pairs, SqlCore, Worker, mentor, pairs

TTL_HOURS = 168
NOTHING_OPENED = {"invocation": None, "witness": None}


class Undone(NamedTuple):
    """One pair that a run left undone."""

    user_id: str
    scenario_type: str
    active: bool


async def ask(
    worker: Worker,
    *,
    invocation_id: str | None = None,
    key: str | None = None,
    request_hash: str = "a digest",
    request: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    retry_of: str | None = None,
    note: str | None = None,
    expires_after_hours: int = 20,
    engine_key_ttl_hours: int = TTL_HOURS,
    post_slice: bool = False,
) -> Json:
    """Call scheduler_open."""
    answer: Json = await worker.call(
        "open",
        invocation_id=invocation_id or str(uuid4()),
        idempotency_key=key,
        request_hash=request_hash,
        request={"user_ids": None, "scenario_types": None} if request is None else request,
        dry_run=dry_run,
        retry_of=retry_of,
        note=note,
        config={"batch_size": 100},
        expires_after_hours=expires_after_hours,
        engine_key_ttl_hours=engine_key_ttl_hours,
        post_slice=post_slice,
    )
    assert set(answer) == {"outcome", "invocation", "witness"}
    return answer


async def opened(worker: Worker, **asked: Any) -> str:
    """Ask for a run that is opened; its id."""
    answer = await ask(worker, **asked)
    assert answer["outcome"] == "opened", answer
    return str(answer["invocation"]["id"])


async def refusal(worker: Worker, **asked: Any) -> str:
    """Ask for a run that is not opened; why not."""
    answer = await ask(worker, **asked)
    outcome = answer.pop("outcome")
    assert answer == NOTHING_OPENED
    return str(outcome)


async def ended_run(
    core: SqlCore,
    worker: Worker,
    outcomes: Sequence[str | None] = ("failed",),
    *,
    enumerated: bool = True,
) -> str:
    """A scheduled run that has ended: mentor n alone in batch n + 1, which came to `outcomes[n]`; None: cancelled."""
    run = await core.open_run(worker, [pairs([number]) for number in range(len(outcomes))], done=enumerated)
    await record(worker, run, outcomes)
    if None in outcomes or not enumerated:
        assert await worker.cancel(run)
    else:
        assert (await worker.finish(run))["ended_now"]
    return run


async def record(worker: Worker, run: str, outcomes: Sequence[str | None]) -> None:
    """Record a run's batches, in their order, each to come to one outcome; None: it stays claimed."""
    claimed = (await worker.claim(len(outcomes)))["batches"]
    for batch in claimed:
        assert batch["invocation_id"] == run
        if (outcome := outcomes[batch["batch_no"] - 1]) is not None:
            assert await worker.complete(batch, outcome) == "done"


def pairs_of(frozen: Pairs) -> list[tuple[str, str]]:
    """Each (user id, scenario type) of a batch."""
    return [
        (user_id, scenario_type)
        for group in frozen
        for user_id in group["user_ids"]
        for scenario_type in group["scenario_types"]
    ]


async def record_each(worker: Worker, batch: Json, outcomes: Mapping[tuple[str, str], str]) -> str:
    """Record a batch, each of its pairs with an outcome of its own."""
    counts: dict[str, dict[str, int]] = {}
    for (_, scenario_type), outcome in outcomes.items():
        of_type = counts.setdefault(scenario_type, {})
        of_type[outcome] = of_type.get(outcome, 0) + 1
    notable = [(*pair, outcome) for pair, outcome in outcomes.items() if outcome != "not_triggered"]
    return await worker.complete_with(batch, notable, counts)


async def undone(worker: Worker, run: str, *, after: str | None = None, mentors: int | None = 1000) -> Json:
    """Call scheduler_undone."""
    page: Json = await worker.call("undone", invocation_id=run, after_user_id=after, mentors=mentors)
    return page


async def all_undone(worker: Worker, run: str, *, mentors: int = 1000) -> list[Undone]:
    """Everything that a run left undone, read page by page."""
    found: list[Undone] = []
    after = None
    while (page := await undone(worker, run, after=after, mentors=mentors))["last_user_id"] is not None:
        assert after is None or page["last_user_id"] > after
        assert page["mentors"], "a page without anybody"
        after = page["last_user_id"]
        found += [
            Undone(row["user_id"], scenario_type, row["active"])
            for row in page["mentors"]
            for scenario_type in row["scenario_types"]
        ]
    return found


async def listed(
    worker: Worker,
    *,
    statuses: Sequence[str] | None = None,
    triggered_by: Sequence[str] | None = None,
    scheduled_from: datetime | None = None,
    scheduled_to: datetime | None = None,
    user_id: str | None = None,
    limit: int = 100,
    after: Mapping[str, str] | None = None,
) -> Json:
    """Call scheduler_list."""
    answer: Json = await worker.call(
        "list",
        statuses=statuses,
        triggered_by=triggered_by,
        scheduled_from=scheduled_from,
        scheduled_to=scheduled_to,
        user_id=user_id,
        limit=limit,
        after_created_at=after and after["created_at"],
        after_id=after and after["id"],
    )
    assert set(answer) == {"items", "next"}
    return answer


async def seen(worker: Worker, run: str) -> Json | None:
    """Call scheduler_get."""
    answer: Json | None = await worker.call("get", invocation_id=run)
    return answer


async def add_mentors(core: SqlCore, numbers: Sequence[int]) -> None:
    """Let these mentors be active."""
    await core.owner.run(
        "insert into public.peer_mentors (user_id, status) select unnest(%s::uuid[]), 'active'",
        [mentor(number) for number in numbers],
    )
