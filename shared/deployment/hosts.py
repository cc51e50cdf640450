"""Where the function runs: on Google Cloud Run, or as a container that its operator starts. What is there stays."""

from __future__ import annotations

import json
import shlex
import shutil
from hashlib import sha256
from pathlib import Path
from subprocess import DEVNULL

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_incrementing

from shared.deployment.report import CheckError, Report, run, say
from shared.deployment.settings import REQUEST_MARGIN_SECONDS, CloudRunSettings, ContainerSettings, Deployment
from shared.version import VERSION

SERVICES = [f"{name}.googleapis.com" for name in ("run", "cloudbuild", "artifactregistry", "secretmanager")]
STATE = (
    'value[separator="|"](metadata.labels.source_digest,metadata.labels.options_digest,'
    "status.latestCreatedRevisionName,status.latestReadyRevisionName)"
)
# An account that was just created is not known everywhere at once.
UNTIL_KNOWN = Retrying(
    retry=retry_if_exception_type(CheckError), stop=stop_after_attempt(5), wait=wait_incrementing(3, 3), reraise=True
)


class Container:
    """An image, and a file of the settings that the function needs; `place` is empty before it is started."""

    left = "the container, which is yours to stop, its image, and the file of its settings"

    def __init__(self, config: ContainerSettings, deployment: Deployment, report: Report) -> None:
        self._config, self._deployment, self._report = config, deployment, report
        self._image = config.image or f"scenario-evaluation-scheduler:{VERSION}"
        self._file = Path(f"{deployment.path or Path('.env').absolute()}.container")
        self.place = config.function_url or ""
        env_file = shlex.quote(f"--env-file={self._file}")
        self.serve_command = f"docker run --rm {env_file} --publish=8080:8080 {self._image}"

    def check(self) -> None:
        """Does nothing: docker says itself what it lacks, and the rest is the operator's."""

    clean_up = remove = check

    def deploy(self, staged: Path, _code_digest: str) -> str:
        """Builds the image and writes the settings; returns the `place`."""
        self._report.begin("Build the image")
        shutil.copy("shared/deployment/Dockerfile", staged)
        self._report.run("docker", "build", "--tag", self._image, str(staged))
        if self._config.image:
            self._report.run("docker", "push", self._image)
        # Each as a line that `docker run --env-file` takes as it is.
        settings = sorted({**self._deployment.environment, **self._deployment.secrets}.items())
        if not self._report.is_dry_run:
            self._file.touch(mode=0o600)
            self._file.write_text("".join(f"{name}={text}\n" for name, text in settings), encoding="utf-8")
        if self.place:
            say("restart the function with this image and these settings, for example:", self.serve_command)
        return self.place


