"""The licences of what is deployed: `python -m tests.licences` writes their list, as a part of `make lock`.

What is deployed is what requirements.lock pins. Each distribution says its licence in one of three ways that have been
usual over the years; all are brought to SPDX identifiers, and one that is not known here is an error.
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

from packaging.markers import Marker

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "shared" / "deployment" / "requirements.lock"
DOCUMENT = LOCK.with_name("licences.md")

PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?:\s*;\s*([^\\]+?))?\s*\\?$", re.MULTILINE)
# What distributions write in the field `License` and in classifiers, where they have no licence expression.
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2": "Apache-2.0",
    "Apache-2.0": "Apache-2.0",
    "BSD-3-Clause": "BSD-3-Clause",
    "MIT": "MIT",
    "MIT License": "MIT",
    "MPL-2.0": "MPL-2.0",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: MIT License": "MIT",
}
# Whose metadata say less than their licence files do.
READ_IN_THEIR_FILES = {"pyreqwest": "Apache-2.0", "uvloop": "MIT OR Apache-2.0"}
# What a service may be built on without giving its own source away.
ACCEPTED = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0"}

HEAD = """\
# Licences of what is deployed

For a reviewer of licences, before the function is deployed or passed on. Written by `make lock` from the metadata of
the packages that [the lock](requirements.lock) pins. This project's own licence is
[MIT](../../LICENSE). None of these requires the source of a service that uses them; what is under MPL-2.0 is used
unchanged.

| package | version | licence |
|---|---|---|
"""


def pinned(lock: str) -> dict[str, str]:
    """The versions by the names that a lock pins for this platform."""
    return {
        name: version
        for name, version, marker in PINNED.findall(lock)
        if not marker or Marker(marker.strip()).evaluate()
    }


def licence(name: str) -> str:
    """Returns the SPDX expression of an installed distribution's licence; raises ValueError if it is not known here."""
    if name in READ_IN_THEIR_FILES:
        return READ_IN_THEIR_FILES[name]
    metadata = importlib.metadata.metadata(name)
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = [text for text in metadata.get_all("Classifier") or [] if text.startswith("License :: OSI Approved")]
    said = metadata["License"].strip() if "License" in metadata else ""
    for text in (said, *classifiers):
        if text in SPDX:
            return SPDX[text]
    raise ValueError(f"{name}: expected a licence that is known here, found {[said[:60], *classifiers]}")


def document(lock: str) -> str:
    """Returns the text of the list; raises ValueError if a licence is not known, or not acceptable."""
    lines = []
    for name, version in sorted(pinned(lock).items()):
        expression = licence(name)
        # Also where there is a choice: the next release may choose otherwise.
        if set(re.findall(r"[\w.+-]+", expression)) - {"AND", "OR"} - ACCEPTED:
            raise ValueError(f"{name}: expected one of {', '.join(sorted(ACCEPTED))}, found {expression}")
        lines.append(f"| {name} | {version} | {expression} |\n")
    return HEAD + "".join(lines)


if __name__ == "__main__":
    DOCUMENT.write_text(document(LOCK.read_text(encoding="utf-8")), encoding="utf-8")
