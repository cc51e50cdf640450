"""The function on Google Cloud Run, by gcloud: services, account, secrets, revisions. What is there is left alone."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from shared.deployment.report import CheckError, Report, say
from shared.deployment.settings import REQUEST_MARGIN_SECONDS, CloudRunSettings, Deployment

# Calls that are no slices: an operator's, a monitor's.
INSTANCES_BESIDE_WORKERS = 4
SERVICES = ("run", "cloudbuild", "artifactregistry", "secretmanager")
STATE = (
    'value[separator="|"](metadata.labels.source_digest,metadata.labels.options_digest,'
    "status.latestCreatedRevisionName,status.latestReadyRevisionName)"
)
READER = "roles/secretmanager.secretAccessor"
# An account that was just created is not known everywhere at once.
PAUSES = (3, 6, 9, 12, None)


@dataclass(frozen=True, slots=True)
class CloudRun:
    """Raises CheckError where gcloud fails, which says why itself. A dry run reports what it would change."""

    config: CloudRunSettings
    deployment: Deployment
    report: Report
    sleep: Callable[[float], None] = time.sleep

    left = "in Google Cloud the images and uploaded sources of its builds, its logs, the services that were enabled"

    @property
    def place(self) -> tuple[str, str]:
        """Returns where the function is, and the setting that says so."""
        config = self.config
        where = f"{config.function_name} in {config.google_cloud_project}, {config.google_cloud_region}"
        return where, "GOOGLE_CLOUD_PROJECT"

    @property
    def serve_command(self) -> str:
        """Returns the command that has what was deployed answer."""
        update = ("run", "services", "update-traffic", self.config.function_name)
        return shlex.join(self._command((*update, "--to-latest", f"--region={self.config.google_cloud_region}")))

    def check(self) -> None:
        """Checks that gcloud may look at the project."""
        ran = self._run(("projects", "describe", self.config.google_cloud_project), stderr=subprocess.PIPE)
        if ran.returncode:
            raise CheckError(f"gcloud: {ran.stderr.strip()}")

    def deploy(self, staged: Path, code_digest: str) -> str:
        """Deploys code or settings, whichever changed, and returns the function's URL; an empty one in a dry run."""
        self.report.begin("Prepare Google Cloud: services, account, secrets")
        secrets = self._prepare()
        self.report.begin("Deploy the function to Cloud Run")
        config, name = self.config, self.config.function_name
        options = [
            f"--region={config.google_cloud_region}",
            f"--service-account={self._account}",
            f"--set-secrets={secrets}",
            "--cpu=1",
            f"--memory={config.function_memory}",
            f"--concurrency={config.function_concurrency}",
            f"--timeout={config.time_budget_seconds + REQUEST_MARGIN_SECONDS}",
            f"--max-instances={config.function_max_instances or config.max_workers + INSTANCES_BESIDE_WORKERS}",
        ]
        # Cloud Run's image starts functions-framework by itself, which reads FUNCTION_USE_ASGI.
        environment = json.dumps({**self.deployment.environment, "FUNCTION_USE_ASGI": "true"}, indent=1)
        options_digest = sha256(json.dumps([options, environment]).encode()).hexdigest()[:40]
        path = staged.parent / "environment.json"
        path.write_text(environment, encoding="utf-8")
        options.append(f"--env-vars-file={path}")
        options.append(f"--update-labels=source_digest={code_digest},options_digest={options_digest}")
        source, deployed_options, created, ready = (self._describe(STATE) or "|||").split("|")
        # A revision that did not become ready is no reason to believe its labels.
        if not ready or created != ready or source != code_digest:
            # Public, because pg_net cannot get an identity token from Google: the function has tokens of its own.
            how = (f"--source={staged}", "--function=handle_scheduled_invocation", "--base-image=python311")
            self._change("run", "deploy", name, *how, "--allow-unauthenticated", *options)
        elif deployed_options != options_digest:
            self._change("run", "services", "update", name, *options)
        else:
            say("nothing has changed since it was deployed")
        return "" if self.report.is_dry_run else self._describe("value(status.url)") or ""

    def write_settings(self) -> None:
        """Has nothing to write: they are deployed."""

    def clean_up(self) -> None:
        """Destroys superseded versions: they should open nothing any more. A rolled-back deployment makes its own."""
        for secret in map(self._secret, self.deployment.secrets):
            for version in (self._versions(secret) or [])[1:]:
                self._change("secrets", "versions", "destroy", version, f"--secret={secret}")

    def remove(self) -> None:
        """Removes service, secrets and account."""
        self.report.begin("Remove the function from Google Cloud")
        region = f"--region={self.config.google_cloud_region}"
        name = self.config.function_name
        # All lists come first: one that cannot be read must not pass for an empty one.
        services = self._read("run", "services", "list", region, "--format=value(metadata.name)").split()
        secrets = self._read("secrets", "list", "--format=value(name.basename())").split()
        accounts = self._read("iam", "service-accounts", "list", "--format=value(email)").split()
        if name in services:
            self._change("run", "services", "delete", name, region)
        for secret in secrets:
            if re.fullmatch(f"{name}-[A-Z_]+", secret):
                self._change("secrets", "delete", secret)
        if self._account in accounts:
            self._change("iam", "service-accounts", "delete", self._account)

    def _prepare(self) -> str:
        """Enables the services, creates the account and the secrets; returns those with their versions, for gcloud."""
        enabled = self._read("services", "list", "--enabled", "--format=value(config.name)").split()
        for service in (f"{name}.googleapis.com" for name in SERVICES):
            if service not in enabled:
                self._change("services", "enable", service)
        # It may read the secrets below and nothing else: the project's default account may edit everything.
        if self._find("iam", "service-accounts", "describe", self._account) is None:
            title = "--display-name=Scenario evaluation scheduler"
            self._change("iam", "service-accounts", "create", self.config.function_name, title)
        return ",".join(f"{name}={self._secret(name)}:{self._prepare_secret(name)}" for name in self.deployment.secrets)

    @property
    def _account(self) -> str:
        return f"{self.config.function_name}@{self.config.google_cloud_project}.iam.gserviceaccount.com"

    def _secret(self, name: str) -> str:
        return f"{self.config.function_name}-{name}"

    def _prepare_secret(self, name: str) -> str:
        """Returns its newest version, which the account may read."""
        secret, value = self._secret(name), self.deployment.secrets[name]
        readers, versions = "", self._versions(secret)
        if versions is None:
            self._change("secrets", "create", secret, "--replication-policy=automatic")
        else:
            which = ("--flatten=bindings[].members", f"--filter=bindings.role:{READER}")
            readers = self._read("secrets", "get-iam-policy", secret, *which, "--format=value(bindings.members)")
        member = f"serviceAccount:{self._account}"
        for pause in PAUSES if member not in readers.split() else ():
            try:
                self._change("secrets", "add-iam-policy-binding", secret, f"--member={member}", f"--role={READER}")
                break
            except CheckError:
                if pause is None:
                    raise
                self.sleep(pause)
        if versions and self._find("secrets", "versions", "access", versions[0], f"--secret={secret}") == value:
            return versions[0]
        added = ("secrets", "versions", "add", secret, "--data-file=-", "--format=value(name.basename())")
        return self._change(*added, given=value).strip() or "new"

    def _versions(self, secret: str) -> list[str] | None:
        """Returns the enabled ones, the newest first, or None where there is no such secret."""
        enabled = ("--filter=state:ENABLED", "--format=value(name.basename())")
        found = self._find("secrets", "versions", "list", secret, *enabled)
        return None if found is None else found.split()

    def _describe(self, what: str) -> str | None:
        region = f"--region={self.config.google_cloud_region}"
        found = self._find("run", "services", "describe", self.config.function_name, region, f"--format={what}")
        return found and found.strip()

    def _change(self, *words: str, given: str = "") -> str:
        return "" if self.report.would_run(self._command(words)) else self._read(*words, given=given)

    def _command(self, words: Sequence[str]) -> list[str]:
        return ["gcloud", *words, f"--project={self.config.google_cloud_project}", "--quiet"]

    def _find(self, *words: str) -> str | None:
        """Returns what gcloud prints, or None where it fails, as where nothing is found."""
        ran = self._run(words, stderr=subprocess.DEVNULL)
        return None if ran.returncode else ran.stdout

    def _read(self, *words: str, given: str = "") -> str:
        ran = self._run(words, given)
        if ran.returncode:
            raise CheckError(f"gcloud {' '.join(words[:3])}: failed, see above")
        return ran.stdout

    def _run(
        self, words: Sequence[str], given: str = "", stderr: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(words), input=given, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
        )
