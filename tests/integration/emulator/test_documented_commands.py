"""Every command that a document prints runs as it stands in a fresh clone, or is named here with the reason why not."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from tests.emulator.connections import connect, value
from tests.emulator.postgres import PostgresBinaries
from tests.emulator.staging import ROOT
from tests.faults.system_packages import require_curl

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "tests").glob("*.md")),
    *sorted((ROOT / "tests").glob("*/README.md")),
]
# What a command begins with, and why it is not run. Its targets, options and files are checked all the same.
NOT_RUN = {
    "./deploy.sh": "needs accounts at Supabase and Google Cloud; integration/deploy runs it beside stand-ins for them",
    "supabase start": "needs Docker",
    'eval "$(supabase status': "needs Docker",
    "SUPABASE_URL=$API_URL SUPABASE_SECRET_KEY=$SECRET_KEY make serve": "needs that Docker, and does not end",
    "make test": "this is a part of it",
    "make lint": "CI runs it before the tests",
    "make soak": "takes ten minutes",
    "make bench": "takes over half an hour",
    "make up": "does not end; the commands below are run on what it starts",
    'pg_dump "$OLD_DATABASE_URL"': "needs a second project; integration/deploy/test_open_runs.py moves one by psql",
    "git worktree": "needs a commit of the reader's",
    "make -C ../first": "needs that worktree",
}
# A document, words of its blocks or the heading of their section, and the tests that run these to the letter.
RUN_ELSEWHERE = (
    ("docs/api.md", "", "tests/integration/scheduled_runs/test_api_document.py"),
    ("docs/operations.md", "SCHEDULED_RUN=", "tests/faults/runbook/operator.py"),
    ("docs/operations.md", "## Where to look\n", "tests/faults/runbook/test_engine.py"),
    ("docs/operations.md", "## Pausing the schedule\n", "tests/faults/runbook/test_scenarios.py"),
    ("docs/operations.md", "## Changing scenario types\n", "tests/faults/runbook/test_scenarios.py"),
    ("docs/operations.md", "## Erasing a person\n", "tests/integration/database/test_forget_users.py"),
    ("docs/operations.md", "## Ten incidents\n", "tests/faults/runbook/test_incidents.py"),
    ("README.md", "## Calling it by hand\n", "tests/integration/scheduled_runs/test_api_document.py"),
    ("docs/deployment.md", "connect.sql", "tests/integration/installation/test_connecting_by_hand.py"),
    ("docs/deployment.md", "uninstall.sql", "tests/integration/installation/test_connecting_by_hand.py"),
)
PROGRAM = r"(?:make|\./deploy\.sh|python3?|\.venv/bin/\w+|curl|psql|supabase|npm|pip3?|git|docker|gcloud)(?= |$)"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
ALONE = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"}


class Block(NamedTuple):
    """A fenced block of a document; `text` without the prompts and the output of a `console`."""

    document: str
    heading: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its lines that are commands, each with those that continue it."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]

    @property
    def run_by(self) -> list[str]:
        text = f"{self.heading}\n{self.text}"
        return [test for document, words, test in RUN_ELSEWHERE if document == self.document and words in text]


def fenced(path: Path) -> Iterator[Block]:
    """The blocks of a document, each with the heading before it, of the first or second level."""
    heading = ""
    for found in re.finditer(
        r"^(##? [^\n]*)$|^ *```(\w*)\n(.*?)^ *```$", path.read_text(encoding="utf-8"), re.M | re.S
    ):
        heading, language, text = found[1] or heading, found[2], found[3]
        if text is not None:
            typed = re.findall(r"^\$ (.*)$", text, re.M) if language == "console" else [text]
            yield Block(str(path.relative_to(ROOT)), heading, language, "\n".join(typed))


BLOCKS = [block for path in DOCUMENTS for block in fenced(path)]
SHELL = [block for block in BLOCKS if block.language in ("bash", "sh", "console")]


def inline_commands(path: Path) -> list[str]:
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = re.findall(r"`([^`]+)`", text)
    return [code for code in found if re.match(r"(?:[A-Z_]+=\S+ )*(?:make|\./deploy\.sh|python3?|\.venv/\S+) \S", code)]


@lru_cache
def help_of(program: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*program, "--help"], cwd=ROOT, env=ALONE, capture_output=True, text=True)


def faults(command: str) -> list[str]:
    """What a command names and is not there: a target or variable of make, an option, a file, a program."""
    words = shlex.split(command, comments=True)
    for separator in ("|", "&&", ";"):
        if separator in words:
            at = words.index(separator)
            return faults(shlex.join(words[:at])) + faults(shlex.join(words[at + 1 :]))
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    found = []
    if words[:1] == ["make"]:
        assigned = [word.partition("=")[0] for word in words if re.match(r"[A-Z]+=", word)]
        found += [f"make has no variable {name}" for name in assigned if not re.search(rf"\b{name}\b", MAKEFILE)]
        words = words[:1] + words[3:] if words[1:2] == ["-C"] else words
        plan = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, env=ALONE, capture_output=True, text=True)
        started = re.findall(r"^\.venv/bin/python -m (?:tests|pytest).*$", plan.stdout, re.M)
        found += plan.stderr.splitlines()
        words = shlex.split(started[-1]) if started else []
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    if words and re.match(r"python", words[0]) and "tests" in command:
        found.append("python: a fresh clone's is .venv/bin/python")
    if options and words[0] in (".venv/bin/python", "./deploy.sh"):
        program = words[: next(at for at, word in enumerate(words) if word.startswith("--"))]
        helped = help_of((*([sys.executable] if "python" in program[0] else program[:1]), *program[1:]))
        known = set(re.findall(r"--[a-z][a-z-]*", helped.stdout))
        found += helped.stderr.splitlines() if helped.returncode else []
        found += [f"{' '.join(program)} has no option {option}" for option in options if option not in known]
    paths = [word for word in words if re.fullmatch(r"(?!\.\.)[\w.-]+(?:/[\w.-]+)+", word)]
    return found + [f"{path} is not there" for path in paths if not (ROOT / path).exists()]


def test_every_printed_command_names_what_is_there() -> None:
    printed = [(block.document, command) for block in SHELL for command in block.commands]
    printed += [(str(path.relative_to(ROOT)), command) for path in DOCUMENTS for command in inline_commands(path)]
    assert [(*where, found) for where in printed if (found := faults(where[1]))] == []
    assert [block for block in SHELL if subprocess.run(["bash", "-n", "-c", block.text]).returncode] == []


def test_no_command_hides_in_a_block_that_is_no_shell() -> None:
    others = [block for block in BLOCKS if block not in SHELL and block.language not in ("json", "sql", "dotenv")]
    assert [block for block in others if re.search(rf"^(?:\$ )?{PROGRAM}", block.text, re.M)] == []


def test_no_reason_or_other_test_is_out_of_date() -> None:
    commands = [command for block in SHELL if not block.run_by for command in block.commands]
    assert [start for start in NOT_RUN if not any(command.startswith(start) for command in commands)] == []
    for document, words, test in RUN_ELSEWHERE:
        assert any(test in block.run_by for block in SHELL if block.document == document), (document, words)
        assert (ROOT / test).exists()


def test_a_first_run_installs_nothing_that_only_tests_need() -> None:
    plans = [
        subprocess.check_output(["make", "-nB", target], cwd=ROOT, env=ALONE, text=True) for target in ("run", "test")
    ]
    tools = ["-r requirements-dev.txt", "--prefix tests/emulator >"]
    assert [[tool in plan for tool in tools] for plan in plans] == [[False, False], [True, True]]


@pytest.fixture
def clone() -> Iterator[Path]:
    """A copy without what is not committed, in which make takes all packages as installed: they are this one's."""
    left_out = (".git", ".venv", "node_modules", "__pycache__", ".*_cache", ".hypothesis", "build", ".env")
    with TemporaryDirectory(prefix="documented-commands-") as folder:
        # PostgreSQL's account has to get through
        Path(folder).chmod(0o711)
        clone = Path(folder) / "clone"
        shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(*left_out))
        for installed, at in (
            (sys.prefix, ".venv"),
            (ROOT / "tests/emulator/node_modules", "tests/emulator/node_modules"),
        ):
            (clone / at).mkdir()
            # but for make's marks, which are the clone's own
            for entry in (entry for entry in Path(installed).iterdir() if not entry.name.startswith(".")):
                (clone / at / entry.name).symlink_to(entry)
        subprocess.run(["make", "--touch", "--silent", "install"], cwd=clone, env=ALONE, check=True)
        yield clone


