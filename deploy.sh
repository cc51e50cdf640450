#!/usr/bin/env bash
# ./deploy.sh [--target cloud-run|container] [--env-file FILE] [--dry-run]
# ./deploy.sh --rotate-tokens [...]
# ./deploy.sh --uninstall [--delete-data] [...]
#
# Applies the migrations, deploys the function, connects the database to it, and tries it with a dry run of ten mentors.
# Run it again after every change of code or settings, or where it was interrupted: it does what is missing.
#
#   --target cloud-run   deploy to Google Cloud Run (default)
#   --target container   build an image; where it runs is up to you
#   --env-file FILE      the settings (default: .env, if it is there); the environment overrides them
#   --dry-run            check everything, report what would be done, change nothing
#   --rotate-tokens      replace the callers' tokens, also in the file of settings; no call is refused meanwhile
#   --uninstall          disconnect the database and remove the function; keep what was recorded; list what is left
#   --delete-data        with --uninstall: delete what was recorded, but no mentor
#
# Needs Python 3.11, psql, the Supabase CLI, and gcloud or docker. .env.example explains the settings.

set -euo pipefail
called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
case " $* " in *' --help '* | *' -h '*) sed -n '2,/^$/s/^# \{0,1\}//p' deploy.sh && exit ;; esac

# The project's own Python, or one that is made here, with what reads the settings.
for python in .venv/bin/python build/deploy-venv/bin/python; do
  ! "$python" -c 'import sys, importlib.util as i; sys.exit(not all(map(i.find_spec, sys.argv[1:])))' \
    cronsim dotenv httpx pydantic_settings tenacity 2>/dev/null || exec "$python" -m shared.deployment "$called_from" "$@"
done
echo 'deploy.sh: installing what reads the settings into build/deploy-venv (first use only)'
python3 -c 'import sys; sys.exit("deploy.sh: expected Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
python3 -m venv build/deploy-venv
"$python" -m pip install --disable-pip-version-check --require-hashes -r shared/deployment/requirements.lock
exec "$python" -m shared.deployment "$called_from" "$@"
