"""What `run` and `up` show: a bar on a terminal, lines in a pipe, one object for a program, and lines to paste."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.emulator.cli import main
from tests.emulator.safeupdate import WHEELS_SERVER, without_safeupdate
from tests.emulator.staging import ROOT
from tests.faults.system_packages import require_curl
from tests.scripted_engine import ScriptedEngine, rules

ENGINE_TOKEN = "an-engine-that-a-test-scripts"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
# What only terminals read: colours, the cursor's moves.
CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


async def start(
    *arguments: str, stdout: int = asyncio.subprocess.PIPE, env: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.emulator", *arguments),
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color", **(env or {})},
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )


class Terminal:
    """A pseudo-terminal, read as it is written to. `descriptor` is for the process that writes."""

    def __init__(self) -> None:
        self._ours, self.descriptor = pty.openpty()
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self._written = b""
        self._news = asyncio.Event()
        self._ended = False
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    @property
    def written(self) -> str:
        return self._written.decode(errors="replace")

    @property
    def shown(self) -> str:
        """What was written, without colours and moves of the cursor."""
        return CONTROL_SEQUENCE.sub("", self.written)

    async def until(self, condition: Callable[[str], object]) -> None:
        """Returns when this holds of what is shown, or nobody writes any more."""
        async with asyncio.timeout(60):
            while not (self._ended or condition(self.shown)):
                self._news.clear()
                await self._news.wait()

    def _read(self) -> None:
        read = b""
        with contextlib.suppress(OSError):  # Linux says EIO where the other end is closed
            read = os.read(self._ours, 65536)
        self._written += read
        if not read:
            self._ended = True
            asyncio.get_running_loop().remove_reader(self._ours)
            os.close(self._ours)
        self._news.set()


async def in_a_pipe(*arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    process = await start(*arguments, env=env)
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), complaints(errors)


def complaints(errors: bytes) -> str:
    """Standard error, without the line of a system that has no compiler."""
    no_compiler = f"emulator: {without_safeupdate(WHEELS_SERVER)}\n"
    return errors.decode().replace(no_compiler, "")


def with_engine(engine: ScriptedEngine) -> list[str]:
    return ["--engine-url", engine.url, "--function-env", f"SCENARIO_ENGINE_TOKEN={ENGINE_TOKEN}"]


def bars(shown: str) -> list[tuple[int, int]]:
    """Of each bar of a run under way that was drawn: how many of how many."""
    found = re.findall(r"scheduled run: running ━*[╸╺]?━* +([\d,]+) of ([\d,]+) evaluations", shown)
    return [(int(done.replace(",", "")), int(total.replace(",", ""))) for done, total in found]


async def test_a_terminal_gets_a_bar_with_counts_and_rate_that_moves() -> None:
    halfway = asyncio.Event()
    async with ScriptedEngine(token=ENGINE_TOKEN) as engine:
        engine.rules.append(rules.only(lambda call: call.number > 4, rules.hold_until(halfway)))
        one_by_one = ["--function-env", "ENGINE_MAX_CONCURRENCY=1", "--function-env", "EVALUATION_BATCH_SIZE=10"]
        terminal = Terminal()
        process = await start("run", "--mentors", "100", *with_engine(engine), *one_by_one, stdout=terminal.descriptor)
        os.close(terminal.descriptor)
        await terminal.until(lambda shown: any(0 < done < total for done, total in bars(shown)))
        halfway.set()
        _, errors = await process.communicate()
        await terminal.until(lambda _: False)

    assert (process.returncode, complaints(errors)) == (0, "")
    assert any(0 < done < total for done, total in bars(terminal.shown)), terminal.shown
    ended = re.findall(
        r"scheduled run: succeeded ━+ (\d+) of (\d+) evaluations +[\d.,]+/s \d+:\d\d:\d\d", terminal.shown
    )
    assert len(ended) == 1, terminal.shown
    assert ended[0][0] == ended[0][1]
    assert terminal.written.rindex(SHOW_CURSOR) > terminal.written.rindex(HIDE_CURSOR)
    assert "every active mentor was evaluated for every scenario type that applies" in terminal.shown


async def test_a_program_gets_one_object_and_an_exit_code_of_its_own_where_some_failed() -> None:
    def first_one_failed(results: list[dict[str, Any]]) -> list[Any]:
        error = {"code": "no_device", "message": "no device is registered", "retryable": False}
        return [{**results[0], "outcome": "failed", "error": error}, *results[1:]]

    async with ScriptedEngine(token=ENGINE_TOKEN) as engine:
        engine.rules.append(rules.alter_results(first_one_failed))
        exit_code, output, errors = await in_a_pipe("run", "--json", "--mentors", "20", *with_engine(engine))

    summary = json.loads(output)
    assert output.count("\n") == 1
    assert (exit_code, summary["status"], summary["exit_code"]) == (3, "partial", 3)
    assert summary["invocation"]["counts"]["failed"] == 1
    assert [(cause["code"], cause["count"]) for cause in summary["invocation"]["failures"]] == [("no_device", 1)]
    assert summary["fired_again"]["changed_nothing"] is True
    assert len(summary["missing"]) == 1
    total = summary["invocation"]["counts"]["evaluations"]
    assert errors.splitlines()[-1].startswith(f"scheduled run: partial, {total} of {total} evaluations, ")


async def test_a_pipe_gets_plain_lines_whatever_the_environment_says_of_colours_and_failed_has_its_exit_code() -> None:
    exit_code, output, errors = await in_a_pipe("run", "--mentors", "0", env={"FORCE_COLOR": "1"})

    assert (exit_code, errors) == (4, "")
    assert "\x1b" not in output
    assert "\r" not in output
    lines = output.splitlines()
    assert "scheduled run: failed (no_active_mentors), 0 of 0 evaluations" in lines
    assert "  error          no_active_mentors" in lines
    assert "  there was nobody to evaluate" in lines


async def test_what_cannot_start_says_so_and_prints_no_object() -> None:
    exit_code, output, errors = await in_a_pipe("run", "--json", "--schedule", "at night")

    assert (exit_code, output) == (2, "")
    assert errors.startswith("emulator: --schedule 'at night'")


def test_the_exit_codes_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])

    assert re.findall(r"^  (\d+) +(\w+)", capsys.readouterr().out, re.MULTILINE)[:3] == [
        ("0", "succeeded"),
        ("3", "partial"),
        ("4", "failed"),
    ]


@contextlib.asynccontextmanager
async def up(*arguments: str, env: Mapping[str, str] | None = None) -> AsyncIterator[asyncio.StreamReader]:
    """What a stack that is up prints; it is told to stop at the end."""
    process = await start("up", *arguments, env=env)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            yield process.stdout
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
        assert (process.returncode, errors.decode()) == (0, "")


async def lines_until(stream: asyncio.StreamReader, start: str) -> list[str]:
    """Everything up to a line that starts like this, which is the last."""
    lines: list[str] = []
    while not (lines and lines[-1].startswith(start)):
        line = await stream.readline()
        assert line, lines
        lines.append(line.decode().rstrip("\n"))
    return lines


async def paste(line: str, folder: Path) -> str:
    """Runs it in a shell as it stands, anywhere."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", line),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, f"{line}\n{output}"
    return output