@asynccontextmanager
async def up(clone: Path) -> AsyncIterator[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *("make", "up", "MENTORS=20", "ARGS=--json --no-tick --no-due-slot"),
        cwd=clone,
        env=ALONE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(await process.stdout.readline())
    finally:
        os.killpg(process.pid, signal.SIGINT)
        await process.communicate()


async def test_every_command_that_needs_no_account_runs(clone: Path) -> None:
    require_curl()
    async with up(clone) as stack:
        async with connect(stack["database_url"]) as database:
            users = await value(database, b"select string_agg(user_id::text, ' ') from public.active_peer_mentors")
        (clone / "ids-of-test-users").write_text(users)
        variables = {
            name.upper(): stack[name] for name in ("function_url", "database_url", "invoke_token", "admin_token")
        }
        placeholders = {
            "https://engine.example.org": stack["engine_url"],
            "SCENARIO_ENGINE_TOKEN=…": f"SCENARIO_ENGINE_TOKEN={stack['engine_token']}",
            "curl ": "curl -fsS ",
        }
        ran = []
        for block in SHELL:
            commands = [command for command in block.commands if not command.startswith(tuple(NOT_RUN))]
            if block.run_by or not commands:
                continue
            script = "\n".join(commands)
            for placeholder, there in placeholders.items():
                script = script.replace(placeholder, there)
            process = await asyncio.create_subprocess_exec(
                *("bash", "-euo", "pipefail", "-c", script),
                cwd=clone,
                env=ALONE | variables | {"PATH": f"{PostgresBinaries.find().bin}:{ALONE['PATH']}"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output = (await process.communicate())[0].decode()
            assert process.returncode == 0, (block.document, script, output)
            ran += commands
    assert {"make run", "make help"} <= set(ran)
