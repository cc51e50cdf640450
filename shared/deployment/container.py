"""The function as a container: its image, and a file of the settings that it needs. Its operator starts it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shared.deployment.report import CheckError, Report, say
from shared.deployment.settings import ContainerSettings, Deployment
from shared.version import VERSION

DOCKERFILE = Path("shared/deployment/Dockerfile")


@dataclass(frozen=True, slots=True)
class Container:
    """`path` is the file of settings, if there is one. A dry run reports what it would change."""

    config: ContainerSettings
    deployment: Deployment
    path: Path | None
    report: Report

    left = "the container, which is yours to stop, its image, and the file of its settings"

    @property
    def place(self) -> tuple[str, str]:
        """Returns where the function is, empty before it is started, and the setting that says so."""
        return self.config.function_url or "", "FUNCTION_URL"

    @property
    def serve_command(self) -> str:
        """Returns the command that has what was deployed answer."""
        return f"docker run --rm --env-file {shlex.quote(str(self._settings_file))} --publish 8080:8080 {self._image}"

    def check(self) -> None:
        """Has nothing to check: docker says itself what it lacks."""

    def deploy(self, staged: Path, _code_digest: str) -> str:
        """Builds the image and writes the settings; returns where the function answers, or an empty text."""
        self.report.begin("Build the image")
        shutil.copy(DOCKERFILE, staged)
        self._docker("build", "--tag", self._image, str(staged))
        if self.config.image:
            self._docker("push", self._image)
        self.write_settings()
        if self.config.function_url:
            say("restart the function with this image and these settings, for example:", self.serve_command)
        return self.config.function_url or ""

    def write_settings(self) -> None:
        """Writes what the function reads, each as a line that `docker run --env-file` takes as it is."""
        if self.report.would(f"write the function's settings into {self._settings_file}"):
            return
        self._settings_file.touch(mode=0o600)
        self._settings_file.chmod(0o600)
        settings = {**self.deployment.environment, **self.deployment.secrets}
        lines = (f"{name}={text}\n" for name, text in sorted(settings.items()))
        self._settings_file.write_text("".join(lines), encoding="utf-8")
        say(f"the function's settings are in {self._settings_file}")

    def clean_up(self) -> None:
        """Has nothing to clean up."""

    def remove(self) -> None:
        """Leaves the container to its operator."""

    @property
    def _image(self) -> str:
        return self.config.image or f"scenario-evaluation-scheduler:{VERSION}"

    @property
    def _settings_file(self) -> Path:
        """Beside those of the deployment."""
        return Path(f"{self.path or Path('.env').absolute()}.container")

    def _docker(self, *words: str) -> None:
        argv = ["docker", *words]
        if not self.report.would_run(argv) and subprocess.run(argv, check=False).returncode:
            raise CheckError(f"docker {words[0]}: failed, see above")
