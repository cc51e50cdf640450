"""Examines an engine, and says what of the contract it keeps."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .engine import Engine
from .examination import examine
from .rules import Finding, judge

TOKEN = "SCENARIO_ENGINE_TOKEN"
EPILOG = f"""
The token is read from the environment: {TOKEN}.
Unless --dry-run-only is given, those of the first six users whom a scenario applies to are NOTIFIED, the first five of
them once more where no cool-down forbids it: give test users.
Exit code: 0 if every rule that could be judged is kept, 1 if not, 2 if nothing could be asked.
For how long an engine keeps keys cannot be seen from outside.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; answers its exit code."""
    options = _parser().parse_args(arguments)
    token = os.environ.get(TOKEN, "")
    users = _listed(options.user_ids)
    if not token or not users:
        what = f"{TOKEN} in the environment" if not token else "at least one user id"
        sys.stderr.write(f"expected {what}, found none\n")
        return 2
    findings = asyncio.run(_examined(options, token, users))
    sys.stdout.write(_in_json(findings) if options.json else _in_lines(findings))
    return 1 if any(finding.verdict == "FAIL" for finding in findings) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.engine_conformance",
        description="Does a scenario trigger engine keep docs/engine-contract.md?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", help="the engine's base URL: /v1/evaluations is added")
    parser.add_argument(
        "--user-ids", required=True, metavar="ID,…|@FILE", help="users whom the engine knows; best a hundred or more"
    )
    parser.add_argument("--scenario-types", required=True, metavar="TYPE,…", help="types that the engine knows")
    parser.add_argument("--dry-run-only", action="store_true", help="notify nobody; repetition cannot be judged then")
    parser.add_argument("--timeout", type=float, default=10, metavar="S", help="seconds for a call (10)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    return parser


def _listed(text: str) -> list[str]:
    """Ids, separated by commas or white space, each once."""
    content = Path(text[1:]).read_text() if text.startswith("@") else text
    return list(dict.fromkeys(content.replace(",", " ").split()))


async def _examined(options: argparse.Namespace, token: str, users: Sequence[str]) -> list[Finding]:
    engine = Engine(options.url, token, timeout_seconds=options.timeout)
    try:
        transcript = await examine(
            engine, users=users, scenario_types=_listed(options.scenario_types), dry_run_only=options.dry_run_only
        )
    finally:
        await engine.aclose()
    return list(judge(transcript))


def _in_json(findings: Sequence[Finding]) -> str:
    return json.dumps({**_numbers(findings), "findings": [asdict(finding) for finding in findings]}, indent=2) + "\n"


def _in_lines(findings: Sequence[Finding]) -> str:
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.verdict:<10}  {finding.rule}: {finding.demands}")
        lines += [f"{'':12}found: {finding.found}"] if finding.found else []
        lines += [f"{'':12}to do: {finding.fix}"] if finding.fix else []
    numbers = _numbers(findings)
    lines.append(f"{numbers['kept']} rules kept, {numbers['broken']} broken, {numbers['not_judged']} not judged")
    return "\n".join(lines) + "\n"


def _numbers(findings: Sequence[Finding]) -> dict[str, int]:
    verdicts = [finding.verdict for finding in findings]
    return {
        "kept": verdicts.count("pass"),
        "broken": verdicts.count("FAIL"),
        "not_judged": verdicts.count("not judged"),
    }


if __name__ == "__main__":
    sys.exit(main())