class CloudRun:
    """By gcloud, which says itself why it fails; then this raises CheckError."""

    left = "in Google Cloud the images and uploaded sources of its builds, its logs, the services that were enabled"

    def __init__(self, config: CloudRunSettings, deployment: Deployment, report: Report) -> None:
        self._config, self._report, self._secrets = config, report, deployment.secrets
        # Cloud Run's image starts functions-framework by itself, which reads FUNCTION_USE_ASGI.
        self._environment = json.dumps({**deployment.environment, "FUNCTION_USE_ASGI": "true"}, indent=1)
        self._name, self._region = config.function_name, f"--region={config.google_cloud_region}"
        self._account = f"{self._name}@{config.google_cloud_project}.iam.gserviceaccount.com"
        self.place = f"{self._name} in {config.google_cloud_project}, {config.google_cloud_region}"
        words = "run", "services", "update-traffic", self._name, "--to-latest", self._region
        self.serve_command = shlex.join(self._command(*words))

    def check(self) -> None:
        """Checks that gcloud may look at the project."""
        self._list("projects", "describe", self._config.google_cloud_project)

    def deploy(self, staged: Path, code_digest: str) -> str:
        """Deploys code or settings, whichever changed, and returns the function's URL; an empty one in a dry run."""
        self._report.begin("Prepare Google Cloud: services, account, secrets")
        secrets = self._prepare()
        self._report.begin("Deploy the function to Cloud Run")
        config = self._config
        options = [
            self._region,
            f"--service-account={self._account}",
            f"--set-secrets={secrets}",
            "--cpu=1",
            f"--memory={config.function_memory}",
            f"--concurrency={config.function_concurrency}",
            f"--timeout={config.time_budget_seconds + REQUEST_MARGIN_SECONDS}",
            # Four for calls that are no slices: an operator's, a monitor's.
            f"--max-instances={config.function_max_instances or config.max_workers + 4}",
        ]
        digest = sha256(json.dumps([options, self._environment]).encode()).hexdigest()[:40]
        path = staged.parent / "environment.json"
        path.write_text(self._environment, encoding="utf-8")
        options += [f"--env-vars-file={path}", f"--update-labels=source_digest={code_digest},options_digest={digest}"]
        source, deployed_options, created, ready = (self._describe(STATE) or "|||").split("|")
        # A revision that did not become ready is no reason to believe its labels.
        if not ready or created != ready or source != code_digest:
            options += [f"--source={staged}", "--function=handle_scheduled_invocation", "--base-image=python311"]
            # Public, because pg_net cannot get an identity token from Google: the function has tokens of its own.
            self._change("run", "deploy", self._name, "--allow-unauthenticated", *options)
        elif deployed_options != digest:
            self._change("run", "services", "update", self._name, *options)
        else:
            say("nothing has changed since it was deployed")
        return "" if self._report.is_dry_run else self._describe("value(status.url)")

    def clean_up(self) -> None:
        """Destroys superseded versions: they should open nothing any more. A rolled-back deployment makes its own."""
        for secret in (f"{self._name}-{name}" for name in self._secrets):
            for version in self._versions(secret)[1:]:
                self._change("secrets", "versions", "destroy", version, f"--secret={secret}")

    def remove(self) -> None:
        """Removes service, secrets and account."""
        self._report.begin("Remove the function from Google Cloud")
        # All lists come first: one that cannot be read must not pass for an empty one.
        services = self._list("run", "services", "list", self._region, "--format=value(metadata.name)")
        secrets = self._list("secrets", "list", "--format=value(name.basename())")
        accounts = self._list("iam", "service-accounts", "list", "--format=value(email)")
        if self._name in services:
            self._change("run", "services", "delete", self._name, self._region)
        for secret in secrets:
            if secret.startswith(f"{self._name}-") and secret.removeprefix(f"{self._name}-").isupper():
                self._change("secrets", "delete", secret)
        if self._account in accounts:
            self._change("iam", "service-accounts", "delete", self._account)

    def _prepare(self) -> str:
        """Enables the services, creates the account and the secrets; returns those with their versions, for gcloud."""
        enabled = self._list("services", "list", "--enabled", "--format=value(config.name)")
        if missing := [service for service in SERVICES if service not in enabled]:
            self._change("services", "enable", *missing)
        # It may read the secrets below and nothing else: the project's default account may edit everything.
        if not self._find("iam", "service-accounts", "describe", self._account):
            title = "--display-name=Scenario evaluation scheduler"
            self._change("iam", "service-accounts", "create", self._name, title)
        return ",".join(f"{name}={self._name}-{name}:{self._prepare_secret(name)}" for name in self._secrets)

    def _prepare_secret(self, name: str) -> str:
        """Returns its newest version, which the account may read."""
        secret, value = f"{self._name}-{name}", self._secrets[name]
        versions = self._versions(secret)
        if versions and self._find("secrets", "versions", "access", versions[0], f"--secret={secret}") == value:
            return versions[0]
        if not versions:
            if not self._find("secrets", "describe", secret):
                self._change("secrets", "create", secret, "--replication-policy=automatic")
            # Before the first version: a secret that has one can be read.
            reader = (f"--member=serviceAccount:{self._account}", "--role=roles/secretmanager.secretAccessor")
            UNTIL_KNOWN(self._change, "secrets", "add-iam-policy-binding", secret, *reader)
        added = ("secrets", "versions", "add", secret, "--data-file=-", "--format=value(name.basename())")
        return self._change(*added, given=value).strip() or "new"

    def _versions(self, secret: str) -> list[str]:
        """Returns the enabled ones, the newest first."""
        enabled = ("--filter=state:ENABLED", "--format=value(name.basename())")
        return self._find("secrets", "versions", "list", secret, *enabled).split()

    def _describe(self, what: str) -> str:
        return self._find("run", "services", "describe", self._name, self._region, f"--format={what}")

    def _change(self, *words: str, given: str = "") -> str:
        return self._report.run(*self._command(*words), given=given)

    def _find(self, *words: str) -> str:
        """Returns what gcloud prints, or an empty text where it fails, as where nothing is found."""
        try:
            return run(self._command(*words), stderr=DEVNULL).strip()
        except CheckError:
            return ""

    def _list(self, *words: str) -> list[str]:
        return run(self._command(*words)).split()

    def _command(self, *words: str) -> list[str]:
        return ["gcloud", *words, f"--project={self._config.google_cloud_project}", "--quiet"]
