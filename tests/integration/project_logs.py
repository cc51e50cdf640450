"""What the processes of a project wrote to their logs, searched for secrets when the project ends.

Every process's log is searched, also that of one which was killed or started again: it continues in the same file.
No log has an exception. The gateway would have logged keys and is configured to leave request headers out. PostgreSQL
logs the text of a statement that failed but not its parameters, and secrets travel as those.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tests.emulator.project import Project, ProjectFactory
from tests.emulator.staging import ROOT
from tests.log_schema import check_lines
from tests.secret_scan import Leak, SecretLeakedError, Secrets, leaks_in

# The secrets of a function; a test may have passed others than its project's own.
CONFIDED = (
    "SUPABASE_SECRET_KEY",
    "SCENARIO_ENGINE_TOKEN",
    "SCHEDULER_INVOKE_TOKENS",
    "SCHEDULER_ADMIN_TOKENS",
    "ALERT_WEBHOOK_URL",
    "ALERT_WEBHOOK_SECRET",
)


@contextlib.asynccontextmanager
async def project_without_leaks(
    projects: ProjectFactory, template: str = ProjectFactory.TEMPLATE
) -> AsyncIterator[Project]:
    """A project as `projects.project()` gives it, whose logs are searched once all its processes have ended."""
    # the server belongs to the whole session: of its log only what is new is this project's
    log_of_server = projects.server.log_path
    written_before = log_of_server.stat().st_size if log_of_server.exists() else 0
    async with projects.project(template) as project:
        yield project
    check_project(project, server_log_from=written_before)
    for function in project.functions:
        # a test may have put another function in the place of ours
        if function.root == ROOT and function.log_path.exists():
            check_schema(function.log_path)


def check_schema(log: Path) -> None:
    """Raises UndocumentedLineError where a function logged what its schema does not know."""
    check_lines(log.read_bytes().decode().split("\n")[:-1], str(log))


def check_project(project: Project, *, server_log_from: int = 0) -> int:
    """Searches the logs of all processes that the project ever had; its part of the server's begins at this byte."""
    folder = project.server.log_path.parent
    # by name, not from the project's lists: a test may have started something of its own in the project's name
    logs = {*folder.glob(f"*-{project.database}.log"), *folder.glob(f"*-{project.database}-*.log")}
    return check_logs(dict.fromkeys(sorted(logs), 0) | {project.server.log_path: server_log_from}, secrets_of(project))


def check_folder(folder: Path) -> int:
    """The same for all logs in the data directory of an emulator that ran as a command, and the schema with it."""
    check_schema(folder / "logs" / "function.log")
    logs = sorted((folder / "logs").glob("*.log"))
    assert {log.stem for log in logs} >= {"postgres", "function", "gateway", "postgrest"}, folder
    values = {"the database password": (folder / "postgres-password").read_text()}
    for file in ("keys.json", "tokens.json", "sign-in.json"):
        values |= json.loads((folder / file).read_text())
    return check_logs(dict.fromkeys(logs, 0), Secrets(values))


def check_logs(beginnings: Mapping[Path, int], secrets: Secrets) -> int:
    """Searches these files from these positions on, returns how many lines it read, or raises SecretLeakedError."""
    leaks: list[Leak] = []
    read = 0
    for log, beginning in beginnings.items():
        content = log.read_bytes()
        skipped = content[:beginning].count(b"\n")
        # not splitlines: it counts other lines than an editor does
        lines = content[beginning:].decode(errors="replace").removesuffix("\n").split("\n")
        read += len(lines) if content[beginning:] else 0
        leaks += [Leak(leak.log, leak.line + skipped, leak.kind) for leak in leaks_in(lines, str(log), secrets)]
    if leaks:
        raise SecretLeakedError(leaks)
    return read


def secrets_of(project: Project) -> Secrets:
    """Everything that is secret about a project, by what it is called."""
    confided = {
        f"{name} {number} of {function.name}": value
        for function in project.functions
        for name in CONFIDED
        for number, value in enumerate(function.env.get(name, "").split(","), 1)
    }
    own = {
        "the secret key": project.secret_key,
        "the publishable key": project.publishable_key,
        "the anon JWT": project.anon_jwt,
        "the service_role JWT": project.service_role_jwt,
        "the JWT secret": project.keys.jwt_secret,
        "the invoke token": project.invoke_token,
        "the admin token": project.admin_token,
        "the engine token": project.engine_token,
        **{f"sign-in: {name}": value for name, value in vars(project.sign_in).items()},
        "the database password": urlsplit(project.database_url).password or "",
    }
    return Secrets(confided | own)
