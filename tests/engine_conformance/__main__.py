"""Examines an engine, and says what of the contract it keeps."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import httpx

from .engine import Engine
from .examination import examine
from .rules import Finding, judge

TOKEN = "SCENARIO_ENGINE_TOKEN"
MAX_FOUND = 500
_NOT_FOR_TERMINALS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
EPILOG = f"""
The token is read from the environment: {TOKEN}.
Unless --dry-run-only is given, those of the first six users whom a scenario applies to are NOTIFIED, the first five of
them once more where no cool-down forbids it: give test users.
Exit code: 0 if every rule that could be judged is kept, 1 if not, 2 if nothing could be asked.
For how long an engine keeps keys cannot be seen from outside.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; answers its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    token = os.environ.get(TOKEN, "")
    for what, given in (
        (f"{TOKEN} in the environment", token),
        ("at least one user id", options.user_ids),
        ("at least one scenario type", options.scenario_types),
    ):
        if not given:
            parser.error(f"expected {what}, found none")
    if not token.isascii() or not token.isprintable():
        parser.error(f"expected {TOKEN} to be of characters that a header may hold")
    findings = [_shown(finding, token) for finding in asyncio.run(_examined(options, token))]
    sys.stdout.write(_in_json(findings) if options.json else _in_lines(findings))
    return 1 if any(finding.verdict == "FAIL" for finding in findings) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.engine_conformance",
        description="Does a scenario trigger engine keep docs/engine-contract.md?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", type=_url, help="the engine's base URL: /v1/evaluations is added")
    parser.add_argument(
        "--user-ids",
        required=True,
        type=_listed,
        metavar="ID,…|@FILE",
        help="users whom the engine knows; best a hundred or more",
    )
    parser.add_argument(
        "--scenario-types", required=True, type=_listed, metavar="TYPE,…", help="types that the engine knows"
    )
    parser.add_argument("--dry-run-only", action="store_true", help="notify no user; repetition cannot be judged then")
    parser.add_argument("--timeout", type=_seconds, default=10.0, metavar="S", help="seconds for a call (10)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    return parser


def _shown(finding: Finding, token: str) -> Finding:
    """What an engine sent may hold anything: the token, a terminal's commands, a novel."""
    if finding.found is None:
        return finding
    return replace(finding, found=_NOT_FOR_TERMINALS.sub(" ", finding.found.replace(token, "[token]"))[:MAX_FOUND])


def _url(text: str) -> str:
    with contextlib.suppress(httpx.InvalidURL):
        url = httpx.URL(text)
        has_more = url.userinfo or url.query or url.fragment or url.port == 0
        if url.scheme in ("http", "https") and url.host and not has_more:
            return text
    raise argparse.ArgumentTypeError("expected http:// or https://, a host and perhaps a path, and nothing else")


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,3}(\.\d+)?", text) or not float(text):
        raise argparse.ArgumentTypeError(f"expected seconds above 0 and below 1000, found {text!r}")
    return float(text)


def _listed(text: str) -> list[str]:
    """Ids, separated by commas or white space, each once."""
    try:
        content = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"expected a readable file, found {type(error).__name__}") from error
    return list(dict.fromkeys(content.replace(",", " ").split()))


async def _examined(options: argparse.Namespace, token: str) -> list[Finding]:
    async with contextlib.aclosing(Engine(options.url, token, timeout_seconds=options.timeout)) as engine:
        about = {"users": options.user_ids, "scenario_types": options.scenario_types}
        return list(judge(await examine(engine, **about, dry_run_only=options.dry_run_only)))


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
    found = Counter(finding.verdict for finding in findings)
    return {"kept": found["pass"], "broken": found["FAIL"], "not_judged": found["not judged"]}


if __name__ == "__main__":
    sys.exit(main())
