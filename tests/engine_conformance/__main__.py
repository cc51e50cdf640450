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
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx

from .engine import Engine, Transport
from .examination import Transcript, examine
from .protocols import SUPPORTABLE, Batch, Single
from .rules import Finding, Judge

TOKEN = "SCENARIO_ENGINE_TOKEN"
MAX_FOUND = 500
_NOT_FOR_TERMINALS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
EPILOG = """
Unless --dry-run-only is given, those of the first six users whom a scenario applies to are NOTIFIED, the first five of
them once more where no cool-down forbids it: give test users. With --protocol single and without --supports dry_run
every call is real.
Exit code: 0 if every rule that could be judged is kept, 1 if not, 2 if nothing could be asked.
For how long an engine keeps keys cannot be seen from outside.
"""


def main(arguments: Sequence[str] | None = None, *, transport: Transport = None) -> int:
    """Runs the command; answers its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    token = os.environ.get(options.token_env, "") if options.token_file is None else options.token_file
    if not token or not token.isascii() or not token.isprintable():
        parser.error(f"expected a token that a header may hold, in {TOKEN} or where --token-env or --token-file says")
    protocol = _protocol(parser, options)
    engine = Engine(options.url, token, protocol, timeout_seconds=options.timeout, transport=transport)
    findings = asyncio.run(_examined(engine, options))
    found = Counter(finding.verdict for finding in findings)
    if options.json:
        numbers = {"kept": found["pass"], "broken": found["FAIL"], "not_judged": found["not judged"]}
        print(json.dumps({**numbers, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        print(f"{found['pass']} rules kept, {found['FAIL']} broken, {found['not judged']} not judged")
    return 1 if found["FAIL"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.engine_conformance",
        description="Does a scenario trigger engine keep docs/engine-contract.md?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("url", type=_url, help="SCENARIO_ENGINE_URL: the protocol's path is added")
    known: dict[str, Any] = {"required": True, "type": _listed}
    add("--user-ids", **known, metavar="ID,…|@FILE", help="users whom the engine knows; best a hundred or more")
    add("--scenario-types", **known, metavar="TYPE,…", help="types that the engine knows")
    add("--protocol", choices=("batch", "single"), default="batch", help="ENGINE_PROTOCOL (batch)")
    add("--supports", type=_listed, metavar="dry_run,idempotency", help="ENGINE_SUPPORTS, if single (nothing)")
    add("--users-per-call", type=_whole, metavar="N", help="ENGINE_USERS_PER_CALL, if batch (100)")
    add("--types-per-call", type=_whole, metavar="N", help="ENGINE_TYPES_PER_CALL, if batch (all)")
    add("--dry-run-only", action="store_true", help="notify no user; repetition cannot be judged then")
    add("--timeout", type=_seconds, default=10.0, metavar="S", help="seconds for a call (10)")
    add("--token-env", default=TOKEN, metavar="NAME", help=f"the variable that holds the token ({TOKEN})")
    add("--token-file", type=_content, metavar="FILE", help="the file that holds the token")
    add("--json", action="store_true", help="one JSON object on stdout; the rules' lines on stderr")
    return parser


def _protocol(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Batch | Single:
    supports = frozenset(options.supports or ())
    if not supports <= SUPPORTABLE:
        parser.error(f"--supports: expected {' or '.join(sorted(SUPPORTABLE))}, found something else")
    if options.protocol == "batch":
        if supports:
            parser.error("--supports is for --protocol single: the batch protocol has all of it")
        return Batch(options.users_per_call or 100, options.types_per_call or 1000)
    if options.users_per_call or options.types_per_call:
        parser.error("--users-per-call and --types-per-call are for --protocol batch: single has one pair a call")
    if options.dry_run_only and "dry_run" not in supports:
        parser.error("--dry-run-only: without --supports dry_run nothing can be checked without making real calls")
    return Single(supports)


async def _examined(engine: Engine, options: argparse.Namespace) -> list[Finding]:
    """What came of each rule; it is written as soon as it is judged."""
    findings: list[Finding] = []

    def write(judged: Iterable[Finding]) -> None:
        for finding in judged:
            findings.append(shown := _shown(finding, engine.token))
            lines = [f"{shown.verdict:<10}  {shown.rule}: {shown.demands}"]
            lines += [f"{'':12}found: {shown.found}"] if shown.found else []
            lines += [f"{'':12}to do: {shown.fix}"] if shown.fix else []
            print(*lines, sep="\n", file=sys.stderr if options.json else sys.stdout, flush=True)

    seen = Transcript(engine.protocol, options.dry_run_only)
    judge = Judge(seen)
    async with engine.client:
        async for ready in examine(engine, seen, users=options.user_ids, scenario_types=options.scenario_types):
            write(judge.judge(ready))
    write(judge.judge())
    return findings


def _shown(finding: Finding, token: str) -> Finding:
    """What an engine sent may hold anything: the token, a terminal's commands, a novel."""
    found = (finding.found or "").replace(token, "[token]").replace(json.dumps(token)[1:-1], "[token]")
    return replace(finding, found=_NOT_FOR_TERMINALS.sub(" ", found)[:MAX_FOUND] or None)


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


def _whole(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,2}|1000", text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 1000, found {text!r}")
    return int(text)


def _listed(text: str) -> list[str]:
    """At least one, separated by commas or white space, each once."""
    content = _content(text[1:]) if text.startswith("@") else text
    if not (listed := list(dict.fromkeys(content.replace(",", " ").split()))):
        raise argparse.ArgumentTypeError("expected at least one, found none")
    return listed


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"expected a readable file, found {type(error).__name__}") from error


if __name__ == "__main__":
    sys.exit(main())
