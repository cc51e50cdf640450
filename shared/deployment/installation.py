"""What deploy.sh does, step by step: deploys, rotates the callers' tokens, uninstalls."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from shared.deployment.cloud_run import CloudRun
from shared.deployment.container import Container
from shared.deployment.database import TargetDatabase
from shared.deployment.env_file import TOKEN_LISTS, change_tokens, is_half_rotated, read_env_file
from shared.deployment.report import CheckError, Report, say
from shared.deployment.settings import CloudRunSettings, Deployment, Sources, check
from shared.deployment.smoke_test import SmokeTest, check_secret_key, describe
from shared.errors import ConfigError
from shared.fingerprint import Fingerprint
from shared.version import VERSION

LOCK = Path("shared/deployment/requirements.lock")
MAIN = "from functions.main import handle_scheduled_invocation as handle_scheduled_invocation\n"
LEFT = (
    "peer_mentors and active_peer_mentors, which are the application's",
    "the extensions pgmq, pg_net, pg_cron and supabase_vault, since others may use them",
    "its statements, without secrets, in pg_stat_statements and the server's log; the database's backups",
    "at the engine what it keeps of calls and notifications",
)


@dataclass
class Installation:
    """Does what is missing at each step; one that fails raises CheckError, and what was done before it stays.

    The methods without an underscore return the last words of the run.

    Attributes:
        kind: the target, a key of `TARGETS`.
        path: the file of settings, if there is one.
        work: an empty folder that no other user can read.
    """

    kind: str
    path: Path | None
    environment: Mapping[str, str]
    work: Path
    client: httpx.Client
    report: Report
    deployment: Deployment = field(init=False)

    def deploy(self) -> str:
        """Migrates the database, deploys the function, connects the database to it and tries it."""
        self._check_settings(needs_docker=self.kind == "container")
        self._check_target(self._database.check_view)
        self._stage()
        self.report.begin("Migrate the database")
        self._database.migrate(self.work / "project")
        self.report.begin("Prepare the schedule")
        self._database.prepare_schedule()
        smoke_test = self._put_in_service()
        if smoke_test is None:
            next_step = "start the function, set FUNCTION_URL to where the database reaches it, and run this again"
            return f"Not done yet: {next_step}.\n\n   {self._target.serve_command}"
        self.report.begin("Smoke test")
        if not self.report.would("evaluate ten mentors in a dry run"):
            smoke_test.dry_run()
        self._target.clean_up()
        self.report.begin("State")
        self._database.show_state()
        return "Done."

    def rotate_tokens(self) -> str:
        """Puts new tokens beside the old ones, has the database use the new one, then takes the old ones out.

        So every caller has a known token throughout. A container is restarted by its operator: there it takes two runs.
        """
        self._check_settings(needs_docker=False)
        self._check_target(self._database.check_installed, self._check_rotation)
        target = self._target
        if isinstance(target, Container):
            return self._rotate_half(target)
        self._stage()
        for add in (True, False):
            self._change_tokens(add=add)
            self._put_in_service()
        self._target.clean_up()
        say(f"the new tokens are in {self.path}")
        return "Done."

    def uninstall(self, *, delete_data: bool, is_confirmed: bool) -> str:
        """Disconnects the database, removes the function, and says what is left."""
        self._check_settings(needs_docker=False)
        self._check_target()
        if not is_confirmed and not self.report.is_dry_run:
            self._ask(delete_data=delete_data)
        self.report.begin("Disconnect the database")
        self._database.disconnect()
        self._target.remove()
        if delete_data:
            self.report.begin("Delete the data")
            self._database.delete_data()
        self.report.begin("What is left")
        if not delete_data:
            say("schema scheduler with all that was recorded, and its queues: ./deploy.sh resumes with them")
        say(*LEFT, self._target.left, *([f"{self.path} with the secrets"] if self.path else []))
        return "Done."

    @property
    def _database(self) -> TargetDatabase:
        return TargetDatabase(self.deployment, self.environment, self.report)

    @property
    def _target(self) -> CloudRun | Container:
        config = self.deployment.config
        if isinstance(config, CloudRunSettings):
            return CloudRun(config, self.deployment, self.report)
        return Container(config, self.deployment, self.path, self.report)

    def _check_settings(self, *, needs_docker: bool) -> None:
        """Reads the settings, and says which database, project and function they are about."""
        self.report.begin("Check prerequisites and settings")
        needed = {"psql": True, "supabase": True, "gcloud": self.kind == "cloud-run", "docker": needs_docker}
        missing = [name for name, is_needed in needed.items() if is_needed and shutil.which(name) is None]
        problems = [f"{name}: not installed, or not on PATH" for name in missing]
        try:
            self._read_settings(notes=True)
        except ConfigError as error:
            problems += error.problems
        _stop_on(problems)
        say(*self.deployment.targets(self._target.place))
        say(f"all settings are usable; secret among them: {' '.join(self.deployment.secrets)}")

    def _read_settings(self, *, notes: bool = False) -> None:
        sources = Sources(self.path, read_env_file(self.path) if self.path else {}, self.environment)
        if notes:
            say(*sources.notes())
        self.deployment = check(self.kind, sources, read_env_file(Path(".env.example")))

    def _check_target(self, *checks: Callable[[], None]) -> None:
        """Until its end nothing is changed; all that is wrong is reported together."""
        self.report.begin("Check credentials, database and project")
        problems = _problems_of(partial(check_secret_key, self.deployment, self.client), self._target.check)
        _stop_on(problems + (_problems_of(self._database.check) or _problems_of(*checks)))
        say("they are as they have to be")

    def _check_rotation(self) -> None:
        if self.path is None:
            raise CheckError("--rotate-tokens needs a file of settings to keep the new tokens in")
        if overriding := [name for name in TOKEN_LISTS if self.environment.get(name)]:
            raise CheckError(f"unset {' and '.join(overriding)}: the environment overrides the file")
        if not self._target.place[0]:
            raise CheckError("FUNCTION_URL: missing; there is no function to rotate the tokens of")

    def _stage(self) -> None:
        self.report.begin("Stage the function")
        self._staged.mkdir()
        for package in ("functions", "shared"):
            left_out = shutil.ignore_patterns("__pycache__", "deployment")
            shutil.copytree(package, self._staged / package, ignore=left_out)
        shutil.copy(LOCK, self._staged / "requirements.txt")
        (self._staged / "main.py").write_text(MAIN, encoding="utf-8")
        say(f"version {VERSION}, {describe(self._fingerprint)}")

    @property
    def _staged(self) -> Path:
        return self.work / "staged"

    @property
    def _fingerprint(self) -> Fingerprint:
        given = {**self.deployment.environment, **self.deployment.secrets}
        return Fingerprint.of(self.deployment.config, given, self._staged)

    def _put_in_service(self) -> SmokeTest | None:
        """Deploys the function with the settings as they are, and has the database call it, if it is running."""
        target, expected = self._target, self._fingerprint
        url = target.deploy(self._staged, expected.code_digest)
        if not url and not self.report.is_dry_run:
            return None
        smoke_test = SmokeTest(url, self.deployment, self.client)
        self.report.begin("Try the function")
        if not self.report.would("wait until it answers with this code and these settings"):
            try:
                smoke_test.wait_until_up(expected)
            except CheckError as error:
                print(f"{error}", file=sys.stderr)
                self._database.show_state()
                advice = f"Where the old one does, change that: {target.serve_command}"
                raise CheckError(f"what was deployed does not answer. {advice}") from error
        self._connect(url)
        return smoke_test

    def _connect(self, function_url: str) -> None:
        self.report.begin("Connect the database to the function")
        self._database.connect(function_url)

    def _rotate_half(self, container: Container) -> str:
        if self.path is None or not is_half_rotated(self.path):
            self._change_tokens(add=True)
            said = "Not done yet: the old tokens are in use. The second half: restart the function, and run this again."
        else:
            url, _ = container.place
            self.report.begin("Try the new tokens")
            try:
                SmokeTest(url, self.deployment, self.client).check_token()
            except CheckError as error:
                raise CheckError(f"{error}; restart the function first: {container.serve_command}") from error
            self._connect(url)
            self._change_tokens(add=False)
            said = "The new tokens are in use. The old ones end when you restart the function once more."
        return f"{said}\n\n   {container.serve_command}"

    def _change_tokens(self, *, add: bool) -> None:
        self.report.begin("Add new tokens" if add else "Take the old tokens out")
        if self.path is None or self.report.would(f"change those in {self.path}"):
            return
        change_tokens(self.path, add=add)
        self._read_settings()
        self._target.write_settings()

    def _ask(self, *, delete_data: bool) -> None:
        self.report.end()
        deletes = " and deletes what they recorded" if delete_data else ""
        print(f"\nThis ends the scheduled runs{deletes} of", flush=True)
        say(*self.deployment.targets(self._target.place))
        print('Type "uninstall" to continue: ', end="", flush=True)
        if sys.stdin.readline().strip() != "uninstall":
            sys.exit("deploy.sh: nothing was done")


def _problems_of(*checks: Callable[[], None]) -> list[str]:
    problems = []
    for check_one in checks:
        try:
            check_one()
        except CheckError as error:
            problems.append(f"{error}")
    return problems


def _stop_on(problems: list[str]) -> None:
    if problems:
        print("\n".join(f"   {line}" for problem in problems for line in problem.splitlines()), file=sys.stderr)
        raise CheckError("nothing was done; fix each line above first")
