"""Runs on request, and questions about runs: the calls behind the REST API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from .sql_core import CONFIG, SqlCore, Worker, mentor, pairs
from .sql_core import pairs_of as pairs_of  # used by the state machine from here

TTL_HOURS = 168


class Unfinished(NamedTuple):
    user_id: str
    scenario_type: str
    active: bool


async def ask(worker: Worker, *, invocation_id: str | None = None, key: str | None = None, **asked: Any) -> Any:
    usual = {
        "request_hash": "a digest",
        "request": {"user_ids": None, "scenario_types": None},
        "dry_run": False,
        "retry_of": None,
        "note": None,
        "triggered_by": "admin",
        "requested_by": None,
        "reason": None,
        "config": CONFIG,
        "expires_after_hours": 20,
        "engine_key_ttl_hours": TTL_HOURS,
        "time_budget_seconds": 25,
        "request_slice": False,
        "scenario_version": "",
        "is_refused": False,
    }
    run = invocation_id or str(uuid4())
    answer = await worker.call("open", invocation_id=run, idempotency_key=key, **{**usual, **asked})
    assert set(answer) - {"engine_answered_recently", "work", "scenario_config"} == {"outcome", "invocation", "canary"}
    return answer


async def opened(worker: Worker, **asked: Any) -> str:
    """Ask for a run that is opened; its id."""
    answer = await ask(worker, **asked)
    assert answer["outcome"] == "opened", answer
    return str(answer["invocation"]["id"])


async def refusal(worker: Worker, **asked: Any) -> Any:
    """Ask for a run that is not opened; why not."""
    answer = await ask(worker, **asked)
    outcome = answer.pop("outcome")
    assert answer == {"invocation": None, "canary": None}
    return outcome


async def ended_run(core: SqlCore, worker: Worker, outcomes: Sequence[str | None] = ("failed",)) -> str:
    """A scheduled run that has ended: mentor n alone in batch n + 1, which came to `outcomes[n]`; None: cancelled."""
    run = await core.open_run(worker, [pairs([number]) for number in range(len(outcomes))])
    for batch in (await worker.claim(len(outcomes)))["batches"]:
        assert batch["invocation_id"] == run
        if (outcome := outcomes[batch["batch_no"] - 1]) is not None:
            assert await worker.complete(batch, outcome) == "done"
    if None in outcomes:
        assert await worker.cancel(run)
    else:
        assert (await worker.finish(run))["ended_now"]
    return run


async def unfinished(
    worker: Worker, run: str | None, *, after: str | None = None, mentors: int | None = 1000, **given: Any
) -> Any:
    return await worker.call("unfinished", invocation_id=run, after_user_id=after, mentors=mentors, **given)


async def all_unfinished(worker: Worker, run: str, *, mentors: int = 1000) -> list[Unfinished]:
    """Everything that a run left unfinished, read page by page."""
    found: list[Unfinished] = []
    after = None
    while (page := await unfinished(worker, run, after=after, mentors=mentors))["last_user_id"] is not None:
        assert after is None or page["last_user_id"] > after
        assert page["mentors"], "an empty page before the end"
        after = page["last_user_id"]
        found += [
            Unfinished(row["user_id"], scenario_type, row["active"])
            for row in page["mentors"]
            for scenario_type in row["scenario_types"]
        ]
    return found


async def listed(
    worker: Worker, *, limit: int = 100, offset: int = 0, after: Mapping[str, str] | None = None, **filters: Any
) -> Any:
    names = "statuses trigger triggered_by scheduled_from scheduled_to user_id after_invoked_at after_id"
    at = {f"after_{name}": value for name, value in (after or {}).items()}
    answer = await worker.call("list", **{**dict.fromkeys(names.split()), **filters, **at}, limit=limit, offset=offset)
    assert set(answer) == {"items", "next", "total"}
    return answer


async def evaluations(worker: Worker, run: str, *, limit: int = 100, after: Sequence[str] = (), **filters: Any) -> Any:
    """A page of a run's stored results."""
    given = dict.fromkeys(("outcomes", "code", "scenario_type", "after_user_id", "after_scenario_type")) | filters
    given |= dict(zip(("after_user_id", "after_scenario_type"), after, strict=False))
    return await worker.call("evaluations_page", invocation_id=run, limit=limit, **given)


async def seen(worker: Worker, run: str) -> Any:
    return await worker.call("get", invocation_id=run, engine_key_ttl_hours=TTL_HOURS)


async def add_mentors(core: SqlCore, numbers: Sequence[int]) -> None:
    await core.owner.run(
        "insert into public.peer_mentors (user_id, status) select unnest(%s::uuid[]), 'active'",
        [mentor(number) for number in numbers],
    )
