"""Checks with OSV whether anything installed here has a known vulnerability: `python -m tests.dependency_audit`.

Exit code 0: nothing is known. 1: something is, or the service's answer makes no sense. A service that is not reachable
is reported and is no failure, since no change of ours has caused it, unless `--required`, for a scheduled job.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import sys
from collections.abc import Mapping
from typing import Any

import httpx

SERVICE = "https://api.osv.dev"
# Vulnerabilities that do not concern us, by their id, with the reason.
ACCEPTED: Mapping[str, str] = {}


def main(arguments: list[str]) -> int:
    """Audits this environment, says what came of it, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.dependency_audit")
    parser.add_argument("--required", action="store_true", help="fail where the service is away")
    is_required = parser.parse_args(arguments).required
    packages = {
        re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): found.version
        for found in importlib.metadata.distributions()
    }
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": packages[name]} for name in packages]
    try:
        response = httpx.post(f"{SERVICE}/v1/querybatch", json={"queries": queries}, timeout=20)
        response.raise_for_status()
    except httpx.HTTPError as error:
        print(f"dependencies were NOT audited: {SERVICE}: {error}", file=sys.stderr)
        return int(is_required)
    results: list[dict[str, Any]] = response.json()["results"]
    vulnerable = 0
    for (name, version), result in zip(packages.items(), results, strict=True):
        if ids := {vulnerability["id"] for vulnerability in result.get("vulns", [])} - ACCEPTED.keys():
            vulnerable += 1
            print(f"{name} {version}: {', '.join(sorted(ids))}", file=sys.stderr)
    print(f"audited {len(packages)} dependencies: {vulnerable} with known vulnerabilities")
    return int(bool(vulnerable))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
