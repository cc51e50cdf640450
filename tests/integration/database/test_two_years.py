"""Schedules of types over two years of slots: each fire is due exactly once, at its slot or at the next one that opens.

In a pause the slot takes it, and it is not caught up.

The SQL and the repository are the real ones; only their clock is simulated.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tests.unit.environment import make_config

from .processes import Process
from .sql_core import SqlCore, Worker

ZONE, DAY = ZoneInfo("Europe/Oslo"), timedelta(days=1)
# 2:30: an hour that does not exist, or exists twice, at each of the four clock changes.
CONFIG = make_config(
    EVALUATION_SCHEDULE="30 2 * * *",
    EVALUATION_TIMEZONE=ZONE.key,
    SCENARIO_TYPES=json.dumps(
        [{"type": name} for name in ("daily", "weekly", "monthly", "yearly", "changed", "switched")]
    ),
    MISSED_SLOT_MAX_GAP_HOURS="12",
    INVOCATION_EXPIRES_AFTER_HOURS="168",
)
FIRST, LAST = date(2026, 1, 1), date(2027, 12, 31)
# Every function of ours reads this clock.
SIMULATE = """
create table scheduler.simulated (clock timestamptz not null);
insert into scheduler.simulated values ('-infinity');
create function scheduler.simulated_now() returns timestamptz language sql stable set search_path = '' as
'select clock from scheduler.simulated';
do $do$
declare
  v_function text;
begin
  for v_function in
    select regexp_replace(pg_get_functiondef(oid), real_clock, 'scheduler.simulated_now()', 'g')
      from pg_proc, (values ('(pg_catalog.)?\\m(now|clock_timestamp)\\(\\)')) as _ (real_clock)
     where (pronamespace = 'scheduler'::regnamespace or proname like 'scheduler\\_%') and prosrc ~ real_clock
  loop
    execute v_function;
  end loop;
end
$do$
"""
ROWS = """
insert into public.scenario_evaluation_config (scenario_type, organization, schedule) values
  ('weekly', null, '15 2 * * 0'), ('monthly', null, '0 12 1 * *'), ('yearly', null, '30 2 31 10 *'),
  ('changed', null, '0 1 * * 1'), ('switched', null, '0 1 * * 4'), ('daily', 'Oslo', '0 0 15 * *')
