"""`python -m shared.deployment`: carries out one step of deploy.sh; problems go to standard error, one a line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from shared.deployment.cloud_run import CloudRun
from shared.deployment.database import TargetDatabase
from shared.deployment.env_file import TOKEN_LISTS, change_tokens, read_env_file
from shared.deployment.http_call import describe_problem, send
from shared.deployment.report import CheckError, say
from shared.deployment.settings import TARGETS, CloudRunSettings, ContainerSettings, Deployment, Sources, check
from shared.deployment.smoke_test import SmokeTest, describe
from shared.errors import ConfigError
from shared.fingerprint import Fingerprint
from shared.version import VERSION


def main() -> None:
    """Carries out one command; a problem ends the program with 1."""
    parser = argparse.ArgumentParser(prog="python -m shared.deployment", description=__doc__)
    parser.add_argument("--target", choices=sorted(TARGETS), required=True)
    parser.add_argument("--env-file", type=Path, help="a file of settings; the environment overrides it")
    parser.add_argument("--work", type=Path, required=True, help="where a command leaves what later ones need")
    parser.add_argument("--dry-run", action="store_true", help="report what would be done")
    parser.add_argument("command")
    parser.add_argument("argument", nargs="?", default="")
    options = parser.parse_args()
    try:
        sources = Sources(options.env_file, read_env_file(options.env_file) if options.env_file else {}, os.environ)
        if options.command == "settings":
            say(*sources.notes())
        deployment = check(options.target, sources.merged, read_env_file(Path(".env.example")))
        # Uncompressed answers: the limit of their length is one of what is received.
        with httpx.Client(headers={"Accept-Encoding": "identity"}) as client:
            steps = _Steps(options.work, options.dry_run, sources, deployment, client)
            steps.carry_out(options.command, options.argument)
    except ConfigError as error:
        sys.exit("\n".join(error.problems))
    except CheckError as error:
        sys.exit(str(error))


@dataclass(frozen=True, slots=True)
class _Steps:
    """`work` holds the staged folder, and in `facts` a file for each text that deploy.sh or a later command needs."""

    work: Path
    is_dry_run: bool
    sources: Sources
    deployment: Deployment
    client: httpx.Client

    def carry_out(self, command: str, argument: str) -> None:
        deployment = self.deployment
        database = TargetDatabase(deployment, self.sources.environment, self.is_dry_run)
        match command:
            case "settings":
                for name, text in deployment.facts(self.sources).items():
                    self._keep(name, text)
                say(*deployment.describe_target(self.sources))
                say(f"all settings are usable; secret among them: {' '.join(deployment.secrets)}")
            case "check":
                self._check(database, argument)
            case "digests":
                say(f"version {VERSION}, {describe(self._fingerprint())}")
            case "migrate":
                database.migrate(self.work / "project")
            case "prepare-schedule":
                database.prepare_schedule()
            case "connect":
                database.connect(self._kept("function_url"))
            case "disconnect":
                database.disconnect()
            case "delete-data":
                database.delete_data()
            case "state":
                database.show_state()
            case "add-tokens" | "keep-newest-tokens":
                change_tokens(Path(f"{self.sources.path}"), add=command == "add-tokens")
            case "write-environment":
                path = self.sources.container_path
                path.touch()
                path.chmod(0o600)
                path.write_text(deployment.in_docker_format(), encoding="utf-8")
            case "up":
                self._smoke_test().wait_until_up(self._fingerprint())
            case "check-token":
                self._smoke_test().check_token()
            case "smoke-test":
                self._smoke_test().dry_run()
            case _:
                self._change_cloud(command)

    def _change_cloud(self, command: str) -> None:
        cloud = self._cloud()
        match command:
            case "prepare-cloud":
                self._keep("set_secrets", cloud.prepare())
            case "deploy-cloud":
                url = cloud.deploy(self.work / "staged", self._fingerprint().code_digest, self._kept("set_secrets"))
                self._keep("function_url", url)
            case "destroy-old-secrets":
                cloud.destroy_old_secrets()
            case "remove-from-cloud":
                cloud.remove()
            case unknown:
                raise CheckError(f"expected a step of deploy.sh, found {unknown}")

    def _check(self, database: TargetDatabase, action: str) -> None:
        """Raises ConfigError with all that stands in the way of the action; nothing is changed until then."""
        checks: list[Callable[[], None]] = [self._try_secret_key, partial(database.check, view=action == "deploy")]
        if isinstance(self.deployment.config, CloudRunSettings):
            checks.append(self._cloud().check_project)
        if action == "rotate":
            checks += [database.check_installed, self._check_rotation]
        problems = []
        for each in checks:
            try:
                each()
            except CheckError as error:
                problems.append(f"{error}")
        if problems:
            raise ConfigError(problems)

    def _check_rotation(self) -> None:
        if self.sources.path is None:
            raise CheckError("--rotate-tokens needs a file of settings to keep the new tokens in")
        if overriding := [name for name in TOKEN_LISTS if self.sources.environment.get(name)]:
            raise CheckError(f"unset {' and '.join(overriding)}: the environment overrides the file")
        if isinstance(self.deployment.config, ContainerSettings) and not self.deployment.config.function_url:
            raise CheckError("FUNCTION_URL: missing; there is no function to rotate the tokens of")

    def _try_secret_key(self) -> None:
        url, key = self.deployment.config.supabase_url, self.deployment.config.supabase_secret_key.get_secret_value()
        # An opaque key is no bearer token; a legacy one is both.
        headers = {"apikey": key} | ({} if key.startswith("sb_") else {"Authorization": f"Bearer {key}"})
        try:
            answer = send(self.client, "GET", f"{url}/rest/v1/", headers=headers, timeout=20)
        except CheckError as error:
            raise CheckError(f"SUPABASE_URL: {error}") from error
        if answer.status_code in (401, 403):
            problem = describe_problem(answer, self.deployment.secrets)
            raise CheckError(f"SUPABASE_SECRET_KEY: refused by {url} ({problem})")
        if answer.status_code == 404:
            raise CheckError(f"SUPABASE_URL: {url} has no Data API at /rest/v1/ (404)")

    def _cloud(self) -> CloudRun:
        if not isinstance(self.deployment.config, CloudRunSettings):
            raise CheckError("expected --target cloud-run")
        return CloudRun(self.deployment.config, self.deployment, self.is_dry_run)

    def _smoke_test(self) -> SmokeTest:
        return SmokeTest(self._kept("function_url"), self.deployment, self.client)

    def _fingerprint(self) -> Fingerprint:
        given = {**self.deployment.environment, **self.deployment.secrets}
        return Fingerprint.of(self.deployment.config, given, self.work / "staged")

    def _keep(self, name: str, text: str) -> None:
        (self.work / "facts" / name).write_text(text, encoding="utf-8")

    def _kept(self, name: str) -> str:
        return (self.work / "facts" / name).read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