def commands(lines: Sequence[str]) -> list[str]:
    return [line.strip() for line in lines if re.match(r"  (curl|\S*psql) ", line)]


@pytest.fixture
def path_without_psql() -> Iterator[str]:
    """What the emulator asks of a system. Not in pytest's own folder, which is closed to PostgreSQL's account."""
    with TemporaryDirectory(prefix="emulator-test-") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "cp").symlink_to(str(shutil.which("cp")))
        yield folder


async def test_every_line_that_up_prints_works_as_it_stands_and_each_run_is_shown(
    tmp_path: Path, path_without_psql: str
) -> None:
    require_curl()
    async with up("--mentors", "20", "--no-tick", env={"PATH": path_without_psql}) as printed:
        lines = await lines_until(printed, "  curl -sS 'http://127.0.0.1:")
        lines += await lines_until(printed, "Read a table")
        lines += await lines_until(printed, "  curl")
        outputs = [await paste(line, tmp_path) for line in commands(lines)]
        shown = await lines_until(printed, "dry run: succeeded")

    (dashboard,) = (line.split()[1] for line in lines if line.startswith("  dashboard "))
    (function,) = (line.split()[1] for line in lines if line.startswith("  function "))
    assert dashboard == f"{function}/dashboard"
    assert any(re.match(r"  /\S+/psql postgresql://", line) for line in lines)
    fired, health, last_run, listed, latest, run, dry_run = (json.loads(output) for output in outputs[:7])
    assert (fired["status"], fired["deduplicated"], fired["triggered_by"]) == ("succeeded", False, "schedule")
    assert (health["status"], last_run["run_status"]) == ("ok", "succeeded")
    assert [item["id"] for item in listed["items"]] == [fired["id"]]
    assert latest["id"] == fired["id"]
    assert "dispatches" in latest
    assert (run["status"], run["triggered_by"], run["dry_run"]) == ("succeeded", "manual", False)
    assert (dry_run["status"], dry_run["dry_run"]) == ("succeeded", True)
    rows, dispatched, read = outputs[7:]
    assert [row.split("|")[1].strip() for row in rows.splitlines()[2:5]] == ["schedule", "manual", "manual"]
    assert "dispatch" in dispatched
    assert json.loads(read)[0]["id"] in {fired["id"], run["id"], dry_run["id"]}
    total = fired["counts"]["evaluations"]
    ends = [line for line in shown if "succeeded" in line]
    assert [re.sub(r", [\d.,]+/s$", "", line) for line in ends] == [
        f"{name}: succeeded, {total} of {total} evaluations" for name in ("scheduled run", "manual run", "dry run")
    ]