"""
MONDAY, WEDNESDAY, THURSDAY, SUNDAY = 0, 2, 3, 6
CHANGED_ON = date(2026, 6, 8)
# By what is scheduled, at which days' slots it is due if every slot opens a run: the first slots after the fires.
DUE_ON: dict[str, Callable[[date], bool]] = {
    "weekly": lambda day: day.weekday() == SUNDAY,
    "monthly": lambda day: day.day == 2,
    "yearly": lambda day: (day.month, day.day) == (10, 31),
    "changed": lambda day: day.weekday() == (WEDNESDAY if day > CHANGED_ON else MONDAY),
    "switched": lambda day: day.weekday() == THURSDAY,
    "Oslo's daily": lambda day: day.day == 15,
}


class Edit(NamedTuple):
    """A change in Studio at noon; what of `restarted` has fired and was not due yet is not caught up."""

    sql: str
    restarted: frozenset[str] = frozenset()


SET = "update public.scenario_evaluation_config set"
EDITS = {
    CHANGED_ON: Edit(f"{SET} schedule = '0 1 * * 3' where scenario_type = 'changed'", frozenset({"changed"})),
    # Segments, on a Sunday whose slot was missed: it is caught up.
    date(2026, 8, 9): Edit(f"{SET} segments = '{{all}}' where scenario_type = 'weekly'"),
    date(2027, 2, 3): Edit(f"{SET} enabled = false where scenario_type = 'switched'"),
    date(2027, 2, 25): Edit(f"{SET} enabled = true where scenario_type = 'switched'", frozenset({"switched"})),
}
OFF = (date(2027, 2, 3), date(2027, 2, 25))
# On which day, at noon, the schedule is paused: on which day, at noon, it ends, and whether an operator ends it.
PAUSES = {
    # No call on the last two days, and too late a call for the slot of the next one.
    date(2026, 5, 4): (date(2026, 5, 8), False),
    # No slot falls into it, and the monthly type, which has just fired, is due at the next one.
    date(2026, 7, 1): (date(2026, 7, 1), True),
    # A week in which the clock changes.
    date(2027, 3, 24): (date(2027, 3, 31), True),
}
OPENED, LATE, DELETED = "opened", "late", "deleted"
SKIPPED, MISSED, TOO_LATE = "skipped", "missed", "too late"
PAUSED, PAUSED_LATE = "paused", "paused, late"
OPENS_A_RUN = (OPENED, LATE, DELETED)
CERTAIN = {
    **dict.fromkeys(EDITS, MISSED),
    **dict.fromkeys((each + DAY for each in EDITS), OPENED),
    # The clock changes on these days. The yearly type is due on the last of them; a year before, its slot is skipped.
    **dict.fromkeys((date(2026, 3, 29), date(2026, 10, 25), date(2027, 10, 31)), OPENED),
    **dict.fromkeys((date(2026, 10, 30), date(2026, 11, 1)), OPENED),
    date(2026, 10, 31): SKIPPED,
    # The monthly type fires after this slot and before it is opened.
    date(2026, 4, 1): LATE,
    # The weekday of a type is among them.
    **dict.fromkeys((date(2026, 5, 7), date(2026, 5, 8)), MISSED),
    date(2026, 5, 9): TOO_LATE,
    **dict.fromkeys((date(2026, 5, 10), date(2026, 7, 1), date(2026, 7, 2)), OPENED),
    **dict.fromkeys((date(2027, 3, 24), date(2027, 3, 28), date(2027, 4, 1)), OPENED),
}


def days() -> Iterator[tuple[date, str]]:
    """Yields each day and what happens to its slot, seeded; now and then a fortnight passes without a call."""
    random, before, paused_until = Random(25), MISSED, FIRST
    for number in range((LAST - FIRST).days + 1):
        day = FIRST + number * DAY
        if random.random() < 0.01:
            paused_until = day + 14 * DAY
        (fate,) = random.choices([OPENED, LATE, DELETED, SKIPPED, MISSED, TOO_LATE], weights=[70, 5, 5, 10, 5, 5])
        fate = CERTAIN.get(day, MISSED if day < paused_until else fate)
        if fate != MISSED and any(begin < day <= end for begin, (end, _) in PAUSES.items()):
            fate = PAUSED_LATE if fate in (LATE, TOO_LATE) else PAUSED
        # Only a run that is open keeps the next slot from opening one.
        if fate == SKIPPED and before not in (OPENED, LATE, SKIPPED):
            fate = OPENED
        yield day, (before := fate)


class Simulation:
    """Two processes that take turns, an editor in Studio, and a clock."""

    def __init__(self, core: SqlCore, worker: Worker) -> None:
        self._core = core
        self._worker = worker
        self._processes = [Process(worker, CONFIG) for _ in range(2)]
        self._open: str | None = None

    async def set_clock(self, day: date, hour: int) -> datetime:
        now = datetime(day.year, day.month, day.day, hour, 5, tzinfo=ZONE)
        await self._core.owner.run("update scheduler.simulated set clock = %s", now)
        return now

    async def play(self, day: date, fate: str) -> tuple[set[str], set[str]] | None:
        """Returns what was evaluated for a mentor of no organization, and for one of Oslo; None: nothing was."""
        if fate == MISSED:
            return None
        now = await self.set_clock(day, {LATE: 13, TOO_LATE: 16, PAUSED_LATE: 16}.get(fate, 4))
        if fate not in (SKIPPED, PAUSED, PAUSED_LATE) and self._open:
            await self._worker.cancel(self._open)
            self._open = None
        self._processes.reverse()
        slot = await self._processes[0].slices.open_slot(now, None, "pg_cron")
        assert slot.opened == (fate != TOO_LATE)
        if fate not in OPENS_A_RUN:
            assert slot.invocation is None or slot.invocation.status == "skipped"
            reason = slot.invocation and slot.invocation.error_code
            assert reason == {SKIPPED: "overlap", TOO_LATE: None}.get(fate, "paused")
            assert {work.id for work in slot.open} <= {self._open}, "the open run goes on"
            return None
        assert slot.invocation
        assert slot.invocation.scheduled_for.astimezone(ZONE).date() == day
        (work,) = slot.open
        self._open = work.id
        if fate == DELETED:
            await self._worker.cancel(work.id)
            assert await self._worker.delete(work.id) == "deleted"
            await self._core.owner.run("call scheduler.prune()")
            assert not (await self._processes[1].slices.open_slot(now, None, "pg_cron")).opened
        scenarios = work.enumeration.scenarios
        return set(scenarios.types_for(["all"])), set(scenarios.types_for(["all", "org:Oslo"]))

    async def pause(self, day: date, end: date, *, is_resumed: bool) -> None:
        """At noon of this day."""
        until = None if is_resumed else datetime(end.year, end.month, end.day, 12, 10, tzinfo=ZONE)
        await self.set_clock(day, 12)
        await self._worker.call("schedule", changes={"paused": True, "until": until}, actor="anna")

    async def resume(self, day: date) -> None:
        await self.set_clock(day, 12)
        await self._worker.call("schedule", changes={"paused": False}, actor="anna")


async def test_each_fire_of_two_years_is_due_exactly_once(core: SqlCore, worker: Worker) -> None:
    await core.change_settings(f"slot_high_water_mark = '{FIRST}'")
    await core.owner.run(SIMULATE)
    simulation = Simulation(core, worker)
    await simulation.set_clock(FIRST, 0)
    await core.owner.run(ROWS)
    fired, met, runs = set[str](), Counter[tuple[str, str]](), 0
    for day, fate in days():
        fired_now = {name for name, is_due_on in DUE_ON.items() if is_due_on(day)}
        if OFF[0] < day <= OFF[1]:
            fired_now.discard("switched")
        met.update((name, fate) for name in fired_now)
        fired |= fired_now
        evaluated = await simulation.play(day, fate)
        if evaluated:
            due = fired - {"Oslo's daily"}
            expected = due | {"daily"}, due | {"daily"} if "Oslo's daily" in fired else due
            assert evaluated == expected, (day, fate)
            fired, runs = set(), runs + 1
        if day in PAUSES:
            end, is_resumed = PAUSES[day]
            await simulation.pause(day, end, is_resumed=is_resumed)
        for begin, (end, is_resumed) in PAUSES.items():
            if day == end and is_resumed:
                await simulation.resume(day)
            if day == end > begin:
                # None of it is caught up.
                fired = set()
        if day in EDITS:
            await simulation.set_clock(day, 12)
            await core.owner.run(EDITS[day].sql)
            fired -= EDITS[day].restarted
    assert runs > 500
    # The story is one: all happens to slots at which something is due.
    fates = {OPENED, LATE, DELETED, SKIPPED, MISSED, TOO_LATE}
    assert {fate for name, fate in met if name == "weekly"} == fates | {PAUSED}
    assert {fate for name, fate in met if name == "monthly"} >= {OPENED, DELETED, SKIPPED, MISSED}
    assert {fate: met["yearly", fate] for fate in fates} == dict.fromkeys(fates, 0) | {SKIPPED: 1, OPENED: 1}
