"""What `up` prints once all is ready: where everything is, and lines to paste into a shell as they stand."""

from __future__ import annotations

import shlex
import shutil

from .auth import DOMAIN
from .stack import Stack

API = "/api/v1/scheduler-invocations"
LATEST = "select id from scheduler_invocations order by invoked_at desc limit 1"
EVERY_RUN = (
    "select invoked_at::timestamp(0) as created, trigger, dry_run, status, error_code,"
    " started_at - scheduled_for as lateness from scheduler_invocations order by invoked_at"
)


def description(stack: Stack) -> dict[str, object]:
    """Returns the object for a program; what the stack does not know of an engine of the user's own is None."""
    project = stack.project
    return {
        "function_url": stack.function.url,
        "dashboard_url": f"{stack.function.url}/dashboard",
        "supabase_url": project.supabase_url,
        "rest_url": project.rest_url,
        "auth_url": project.auth_url,
        "users": {f"{name}@{DOMAIN}": password for name, password in project.sign_in.passwords.items()},
        "database_url": project.database_url,
        "secret_key": project.secret_key,
        "publishable_key": project.publishable_key,
        "engine_url": stack.engine_url,
        "engine_token": stack.engine_token,
        "invoke_token": project.invoke_token,
        "admin_token": project.admin_token,
        "pids": stack.pids,
    }


def banner(stack: Stack) -> str:
    """Returns the text for a person. Each command stands on one line and needs nothing that another one set."""
    project, url = stack.project, stack.function.url
    api = f"{url}{API}"
    invoke = f"-H 'Authorization: Bearer {project.invoke_token}'"
    admin = f"-H 'Authorization: Bearer {project.admin_token}'"
    json = "-H 'Content-Type: application/json'"
    # the system's, or the one that came with the emulator's PostgreSQL
    program = "psql" if shutil.which("psql") else shlex.quote(str(stack.server.binaries.bin / "psql"))
    psql = f"{program} {shlex.quote(project.database_url)}"
    return f"""\
Ready. Ctrl-C stops everything.

  dashboard    {url}/dashboard
  admin token  {project.admin_token}
  users        operator@{DOMAIN}, password {project.sign_in.operator}
               viewer@{DOMAIN}, password {project.sign_in.viewer}
  function     {url}  (log: {stack.function.log_path})
  Data API     {project.rest_url}
  engine       {stack.engine_url}
  schedule     {stack.schedule} (UTC){"" if stack.options.tick else ", no tick: only what you call happens"}

Fire the scheduled run that is due, as pg_cron does:
  curl -sS -X POST {url}/ {invoke}

Is it up, and did the last run end well?
  curl -sS {url}/health
  curl -sS {url}/health/last-run

List the runs, and look into the latest one:
  curl -sS '{api}?limit=5' {admin}
  curl -sS {api}/$({psql} -qAtc '{LATEST}') {admin}

Run now, for all mentors; the same without notifying any:
  curl -sS -X POST {api} {admin}
  curl -sS -X POST {api} {admin} {json} -d '{{"dry_run": true}}'

Query the database, and run pg_cron's job once more by hand:
  {psql} -c '{EVERY_RUN}'
  {psql} -c 'select scheduler.dispatch()'

Read a table through the Data API:
  curl -sS '{project.rest_url}/scheduler_invocations?limit=1' -H 'apikey: {project.secret_key}'
"""
