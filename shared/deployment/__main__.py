"""The command line of deploy.sh, where its options are explained."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from shared.deployment.installation import Installation
from shared.deployment.report import CheckError, Report
from shared.deployment.settings import TARGETS
from shared.errors import ConfigError


def main() -> None:
    """Carries out the command; a problem ends the program with 1, an unknown option with 2."""
    parser = argparse.ArgumentParser(
        prog="deploy.sh", usage="see ./deploy.sh --help", add_help=False, allow_abbrev=False
    )
    parser.add_argument("called_from", type=Path)
    parser.add_argument("--target", choices=TARGETS, default="cloud-run")
    parser.add_argument("--env-file", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--rotate-tokens", action="store_true")
    parser.add_argument("--uninstall", action="store_true")
    parser.add_argument("--delete-data", action="store_true")
    parser.add_argument("--yes", action="store_true")
    options = parser.parse_args()
    if (options.delete_data or options.yes) and not options.uninstall:
        parser.error("--delete-data and --yes go with --uninstall")
    path = options.called_from / options.env_file if options.env_file else Path(".env").absolute()
    if options.env_file is None and not path.exists():
        path = None
    report = Report(is_dry_run=options.dry_run)
    # Uncompressed answers: the limit of their length is one of what is received.
    with TemporaryDirectory() as work, httpx.Client(headers={"Accept-Encoding": "identity"}) as client:
        installation = Installation(options.target, path, os.environ, Path(work), client, report)
        try:
            if options.uninstall:
                said = installation.uninstall(delete_data=options.delete_data, is_confirmed=options.yes)
            else:
                said = installation.rotate_tokens() if options.rotate_tokens else installation.deploy()
        except (CheckError, ConfigError, KeyboardInterrupt) as error:
            print(f"deploy.sh: {str(error) or 'interrupted'}", file=sys.stderr)
            stopped = f'stopped at "{report.step}". What was done before it stays.'
            sys.exit(f"\ndeploy.sh: {stopped} Fix the errors above and run it again.")
    print("\nA dry run: nothing was changed." if options.dry_run else f"\n{said}")


if __name__ == "__main__":
    main()
