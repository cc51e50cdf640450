"""What deploy.sh does, step by step; its options are explained there."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.deployment.database import TargetDatabase
from shared.deployment.hosts import CloudRun, Container
from shared.deployment.report import CheckError, Report, say
from shared.deployment.settings import TARGETS, TOKEN_LISTS, CloudRunSettings, Deployment, change_tokens, check
from shared.deployment.smoke_test import SmokeTest, check_secret_key
from shared.errors import ConfigError
from shared.fingerprint import Fingerprint
from shared.version import VERSION

MAIN = "from functions.main import handle_scheduled_invocation as handle_scheduled_invocation\n"


@dataclass(frozen=True, slots=True)
class Command:
    """Does what is missing at each step; one that fails raises CheckError, and what was done before it stays."""

    kind: str  # a key of `TARGETS`
    path: Path | None  # the file of settings, if there is one
    environment: Mapping[str, str]
    report: Report

    def deploy(self) -> str:
        """Migrates the database, deploys the function, has the database call it, tries it; returns the last words."""
        deployment, database, host = self._check(TargetDatabase.check_view)
        with TemporaryDirectory() as work:
            self.report.begin("Stage the function")
            fingerprint = _stage(deployment, staged := Path(work, "staged"))
            self.report.begin("Migrate the database")
            database.migrate(Path(work, "project"))
            self.report.change("Prepare the schedule", database.prepare_schedule)
            url = host.deploy(staged, fingerprint.code_digest)
        if not url and not self.report.is_dry_run:
            next_step = "start the function, set FUNCTION_URL to where the database reaches it, and run this again"
            return f"Not done yet: {next_step}.\n\n   {host.serve_command}"
        smoke_test = SmokeTest(url, deployment)
        self.report.change("Try the function", partial(smoke_test.wait_until_up, fingerprint, host.serve_command))
        self.report.change("Connect the database to the function", partial(database.connect, url))
        self.report.change("Smoke test", smoke_test.dry_run)
        host.clean_up()
        self.report.change("State", database.show_state)
        return "Done."

    def rotate_tokens(self) -> str:
        """Puts new tokens beside the old ones and deploys, then takes the old ones out and deploys again.

        So every caller has a known token throughout. Where it stops in between, the next run continues it.
        """
        deployment, database, host = self._check(TargetDatabase.check)
        if self.path is None or any(self.environment.get(name) for name in TOKEN_LISTS):
            raise CheckError("expected both lists of tokens in a file of settings, and none in the environment")
        tokens = [each.get_secret_value() for each in deployment.config.scheduler_invoke_tokens]
        if (used := database.token()) not in tokens or not host.place:
            raise CheckError("the database does not call the function with these tokens: run ./deploy.sh first")
        if used == tokens[0]:
            self.report.change("Add new tokens", partial(change_tokens, self.path, add=True))
        self.deploy()
        self.report.change("Take the old tokens out", partial(change_tokens, self.path, add=False))
        return self.deploy()

    def uninstall(self, *, delete_data: bool) -> str:
        """Disconnects the database, removes the function, and says what is left."""
        _, database, host = self._check(TargetDatabase.check)
        if not self.report.is_dry_run:
            deletes = " and deletes what they recorded" if delete_data else ""
            self.report.begin(f'This ends the scheduled runs there{deletes}. Type "uninstall" to continue', period=0)
            if sys.stdin.readline().strip() != "uninstall":
                sys.exit("deploy.sh: nothing was done")
        self.report.change("Disconnect the database", database.disconnect)
        host.remove()
        if delete_data:
            self.report.change("Delete the data", database.delete_data)
        self.report.begin("What is left")
        if not delete_data:
            say("schema scheduler with all that was recorded, and its queues: ./deploy.sh resumes with them")
        say(
            "peer_mentors and active_peer_mentors, which are the application's",
            "the extensions pgmq, pg_net, pg_cron and supabase_vault, since others may use them",
            "statements, without secrets, in pg_stat_statements and the server's log; backups; the engine's records",
            host.left,
            f"{self.path or 'what holds the settings'} with the secrets",
        )
        return "Done."

    def _check(self, look: Callable[[TargetDatabase], None]) -> tuple[Deployment, TargetDatabase, CloudRun | Container]:
        """Until its end nothing is changed; all that is wrong is reported together."""
        self.report.begin("Check prerequisites and settings")
        needed = ("psql", "supabase", "gcloud" if self.kind == "cloud-run" else "docker")
        missing = [f"{name}: not installed, or not on PATH" for name in needed if shutil.which(name) is None]
        deployment = check(self.kind, self.path, self.environment, missing)
        config = deployment.config
        database = TargetDatabase(deployment, self.environment, self.report)
        given = deployment, self.report
        host = CloudRun(config, *given) if isinstance(config, CloudRunSettings) else Container(config, *given)
        say(f"database {database.place}", f"project  {config.supabase_url}", f"function {host.place}")
        self.report.begin("Check credentials, database and project")
        problems = []
        for check_one in (partial(check_secret_key, deployment), host.check, partial(look, database)):
            try:
                check_one()
            except CheckError as error:
                problems.append(f"{error}")
        if problems:
            raise CheckError("\n   ".join(["nothing was done; fix each of these first:", *problems]))
        return deployment, database, host


def _stage(deployment: Deployment, folder: Path) -> Fingerprint:
    folder.mkdir()
    for package in ("functions", "shared"):
        shutil.copytree(package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "deployment"))
    shutil.copy("shared/deployment/requirements.lock", folder / "requirements.txt")
    (folder / "main.py").write_text(MAIN, encoding="utf-8")
    fingerprint = Fingerprint.of(deployment.config, {**deployment.environment, **deployment.secrets}, folder)
    say(f"version {VERSION}, {fingerprint}")
    return fingerprint


def main(arguments: Sequence[str] | None = None) -> None:
    """Carries out the command; a problem ends the program with 1, an unknown option with 2."""
    parser = argparse.ArgumentParser("deploy.sh", "see ./deploy.sh --help", add_help=False, allow_abbrev=False)
    parser.add_argument("called_from", type=Path)
    parser.add_argument("--target", choices=TARGETS, default="cloud-run")
    parser.add_argument("--env-file", type=Path, default=Path(".env").absolute() if Path(".env").exists() else None)
    for switch in ("--dry-run", "--rotate-tokens", "--uninstall", "--delete-data"):
        parser.add_argument(switch, action="store_true")
    options = parser.parse_args(arguments)
    if options.delete_data and not options.uninstall:
        parser.error("--delete-data goes with --uninstall")
    path = options.env_file and Path(options.called_from, options.env_file)
    report = Report(is_dry_run=options.dry_run)
    command = Command(options.target, path, os.environ, report)
    try:
        if options.uninstall:
            said = command.uninstall(delete_data=options.delete_data)
        else:
            said = command.rotate_tokens() if options.rotate_tokens else command.deploy()
    except (CheckError, ConfigError, KeyboardInterrupt) as error:
        stopped = f'stopped at "{report.step}". What was done before it stays. Fix the errors above and run it again.'
        sys.exit(f"deploy.sh: {str(error) or 'interrupted'}\n\ndeploy.sh: {stopped}")
    print("\nA dry run: nothing was changed." if options.dry_run else f"\n{said}")


if __name__ == "__main__":
    main()
