"""The command line: `run` plays one night from boot to summary, `up` stays until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from .errors import EmulatorError
from .night import play_night
from .stack import Stack, StackOptions

EXIT_OTHER = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run until done or told to stop, and return the exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        if parsed.command == "run":
            return asyncio.run(_until_signal(_run(parsed), when_told=EXIT_INTERRUPTED))
        return asyncio.run(_until_signal(_up(parsed), when_told=0))
    except EmulatorError as error:
        print(f"emulator: {error}", file=sys.stderr)
        return EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.emulator",
        description="A Supabase project on this machine, without Docker, with the function as it is deployed.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser(
        "run",
        help="play one night and stop",
        description="Boot, let pg_cron start the run that is due, show it, fire its slot again, sum up, stop. "
        "Exit code: 0 succeeded, 3 partial, 4 failed, 2 the stack did not start, 1 anything else.",
    )
    up = commands.add_parser("up", help="stay up until Ctrl-C")
    for command in (run, up):
        _add_common(command)
    up.add_argument("--no-tick", action="store_true", help="no pg_cron: only what you call happens")
    up.add_argument("--no-due-slot", action="store_true", help="leave the schedule alone: no run is due")
    up.add_argument("--json", action="store_true", help="first line on stdout, once all is ready: one JSON object")
    return parser


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--mentors", type=_count, default=500, metavar="N", help="sample mentors in a new database (500)"
    )
    command.add_argument("--engine-url", metavar="URL", help="your own trigger engine instead of the reference one")
    command.add_argument("--schedule", metavar="CRON", help="EVALUATION_SCHEDULE, in UTC (default: due a minute ago)")
    command.add_argument(
        "--function-env",
        action="append",
        default=[],
        type=_name_and_value,
        metavar="K=V",
        help="a variable of the function's environment; repeat it for more",
    )
    command.add_argument("--data-dir", type=Path, metavar="DIR", help="keep the database here (default: a new one)")
    command.add_argument(
        "--port-function", type=_port, metavar="PORT", help="where the function listens (default: free)"
    )
    command.add_argument("--port-gateway", type=_port, metavar="PORT", help="where the gateway listens (default: free)")


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: a port from 1 to 65535 is expected")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: a number of mentors is expected")
    return int(text)


def _name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: NAME=VALUE is expected")
    return name, value


def _options(parsed: argparse.Namespace) -> StackOptions:
    chosen = {"schedule": parsed.schedule} if parsed.schedule else {}
    return StackOptions(
        mentors=parsed.mentors,
        engine_url=parsed.engine_url,
        function_env=dict(parsed.function_env),
        tick=not getattr(parsed, "no_tick", False),
        due_slot=not getattr(parsed, "no_due_slot", False),
        data_dir=parsed.data_dir,
        port_function=parsed.port_function,
        port_gateway=parsed.port_gateway,
        **chosen,
    )


async def _until_signal(command: Coroutine[Any, Any, int], *, when_told: int) -> int:
    """Run the command; SIGINT or SIGTERM makes it stop in order, and more of them do not disturb that."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(command)
    told = False

    def stop() -> None:
        nonlocal told
        if not told:
            told = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        return when_told


async def _run(parsed: argparse.Namespace) -> int:
    async with Stack(_options(parsed)) as stack:
        night = asyncio.create_task(play_night(stack))
        broken = asyncio.create_task(stack.broken())
        try:
            await asyncio.wait([night, broken], return_when=asyncio.FIRST_COMPLETED)
            return await night if night.done() else await broken
        except EmulatorError as error:
            return _failed(error)
        finally:
            night.cancel()
            broken.cancel()
            await asyncio.gather(night, broken, return_exceptions=True)


async def _up(parsed: argparse.Namespace) -> int:
    async with Stack(_options(parsed)) as stack:
        print(json.dumps(_description(stack)) if parsed.json else _welcome(stack), flush=True)
        try:
            await stack.broken()
        except EmulatorError as error:
            return _failed(error)


def _failed(error: EmulatorError) -> int:
    """Something went wrong after all had been up."""
    print(f"emulator: {error}", file=sys.stderr)
    return EXIT_OTHER


def _description(stack: Stack) -> dict[str, object]:
    project = stack.project
    return {
        "function_url": stack.function.url,
        "supabase_url": project.supabase_url,
        "rest_url": project.rest_url,
        "database_url": project.database_url,
        "secret_key": project.secret_key,
        "publishable_key": project.publishable_key,
        "engine_url": stack.engine_url,
        "invoke_token": project.invoke_token,
        "admin_token": project.admin_token,
        "pids": stack.pids,
    }


def _welcome(stack: Stack) -> str:
    project, url = stack.project, stack.function.url
    return f"""\
Ready. Ctrl-C stops everything.

  function   {url}  (log: {stack.function.log_path})
  Data API   {project.rest_url}
  engine     {stack.engine_url}
  schedule   {stack.options.schedule} (UTC){"" if stack.options.tick else ", no tick: only what you call happens"}

Fire the scheduled run that is due, as pg_cron does:
  curl -X POST {url}/ -H 'Authorization: Bearer {project.invoke_token}'

Is it up, and did the last night go well?
  curl {url}/health
  curl {url}/health/last-run

Run once more, and notify nobody:
  curl -X POST {url}/api/v1/scheduler-invocations -H 'Authorization: Bearer {project.admin_token}' \\
    -H 'Content-Type: application/json' -d '{{"dry_run": true}}'

See what happened:
  curl {url}/api/v1/scheduler-invocations -H 'Authorization: Bearer {project.admin_token}'
  psql '{project.database_url}' -c "select jsonb_pretty(scheduler.describe_invocation(id)) from scheduler_invocations"

Let pg_cron's job run once more, by hand:
  psql '{project.database_url}' -c 'select scheduler.dispatch()'

Read a table through the Data API:
  curl '{project.rest_url}/scheduler_invocations?limit=1' -H 'apikey: {project.secret_key}'
"""
