"""The command line: `run` is one scheduled run from boot to summary, `up` stays until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import psycopg
from rich.console import Console

from .banner import banner, description
from .errors import EmulatorError
from .options import StackOptions
from .progress import ENDED, Progress
from .project import Project
from .safeupdate import without_safeupdate
from .scheduled_run import play_run
from .stack import DEFAULT_MENTORS, Stack, running_stack
from .summary import EXIT_OTHER

T = TypeVar("T")

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

LOOK_SECONDS = 0.2
# Of a database that is away, or being started again.
AWAY_SECONDS = 1.0
# What is open, and what was opened and has ended since the last look.
UNDER_WAY_OR_NEW = b"""
select id::text, scheduler.describe_invocation(id)
from public.scheduler_invocations
where id = any(%(under_way)s::uuid[])
   or status in ('pending', 'running')
   or (invoked_at > %(after)s and id <> all(%(known)s::uuid[]))
order by invoked_at
"""

EXIT_CODES_OF_RUN = """\
exit codes:
  0    success: all mentors were evaluated, and the second fire changed nothing
  3    partial: some were evaluated, some were not
  4    failed: none were
  1    anything else: cancelled, the engine stayed away, or the second fire changed something
  2    the stack did not start, or the command line is wrong
  130  interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        parsed = _parser().parse_args(arguments)
        if parsed.command == "run":
            return asyncio.run(until_signal(_run(parsed), when_stopped=EXIT_INTERRUPTED))
        return asyncio.run(until_signal(_up(parsed), when_stopped=0))
    except EmulatorError as error:
        print(f"emulator: {error}", file=sys.stderr)
        return EXIT_USAGE


class _Parser(argparse.ArgumentParser):
    """One whose errors are one sentence, as those of a start are."""

    def error(self, message: str) -> NoReturn:
        raise EmulatorError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m tests.emulator",
        description="A Supabase project on this machine, without Docker, with the function as it is deployed.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="play one scheduled run and stop",
        description="Boot, let pg_cron start the run that is due, show it, fire its slot again, sum up, stop.",
        epilog=EXIT_CODES_OF_RUN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    up = commands.add_parser(
        "up",
        help="stay up until Ctrl-C",
        description="Boot, print where everything is and lines to paste, show how far each run is, until Ctrl-C.",
    )
    run.set_defaults(sign_in=False)  # for pages and people, which a start need not wait for
    run.add_argument("--json", action="store_true", help="stdout: the summary as one object; progress goes to stderr")
    up.add_argument("--json", action="store_true", help="stdout, once all is ready: one line, one object; nothing else")
    up.add_argument("--no-tick", dest="tick", action="store_false", help="no pg_cron: only what you call happens")
    up.add_argument("--no-due-slot", dest="due_slot", action="store_false", help="leave the schedule: no run is due")
    for add in (run.add_argument, up.add_argument):
        add("--mentors", type=_count, metavar="N", help=f"sample mentors in a new database ({DEFAULT_MENTORS})")
        add("--engine-url", metavar="URL", help="your own trigger engine instead of the reference one")
        add("--engine-token", metavar="TOKEN", help="the token that your own engine expects")
        add("--schedule", metavar="CRON", help="EVALUATION_SCHEDULE, in UTC (default: daily, due a minute ago)")
        add(
            "--function-env",
            action="append",
            default=[],
            type=_name_and_value,
            metavar="K=V",
            help="a variable of the function's environment; repeat it for more",
        )
        add(
            "--data-dir",
            type=Path,
            metavar="DIR",
            help="keep the database here, or go on with the one that is kept (default: a new one, removed at the end)",
        )
    return parser


def _count(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,7}", text):
        raise argparse.ArgumentTypeError(f"expected a number of mentors from 1 to 99999999, found {text!r}")
    return int(text)


def _name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, found {text!r}")
    return name, value


