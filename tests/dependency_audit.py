"""Asks OSV whether anything that is installed here has a known vulnerability: `python -m tests.dependency_audit`.

Everything is asked about, the function's own packages and the tools', with all that they bring along, in one request.
Exit code 0: nothing is known. 1: something is, or the service's answer makes no sense. A service that is not reachable
is said plainly and is no failure, since nobody's change has caused it, unless `--required`, for a nightly job.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

SERVICE = "https://api.osv.dev"
TIMEOUT_SECONDS = 20.0
# Vulnerabilities that do not concern us, by their id, with the reason.
ACCEPTED: Mapping[str, str] = {}


class UnreachableError(Exception):
    """Nobody answered, so nothing is known."""


def installed() -> dict[str, str]:
    """The version of every distribution in this environment."""
    return {
        re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): found.version
        for found in importlib.metadata.distributions()
    }


async def vulnerabilities(packages: Mapping[str, str], service: str = SERVICE) -> dict[str, list[str]]:
    """The ids of the known vulnerabilities of these packages, by `name version`; those without one are left out.

    Args:
        packages: versions by names.
        service: where to ask.

    Raises:
        UnreachableError: the service did not answer, or not now.
        ValueError: what it answered is no answer.
    """
    queries = [
        {"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in packages.items()
    ]
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
            response = await client.post(f"{service}/v1/querybatch", json={"queries": queries})
    except httpx.TransportError as error:
        raise UnreachableError(f"{service} cannot be reached ({type(error).__name__})") from error
    if response.status_code != httpx.codes.OK:
        raise UnreachableError(f"{service} answered {response.status_code}")
    results: Any = response.json().get("results")
    if not isinstance(results, list) or len(results) != len(queries):
        raise ValueError(f"expected {len(queries)} results of {service}, found {str(results)[:80]}")
    return {
        f"{name} {version}": sorted(found)
        for (name, version), result in zip(packages.items(), results, strict=True)
        if (found := {vulnerability["id"] for vulnerability in result.get("vulns", [])} - ACCEPTED.keys())
    }


def main(arguments: Sequence[str] | None = None, *, service: str = SERVICE) -> int:
    """Audits this environment, says what came of it, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.dependency_audit", description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail when the service cannot be reached")
    required: bool = parser.parse_args(arguments).required
    packages = installed()
    try:
        found = asyncio.run(vulnerabilities(packages, service))
    except UnreachableError as error:
        print(f"dependencies were NOT audited: {error}", file=sys.stderr)
        return int(required)
    except ValueError as error:
        print(f"dependencies were NOT audited: {error}", file=sys.stderr)
        return 1
    for package, ids in found.items():
        print(f"{package}: {', '.join(ids)}", file=sys.stderr)
    print(f"audited {len(packages)} dependencies: {len(found)} with known vulnerabilities")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
