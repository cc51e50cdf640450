"""`python -m shared.deployment`: called by deploy.sh, which says what to do when one of these ends with 1.

What is wrong is said on standard error, one problem a line.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.config import split_tokens
from shared.deployment.env_file import UnusableFileError, change_tokens, read_env_file
from shared.deployment.http_call import Answer, NoAnswerError, call, read_json
from shared.deployment.settings import TARGETS, Deployment, check, unknown_names
from shared.deployment.smoke_test import SmokeTest, SmokeTestError
from shared.errors import ConfigError
from shared.version import VERSION

EXAMPLE = Path(".env.example")


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Does one thing for deploy.sh, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m shared.deployment", description=__doc__)
    parser.add_argument("--target", choices=sorted(TARGETS), default="cloud-run")
    parser.add_argument("--env-file", type=Path, help="a file of settings; the environment has the last word")
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("settings", help="check all settings, and write each into a file of its own")
    write.add_argument("folder", type=Path, help="an empty folder that no other user can read")
    commands.add_parser("credentials", help="try the project's secret key")
    digest = commands.add_parser("digest", help="print a name for what a folder holds, and for some more words")
    digest.add_argument("folder", type=Path)
    digest.add_argument("words", nargs="*")
    problem = commands.add_parser("problem", help="print what an answer, its body on standard input, says of its error")
    problem.add_argument("status", type=int)
    tokens = commands.add_parser("tokens", help="change the lists of tokens in the file")
    tokens.add_argument("change", choices=["add", "keep-newest"])
    for name, text in (("up", "wait until it is up"), ("knows-token", "does it know the first admin token?")):
        commands.add_parser(name, help=text).add_argument("url")
    commands.add_parser("smoke-test", help="a dry run of ten mentors").add_argument("url")
    options = parser.parse_args(arguments)
    try:
        return _carry_out(options, environ)
    except ConfigError as error:
        print("\n".join(error.problems), file=sys.stderr)
    except (SmokeTestError, UnusableFileError) as error:
        print(error, file=sys.stderr)
    return 1


def _carry_out(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if options.command == "tokens":
        change_tokens(options.env_file, options.change)
        return 0
    if options.command == "digest":
        print(_digest(options.folder, options.words))
        return 0
    deployment = _deployment(options, environ)
    if options.command == "settings":
        _write(deployment, options.folder)
        return 0
    if options.command == "credentials":
        _try_secret_key(deployment)
        return 0
    if options.command == "problem":
        secrets = [secret for text in deployment.secrets.values() for secret in split_tokens(text)]
        print(Answer(options.status, read_json(sys.stdin.buffer.read()), secrets).problem)
        return 0
    config = deployment.config
    function = SmokeTest(
        options.url,
        config.scheduler_admin_tokens[0].get_secret_value(),
        version=VERSION,
        time_budget_seconds=config.time_budget_seconds,
        say=lambda text: print(f"   {text}", flush=True),
    )
    if options.command == "knows-token":
        return int(not function.knows_token())
    if options.command == "up":
        function.wait_until_up()
    else:
        function.dry_run()
    return 0


def _deployment(options: argparse.Namespace, environ: Mapping[str, str]) -> Deployment:
    in_file = read_env_file(options.env_file) if options.env_file else {}
    if options.command == "settings":
        for name in unknown_names(in_file):
            print(f"   {options.env_file}: {name} is no setting; passed over")
    environment = in_file | {name: text for name, text in environ.items() if text}
    return check(options.target, environment, read_env_file(EXAMPLE))


def _digest(folder: Path, words: Sequence[str]) -> str:
    """Returns a digest that is short enough for a label."""
    digest = hashlib.sha256(repr(words).encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:40]


def _write(deployment: Deployment, folder: Path) -> None:
    for name, text in deployment.facts().items():
        (folder / name).write_text(text, encoding="utf-8")
    secrets = folder / "secrets"
    secrets.mkdir(exist_ok=True)
    for name, text in deployment.secrets.items():
        (secrets / name).write_text(text, encoding="utf-8")


def _try_secret_key(deployment: Deployment) -> None:
    url, key = deployment.config.supabase_url, deployment.config.supabase_secret_key.get_secret_value()
    # An opaque key is no bearer token; a legacy one is both.
    headers = {"apikey": key} | ({} if key.startswith("sb_") else {"Authorization": f"Bearer {key}"})
    try:
        answer = call(f"{url}/rest/v1/", headers=headers, timeout_seconds=20)
    except NoAnswerError as error:
        raise ConfigError([f"SUPABASE_URL: {url} does not answer ({error})"]) from error
    if answer.status in (401, 403):
        raise ConfigError([f"SUPABASE_SECRET_KEY: refused by {url} ({answer.problem})"])
    if answer.status == 404:
        raise ConfigError([f"SUPABASE_URL: {url} has no Data API at /rest/v1/ (404)"])


if __name__ == "__main__":
    sys.exit(main())