async def until_signal(command: Coroutine[Any, Any, int], *, when_stopped: int) -> int:
    """Runs the command; SIGINT or SIGTERM makes it stop in order, and more of them change nothing."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(command)

    def stop() -> None:
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        return when_stopped


@asynccontextmanager
async def _started(parsed: argparse.Namespace, console: Console) -> AsyncIterator[Stack]:
    async with AsyncExitStack() as exits:
        with console.status("starting PostgreSQL, PostgREST, the gateway, the engine and the function"):
            given = vars(parsed) | {"function_env": dict(parsed.function_env)}
            options = {field.name: given[field.name] for field in fields(StackOptions) if field.name in given}
            stack = await exits.enter_async_context(running_stack(StackOptions(**options)))
        if not stack.server.has_safeupdate:
            print(f"emulator: {without_safeupdate(stack.server.binaries.major)}", file=sys.stderr)
        yield stack


def _console(parsed: argparse.Namespace) -> Console:
    """Returns one with colours on a terminal only, also where FORCE_COLOR is set; the object of --json has stdout."""
    stream = sys.stderr if parsed.json else sys.stdout
    return Console(file=stream, highlight=False, soft_wrap=True, force_terminal=stream.isatty())


async def _run(parsed: argparse.Namespace) -> int:
    console = _console(parsed)
    async with _started(parsed, console) as stack:
        try:
            if stack.unfinished_slot is not None:
                console.print(
                    f"going on with the run of {stack.unfinished_slot:%Y-%m-%d %H:%M} UTC, which was left open; "
                    "batches that were in hand become visible again within two minutes"
                )
            if stack.server.has_own_pg_cron:
                console.print("waiting for pg_cron, which runs its jobs once a minute")
            summary = await _unless_broken(stack, play_run(stack, Progress(console)))
        except EmulatorError as error:
            return _failed(error)
        if parsed.json:
            print(json.dumps(summary.as_object()), flush=True)
        else:
            summary.print_on(console)
        return summary.exit_code


async def _up(parsed: argparse.Namespace) -> int:
    console = _console(parsed)
    async with _started(parsed, console) as stack:
        print(json.dumps(description(stack)) if parsed.json else banner(stack), flush=True)
        try:
            if parsed.json:
                await stack.broken()
            await _unless_broken(stack, watch(stack.project, Progress(console), stack.ready_at))
        except EmulatorError as error:
            return _failed(error)
    raise AssertionError("it stays up until a signal stops it, or something is broken")


async def watch(project: Project, progress: Progress, since: datetime) -> NoReturn:
    """Shows each run that had not ended by `since` to its end, also across a restart of the database."""
    known: set[str] = set()
    under_way: list[str] = []
    while True:
        with contextlib.suppress(psycopg.OperationalError, OSError):
            async with project.connect() as database:
                while True:
                    parameters = {"under_way": under_way, "after": since, "known": list(known)}
                    found = await (await database.execute(UNDER_WAY_OR_NEW, parameters)).fetchall()
                    known |= {run_id for run_id, _ in found}
                    under_way = [run_id for run_id, run in found if run["status"] not in ENDED]
                    for _, run in found:
                        progress.show(run)
                    await asyncio.sleep(LOOK_SECONDS)
        await asyncio.sleep(AWAY_SECONDS)


async def _unless_broken(stack: Stack, work: Coroutine[Any, Any, T]) -> T:
    """Returns what this work returns; a part of the stack that cannot be kept alive ends it."""
    working, broken = asyncio.create_task(work), asyncio.create_task(stack.broken())
    try:
        await asyncio.wait((working, broken), return_when=asyncio.FIRST_COMPLETED)
        return await (working if working.done() else broken)
    finally:
        for task in (working, broken):
            task.cancel()
        await asyncio.gather(working, broken, return_exceptions=True)


def _failed(error: EmulatorError) -> int:
    print(f"emulator: {error}", file=sys.stderr)
    return EXIT_OTHER
