"""scheduler_list page by page, while runs come, go and change: whatever was there throughout comes once, in order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .asked import listed
from .sql_core import SqlCore, Worker, mentor

START = datetime(2026, 11, 23, 2, tzinfo=UTC)
KINDS = (
    ("schedule", "succeeded"),
    ("schedule", "failed"),
    ("manual", "pending"),
    ("manual", "cancelled"),
    ("retry", "pending"),
    ("retry", "partial"),
)


class Run(NamedTuple):
    """A row as far as the list sorts and filters by it. `moment`: microseconds; few, so that many are equal."""

    number: int
    moment: int
    kind: tuple[str, str]
    is_hers: bool

    @property
    def id(self) -> str:
        return str(UUID(int=self.number))


class Filters(NamedTuple):
    """What is asked for; None: no filter."""

    statuses: list[str] | None
    triggered_by: list[str] | None
    only_hers: bool

    def fit(self, run: Run, status: str) -> bool:
        return (
            (self.statuses is None or status in self.statuses)
            and (self.triggered_by is None or run.kind[0] in self.triggered_by)
            and (run.is_hers or not self.only_hers)
        )


runs = st.builds(Run, st.integers(1, 2**128 - 1), st.integers(0, 4), st.sampled_from(KINDS), st.booleans())
changes = st.lists(st.tuples(st.sampled_from(["open", "delete", "cancel"]), runs, st.integers(0, 99)), max_size=3)
filters = st.builds(
    Filters,
    st.none() | st.lists(st.sampled_from(["succeeded", "failed", "pending", "cancelled", "partial"]), min_size=1),
    st.none() | st.lists(st.sampled_from(["schedule", "manual", "retry"]), min_size=1),
    st.booleans(),
)


class Shelf:
    """The runs in the database, and which of them stayed as they were."""

    def __init__(self, core: SqlCore) -> None:
        self._core = core
        self.status: dict[Run, str] = {}
        self.unchanged: set[Run] = set()

    async def put(self, run: Run) -> None:
        if any(run.number == known.number for known in self.status):
            return
        triggered_by, status = run.kind
        await self._core.owner.run(
            "insert into public.scheduler_invocations (id, idempotency_key, triggered_by, status, scheduled_for,"
            " created_at, finished_at, expires_at, engine_scope) values (%s, %s, %s, %s, %s, %s, %s, %s, 's')",
            *(run.id, f"id:{run.id}", triggered_by, status, START, START + timedelta(microseconds=run.moment)),
            *(None if status == "pending" else START, START + timedelta(days=9999)),
        )
        if run.is_hers:
            await self._core.owner.run(
                "insert into public.scheduler_invocation_batches (invocation_id, batch_no, pairs, first_user_id,"
                " last_user_id, mentors, evaluations, queue, msg_id) values (%s, 1,"
                " jsonb_build_array(jsonb_build_object('scenario_types', '[\"t\"]'::jsonb,"
                " 'user_ids', jsonb_build_array(%s::text))), %s, %s, 1, 1, 'scenario_evaluation_batches', 0)",
                *(run.id, mentor(1), mentor(1), mentor(1)),
            )
        self.status[run] = status

    async def change(self, change: str, new: Run, which: int) -> None:
        if change == "open" or not self.status:
            await self.put(new)
            return
        run = sorted(self.status)[which % len(self.status)]
        self.unchanged.discard(run)
        if change == "cancel":
            if self.status[run] == "pending":
                self.status[run] = "cancelled"
                await self._core.owner.run("select public.scheduler_update(%s, true, false, null)", run.id)
        elif await self._core.owner.value("select public.scheduler_delete(%s)", run.id) == "deleted":
            del self.status[run]


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    there=st.lists(runs, max_size=12),
    meanwhile=st.lists(changes, max_size=6),
    wanted=filters,
    limit=st.integers(1, 5),
)
async def test_what_was_there_from_the_first_page_to_the_last_comes_once_and_in_order(
    core: SqlCore,
    worker: Worker,
    there: list[Run],
    meanwhile: list[list[tuple[str, Run, int]]],
    wanted: Filters,
    limit: int,
) -> None:
    await core.owner.run("delete from public.scheduler_invocations")
    shelf = Shelf(core)
    for run in there:
        await shelf.put(run)
    shelf.unchanged = set(shelf.status)
    shown: list[str] = []
    following = None
    pages = iter(meanwhile)
    while True:
        page = await listed(
            worker,
            statuses=wanted.statuses,
            triggered_by=wanted.triggered_by,
            user_id=mentor(1) if wanted.only_hers else None,
            limit=limit,
            after=following,
        )
        shown += [item["id"] for item in page["items"]]
        assert len(shown) == len(set(shown))
        assert len(page["items"]) == limit or page["next"] is None
        following = page["next"]
        if following is None:
            break
        for change in next(pages, []):
            await shelf.change(*change)

    throughout = {run for run in shelf.unchanged if wanted.fit(run, run.kind[1])}
    assert [run_id for run_id in shown if run_id in {run.id for run in throughout}] == [
        run.id for run in sorted(throughout, key=lambda run: (-run.moment, run.number))
    ]
