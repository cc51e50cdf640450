"""`python -m shared.deployment`: carries out one step of deploy.sh; problems go to standard error, one a line."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path

import httpx

from shared.deployment.env_file import change_tokens, read_env_file
from shared.deployment.http_call import CheckError, describe_problem, send
from shared.deployment.settings import TARGETS, Deployment, check, unknown_names
from shared.deployment.smoke_test import SmokeTest
from shared.errors import ConfigError


def main() -> None:
    """Carries out one command; a problem ends the program with 1."""
    parser = argparse.ArgumentParser(prog="python -m shared.deployment", description=__doc__)
    parser.add_argument("--target", choices=sorted(TARGETS), default="cloud-run")
    parser.add_argument("--env-file", type=Path, help="a file of settings; the environment overrides it")
    parser.add_argument("command")
    parser.add_argument("argument", nargs="?", default="")
    options = parser.parse_args()
    try:
        in_file = read_env_file(options.env_file) if options.env_file else {}
        if options.command == "settings":
            for name in unknown_names(in_file):
                print(f"   {options.env_file}: {name} is no setting; passed over")
        environment = in_file | {name: text for name, text in os.environ.items() if text}
        deployment = check(options.target, environment, read_env_file(Path(".env.example")))
        # Uncompressed answers: the limit of their length is one of what is received.
        with httpx.Client(headers={"Accept-Encoding": "identity"}) as client:
            _carry_out(options, deployment, client)
    except ConfigError as error:
        sys.exit("\n".join(error.problems))
    except CheckError as error:
        sys.exit(str(error))


def _carry_out(options: argparse.Namespace, deployment: Deployment, client: httpx.Client) -> None:
    match options.command:
        case "settings":
            _write(deployment, Path(options.argument))
        case "credentials":
            _try_secret_key(deployment, client)
        case "digest":
            print(_digest(Path(options.argument)))
        case "problem":
            # Of an answer with this status, its body on standard input.
            answer = httpx.Response(int(options.argument), content=sys.stdin.buffer.read())
            print(describe_problem(answer, deployment.secrets))
        case "add-tokens" | "keep-newest-tokens":
            change_tokens(options.env_file, add=options.command == "add-tokens")
        case "up":
            SmokeTest(options.argument, deployment, client).wait_until_up()
        case "check-token":
            SmokeTest(options.argument, deployment, client).check_token()
        case "smoke-test":
            SmokeTest(options.argument, deployment, client).dry_run()
        case unknown:
            raise CheckError(f"expected a command of deploy.sh, found {unknown}")


def _digest(folder: Path) -> str:
    """Returns a digest that is short enough for a label."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:40]


def _write(deployment: Deployment, folder: Path) -> None:
    for name in ("secrets", "deployed"):
        (folder / name).mkdir()
    for name, text in deployment.facts().items():
        (folder / name).write_text(text, encoding="utf-8")


def _try_secret_key(deployment: Deployment, client: httpx.Client) -> None:
    url, key = deployment.config.supabase_url, deployment.config.supabase_secret_key.get_secret_value()
    # An opaque key is no bearer token; a legacy one is both.
    headers = {"apikey": key} | ({} if key.startswith("sb_") else {"Authorization": f"Bearer {key}"})
    try:
        answer = send(client, "GET", f"{url}/rest/v1/", headers=headers, timeout=20)
    except CheckError as error:
        raise ConfigError([f"SUPABASE_URL: {error}"]) from error
    if answer.status_code in (401, 403):
        problem = describe_problem(answer, deployment.secrets)
        raise ConfigError([f"SUPABASE_SECRET_KEY: refused by {url} ({problem})"])
    if answer.status_code == 404:
        raise ConfigError([f"SUPABASE_URL: {url} has no Data API at /rest/v1/ (404)"])


if __name__ == "__main__":
    main()
