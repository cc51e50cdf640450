"""The database of a deployment, by psql and the Supabase CLI: checked, migrated, connected to the function."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from shared.deployment.http_call import describe_problem
from shared.deployment.report import CheckError, Report, say
from shared.deployment.settings import Deployment

SUPABASE = Path("supabase")
MIGRATIONS = sorted((SUPABASE / "migrations").glob("*.sql"))
EXTENSIONS = """
select 'this database has no ' || string_agg(name, ', ') || '; is it a Supabase project''s?'
  from unnest(array['pgmq', 'pg_net', 'pg_cron', 'supabase_vault']) as needed (name)
 where name not in (select name from pg_available_extensions)"""
# What the function said of an error, unless pg_net has lost it.
ANSWER = """
select left(answer.content, 100000) from scheduler.dispatches as d
  join net._http_response as answer on answer.id = d.request_id and answer.status_code = d.status_code
 where d.id = :dispatch"""


@dataclass(frozen=True, slots=True)
class TargetDatabase:
    """Raises CheckError where psql or the CLI fails. A dry run reports what it would change.

    All users of the machine can read arguments, and a server may log statements: no secret is in either.
    """

    deployment: Deployment
    environment: Mapping[str, str]
    report: Report
    sleep: Callable[[float], None] = time.sleep

    def check(self) -> None:
        """Checks that it accepts the password and can hold the scheduler."""
        try:
            fault = self._run(EXTENSIONS)
        except CheckError as error:
            fault = f"{error}"
        if fault:
            raise CheckError(f"DATABASE_URL: {fault}")

    def check_view(self) -> None:
        """Checks the mentors' view, as it is or as it would be once the first migration made or accepted it."""
        text = ""
        if not self._has("to_regprocedure('public.scheduler_mentors_view_fault()')"):
            first, second = (path.read_text(encoding="utf-8") for path in MIGRATIONS[:2])
            if MIGRATIONS[0].name.partition("_")[0] not in self._applied_versions():
                text = first
            # It begins with the function that looks. The transaction ends with the session, so nothing of this stays.
            text = "begin;" + text + second.partition("\n$$;\n")[0] + "\n$$;\n"
        if fault := self._run(text + "select public.scheduler_mentors_view_fault()"):
            raise CheckError(fault)

    def check_installed(self) -> None:
        """Checks that the migrations are applied."""
        if not self._is_installed():
            raise CheckError("nothing is installed yet: run ./deploy.sh first")

    def migrate(self, folder: Path) -> None:
        """Applies what is new of the migrations, and leaves those of others alone."""
        # In a folder of its own: the CLI leaves notes where it works.
        copies = folder / SUPABASE / "migrations"
        shutil.copytree(SUPABASE / "migrations", copies)
        shutil.copy(SUPABASE / "config.toml", folder / SUPABASE)
        # It refuses a database in which it finds migrations of others, unless it finds files for them as well.
        for version in self._applied_versions():
            if not any(copies.glob(f"{version}_*")):
                (copies / f"{version}_of_others.sql").touch()
        # include-all: theirs may be younger than ours.
        options = ["--include-all", "--yes", f"--workdir={folder}", f"--remote={self._url}"]
        push = ["supabase", "db", "push", *options, *(["--dry-run"] if self.report.is_dry_run else [])]
        with subprocess.Popen(
            push,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as cli:
            for line in cli.stdout or ():
                say(line.rstrip())
        if cli.returncode:
            needed = "if it knows no --remote: it has to be version 3 or newer"
            raise CheckError(f"the Supabase CLI could not apply them ({needed})")
        # A hosted project notices by itself; others may not.
        if not self.report.is_dry_run:
            self._run("notify pgrst, 'reload schema'")

    def prepare_schedule(self) -> None:
        """Has a new schedule begin with its next slot, so that none of today is caught up under it."""
        schedule = str(self.deployment.config.schedule)
        if self.report.would(f"let the schedule {schedule} begin with its next slot, if it is a new one"):
            return
        is_new = self._run("select scheduler.prepare_schedule(:'schedule')", schedule=schedule) == "t"
        say("the schedule is new: the first slot from now on is the first to run" if is_new else "the schedule stays")

    def connect(self, function_url: str) -> None:
        """Has the database call the function, once at first as it will every minute, and waits for the answer."""
        if self.report.would("keep its URL and an invoke token in Vault, schedule the cron jobs, and dispatch once"):
            return
        config = self.deployment.config
        token = config.scheduler_invoke_tokens[0].get_secret_value()
        variables = {"function_url": function_url, "schedule": str(config.schedule)}
        self._run((SUPABASE / "connect.sql").read_text(encoding="utf-8"), token, **variables)
        dispatch = "do 'begin perform scheduler.dispatch(); end'; select max(id) from scheduler.dispatches"
        number = self._run(dispatch) or "0"
        answer = self._until_found(
            "do 'begin perform scheduler.collect_responses(); end';"
            "select coalesce(status_code::text, error) from scheduler.dispatches where id = :dispatch",
            dispatch=number,
        )
        # connect.sql has cleared when the next slot is due; the next call of the function stores it again.
        if not answer and self._has("(select next_due_at from scheduler.settings)"):
            answer = "not yet, it is at work"
        if answer in ("200", "202") or answer.startswith("not yet"):
            say(f"pg_net called it with the token from Vault; its answer: {answer}")
            return
        if not answer:
            raise CheckError("pg_net has sent nothing for a minute; is its worker running (net.worker_restart())?")
        if answer == "401":
            raise CheckError("the function does not know the token that Vault holds (401)")
        if answer.isdigit():
            said = httpx.Response(int(answer), text=self._run(ANSWER, dispatch=number))
            answer = describe_problem(said, self.deployment.secrets)
        raise CheckError(f"the database's call was answered: {answer}")

    def disconnect(self) -> None:
        """Ends the database's calls, and deletes what is kept of them; the scheduler's tables stay."""
        if not self._is_installed():
            say("nothing is installed")
            return
        if self.report.would("take URL and token out of Vault, end the cron jobs, delete what is kept of its calls"):
            return
        # A call that pg_net is sending ends within the time budget; its answer is deleted once it is there.
        ended = self._until_found("select 1 where scheduler.disconnect() = 0")
        say("Vault holds nothing of it, no cron job calls it, and what pg_net and pg_cron kept of its calls is deleted")
        if not ended:
            say("but for calls under way: pg_net keeps their answers for six hours, unless this is run again")

    def delete_data(self) -> None:
        """Removes what the migrations made, but the first one: the mentors' table and view are the application's."""
        if self.report.would("run supabase/uninstall.sql"):
            return
        versions = ",".join(path.name.partition("_")[0] for path in MIGRATIONS[1:])
        self._run((SUPABASE / "uninstall.sql").read_text(encoding="utf-8"), versions=versions)

    def show_state(self) -> None:
        """Prints schedule and next slot, last run, cron jobs and calls."""
        if self._is_installed():
            say(*self._run((SUPABASE / "state.sql").read_text(encoding="utf-8")).splitlines())

    def _applied_versions(self) -> list[str]:
        if not self._has("to_regclass('supabase_migrations.schema_migrations')"):
            return []
        return self._run("select version from supabase_migrations.schema_migrations").split()

    def _is_installed(self) -> bool:
        return self._has("to_regprocedure('scheduler.disconnect()')")

    def _has(self, expression: str) -> bool:
        return self._run(f"select {expression} is not null") == "t"

    def _until_found(self, text: str, **variables: str) -> str:
        """Repeats it for a minute, until something is found, and returns that."""
        for _ in range(120):
            if found := self._run(text, **variables):
                return found
            self.sleep(0.5)
        return ""

    def _run(self, text: str, token: str = "", /, **variables: str) -> str:
        """Runs SQL with psql's variables, which are no secrets, and returns what it finds."""
        options = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password", "--file=-"]
        settings = {"ON_ERROR_STOP": "1", "VERBOSITY": "terse", **variables}
        ran = subprocess.run(
            ["psql", *options, *(f"--set={name}={value}" for name, value in settings.items()), f"--dbname={self._url}"],
            env=self._environment() | {"INVOKE_TOKEN": token},
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        said = re.sub(r"^psql:.*?(ERROR|WARNING): *", "", ran.stderr, flags=re.MULTILINE).strip()
        if ran.returncode:
            raise CheckError(said)
        if said:
            say(*said.splitlines())
        return ran.stdout.strip()

    @property
    def _url(self) -> str:
        return self.deployment.database_url

    def _environment(self) -> dict[str, str]:
        given = {"PGPASSWORD": self.deployment.database_password, "PGCONNECT_TIMEOUT": "15"}
        return {**self.environment, **given}
