"""What runs: a digest of the code, one of the settings in effect, and the schedule. deploy.sh waits for new ones."""

from __future__ import annotations

import hmac
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr

from shared.config import ScenarioEvaluationConfig

ROOT = Path(__file__).parents[1]
# Read by telemetry itself.
OF_TELEMETRY = re.compile(r"OTEL_[A-Z0-9_]+")
# Compiled code differs between machines; the second is not deployed.
_LEFT_OUT = {"__pycache__", "deployment"}


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The digests have 40 hexadecimal digits: few enough for a label of Cloud Run."""

    code_digest: str
    settings_digest: str
    schedule: str

    @classmethod
    def of(cls, config: ScenarioEvaluationConfig, environment: Mapping[str, str], root: Path = ROOT) -> Self:
        """Reads the code as it is now.

        Args:
            environment: telemetry's variables are taken from it.
            root: the folder with `functions` and `shared`.
        """
        return cls(_digest_code(root), _digest_settings(config, environment), str(config.schedule))

    def __str__(self) -> str:
        """Returns the beginnings of both digests."""
        return f"code {self.code_digest[:12]}, settings {self.settings_digest[:12]}"


def _digest_code(root: Path) -> str:
    # With os.walk and texts: it takes a third of pathlib's time, and every start of the function waits for it.
    names = ["requirements.txt"] if (root / "requirements.txt").exists() else []
    for package in ("functions", "shared"):
        for folder, folders, files in os.walk(root / package):
            folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith(".")]
            within = Path(folder).relative_to(root).as_posix()
            names += [f"{within}/{name}" for name in files if not name.startswith(".")]
    digest = sha256()
    for name in sorted(names):
        content = (root / name).read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:40]


def _digest_settings(config: ScenarioEvaluationConfig, environment: Mapping[str, str]) -> str:
    """Returns a digest keyed with the secret key, which callers lack: without it, settings could be found by trying."""
    values: dict[str, Any] = {name.upper(): getattr(config, name) for name in ScenarioEvaluationConfig.model_fields}
    given = {name: text.strip() for name, text in environment.items() if OF_TELEMETRY.fullmatch(name) and text.strip()}
    text = json.dumps(given | values, sort_keys=True, default=_to_json)
    return hmac.digest(config.supabase_secret_key.get_secret_value().encode(), text.encode(), "sha256").hex()[:40]


def _to_json(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value.model_dump(mode="json")
