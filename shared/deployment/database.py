"""The database of a deployment, by psql and the Supabase CLI: checked, migrated, connected to the function."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

import httpx

from shared.deployment.report import CheckError, Report, attempts, run, say
from shared.deployment.settings import Deployment
from shared.deployment.smoke_test import describe_problem

SUPABASE = Path("supabase")
MIGRATIONS = {path.name.partition("_")[0]: path for path in sorted((SUPABASE / "migrations").glob("*.sql"))}
CHECK_VIEW = "select public.scheduler_check_mentors_view();"
MISSING_EXTENSIONS = """
select unnest(array['pgmq', 'pg_net', 'pg_cron', 'supabase_vault']) except select name from pg_available_extensions"""
ANSWER = """
do 'begin perform scheduler.collect_responses(); end';
select coalesce(d.status_code::text, d.error), left(answer.content, 100000) from scheduler.dispatches as d
  left join net._http_response as answer on answer.id = d.request_id and answer.status_code = d.status_code
 where d.id = :dispatch"""


class TargetDatabase:
    """Raises CheckError where psql or the CLI fails, which say themselves why; `place` is for people.

    All users of the machine can read arguments, and a server may log statements: no secret is in either.
    """

    def __init__(self, deployment: Deployment, environment: Mapping[str, str], report: Report) -> None:
        self._deployment, self._report = deployment, report
        before, _, place = deployment.config.database_url.get_secret_value().rpartition("@")
        user, _, password = before.rpartition(":")
        self._url = f"{user}@{place}"
        self._environment = {**environment, "PGPASSWORD": unquote(password), "PGCONNECT_TIMEOUT": "15"}
        self.place = self._url.partition("://")[2].partition("?")[0]

    def check(self) -> None:
        """Checks that it accepts the password and has what a Supabase project has."""
        if missing := self._run(MISSING_EXTENSIONS).split():
            raise CheckError(f"DATABASE_URL: found no {', '.join(missing)}; is it a Supabase project's database?")

    def check_view(self) -> None:
        """Checks also the mentors' view, as it is or as it would be once the first migration made or accepted it."""
        self.check()
        look = CHECK_VIEW
        if not self._has("to_regprocedure('public.scheduler_check_mentors_view()')"):
            (version, first), (_, second), *_ = MIGRATIONS.items()
            made = "" if version in self._applied_versions() else first.read_text(encoding="utf-8")
            # The second one begins with this check. The transaction ends with the session, so nothing of this stays.
            look = "begin;" + made + second.read_text(encoding="utf-8").partition(CHECK_VIEW)[0] + CHECK_VIEW
        self._run(look)

    def migrate(self, folder: Path) -> None:
        """Applies what is new of the migrations, or lists it in a dry run, and leaves those of others alone."""
        # In a folder of its own: the CLI leaves notes where it works.
        copies = folder / SUPABASE / "migrations"
        shutil.copytree(SUPABASE / "migrations", copies)
        shutil.copy(SUPABASE / "config.toml", folder / SUPABASE)
        # It refuses a database in which it finds migrations of others, unless it finds files for them as well.
        for version in self._applied_versions() - MIGRATIONS.keys():
            (copies / f"{version}_of_others.sql").touch()
        # include-all: theirs may be younger than ours. remote: known from version 3 on.
        options = ["--include-all", "--yes", f"--workdir={folder}", f"--remote={self._url}"]
        options += ["--dry-run"] if self._report.is_dry_run else []
        say(*run(["supabase", "db", "push", *options], env=self._environment).splitlines())
        # A hosted project notices by itself; others may not.
        if not self._report.is_dry_run:
            self._run("notify pgrst, 'reload schema'")

    def prepare_schedule(self) -> None:
        """Has a new schedule begin with its next slot, so that none of today is caught up under it."""
        schedule = str(self._deployment.config.schedule)
        is_new = self._run("select scheduler.prepare_schedule(:'schedule')", schedule=schedule) == "t"
        say("the schedule is new: the first slot from now on is the first to run" if is_new else "the schedule stays")

    def connect(self, function_url: str) -> None:
        """Has the database call the function, once at first as it will every minute, and waits for the answer."""
        config = self._deployment.config
        token, sql = config.scheduler_invoke_tokens[0].get_secret_value(), SUPABASE / "connect.sql"
        self._run(sql.read_text(encoding="utf-8"), token, function_url=function_url, schedule=str(config.schedule))
        dispatch = "do 'begin perform scheduler.dispatch(); end'; select max(id) from scheduler.dispatches"
        answer, _, content = self._until_found(ANSWER, dispatch=self._run(dispatch) or "0").partition("|")
        # connect.sql has cleared when the next slot is due; the next call of the function stores it again.
        if not answer and self._has("(select next_due_at from scheduler.settings)"):
            answer = "not yet, it is at work"
        elif answer not in ("200", "202"):
            if answer.isdigit():
                answer = describe_problem(httpx.Response(int(answer), text=content), self._deployment.secrets)
            silent = "not at all: pg_net has sent nothing for a minute (select net.worker_restart())"
            raise CheckError(f"the database's call was answered: {answer or silent}")
        say(f"pg_net called it with the token from Vault; its answer: {answer}")

    def token(self) -> str:
        """Returns the token with which it calls the function, if it does."""
        return self._run("select decrypted_secret from vault.decrypted_secrets where name = 'scheduler_invoke_token'")

    def disconnect(self) -> None:
        """Ends the database's calls, and deletes what is kept of them; the scheduler's tables stay."""
        if not self._has("to_regprocedure('scheduler.disconnect()')"):
            say("nothing is installed")
            return
        # A call that pg_net is sending ends within the time budget; its answer is deleted once it is there.
        ended = self._until_found("select 1 where scheduler.disconnect() = 0")
        say("Vault holds nothing of it, no cron job calls it, and what pg_net and pg_cron kept of its calls is deleted")
        if not ended:
            say("but for calls under way: pg_net keeps their answers for six hours, unless this is run again")

    def delete_data(self) -> None:
        """Removes what the migrations made, but the first one: the mentors' table and view are the application's."""
        versions = ",".join([*MIGRATIONS][1:])
        self._run((SUPABASE / "uninstall.sql").read_text(encoding="utf-8"), versions=versions)

    def show_state(self) -> None:
        """Prints schedule and next slot, last run, cron jobs and calls."""
        say(*self._run((SUPABASE / "state.sql").read_text(encoding="utf-8")).splitlines())

    def _applied_versions(self) -> set[str]:
        if not self._has("to_regclass('supabase_migrations.schema_migrations')"):
            return set()
        return set(self._run("select version from supabase_migrations.schema_migrations").split())

    def _has(self, expression: str) -> bool:
        return self._run(f"select {expression} is not null") == "t"

    def _until_found(self, text: str, **variables: str) -> str:
        """Repeats it for a minute, until something is found, and returns that."""
        return next((found for _ in attempts(60) if (found := self._run(text, **variables)).strip("|")), "")

    def _run(self, text: str, token: str = "", /, **variables: str) -> str:
        """Runs SQL with psql's variables, which are no secrets, and returns what it finds."""
        options = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password", "--file=-"]
        given = ["ON_ERROR_STOP=1", "VERBOSITY=terse", *(f"{name}={value}" for name, value in variables.items())]
        argv = ["psql", self._url, *options, *(f"--set={each}" for each in given)]
        return run(argv, text, {**self._environment, "INVOKE_TOKEN": token}).strip()
