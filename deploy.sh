#!/usr/bin/env bash
# ./deploy.sh [--target cloud-run|container] [--env-file FILE] [--dry-run]
# ./deploy.sh --rotate-tokens [...]
# ./deploy.sh --uninstall [--delete-data] [--yes] [...]
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
#   --yes                with --uninstall: do not ask
#
# Needs Python 3.11, psql, the Supabase CLI, and gcloud or docker. .env.example explains the settings.

# Secrets stay in shared/deployment, in files of this user, and in the environment: all users can read arguments.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TARGET=cloud-run ACTION=deploy ENV_FILE='' DRY_RUN='' DELETE_DATA='' YES='' STEP='' TICKER='' WORK='' PYTHON=''

usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
say() { printf '   %s\n' "$@"; }
fail() { printf 'deploy.sh: %s\n' "$*" >&2; exit 1; }
# In a dry run, reports what would be done and succeeds; otherwise fails, so that the caller does it.
would() { [[ $DRY_RUN ]] && say "would $*"; }
# Runs a command that changes something; a dry run only reports it.
change() { would "run: $*" || { say "\$$*"; "$@"; }; }
step() { end_ticker; STEP=$1; printf '\n== %s\n' "$1"; tick & TICKER=$!; }

# Shows that a step is at work, until it has ended or this process is gone.
tick() {
  local seconds=0
  trap 'kill "$!"; exit' TERM
  while sleep 5 & wait "$!" && kill -0 "$$" 2>/dev/null; do say "... $((seconds += 5)) s" >&2; done
}
end_ticker() { [[ -z $TICKER ]] || kill "$TICKER" 2>/dev/null || true; TICKER=''; }

# The last words of a run in which nothing failed.
end() { if [[ $DRY_RUN ]]; then printf '\nA dry run: nothing was changed.\n'; else printf '\n%s\n' "$@"; fi; }

finish() {
  (($? == 0)) || [[ -z $STEP ]] ||
    printf '\ndeploy.sh: stopped at "%s". What was done before it stays. Fix the errors above and run it again.\n' "$STEP" >&2
  end_ticker
  rm -rf "$WORK"
}

# Stops if there are problems, a line for each.
stop_on() {
  [[ -z $1 ]] && return
  sed '/^$/d; s/^/   /' >&2 <<<"$1"
  fail 'nothing was done; fix each line above first'
}

# Carries out one step of what shared/deployment/__main__.py has.
deployment() {
  "$PYTHON" -m shared.deployment --target "$TARGET" --work "$WORK" ${ENV_FILE:+--env-file "$ENV_FILE"} ${DRY_RUN:+--dry-run} "$@"
}
# What follows from the settings; empty where it is not set.
fact() { cat "$WORK/facts/$1"; }

# Finds a Python with what reads the settings: the project's own, or one made here.
find_python() {
  for PYTHON in .venv/bin/python build/deploy-venv/bin/python; do
    ! "$PYTHON" -c 'import cronsim, dotenv, httpx, pydantic_settings' 2>/dev/null || return 0
  done
  say 'installing what reads the settings into build/deploy-venv (first use only)'
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' && python3 -m venv build/deploy-venv &&
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --require-hashes -r shared/deployment/requirements.lock
}

check_settings() {
  step 'Check prerequisites and settings'
  local problems='' command commands=(psql supabase)
  if [[ $TARGET == cloud-run ]]; then commands+=(gcloud); elif [[ $ACTION == deploy ]]; then commands+=(docker); fi
  for command in "${commands[@]}"; do
    command -v "$command" >/dev/null || problems+="$command: not installed, or not on PATH"$'\n'
  done
  if ! find_python; then
    problems+='python3: expected Python 3.11 or newer with venv and pip'
  elif ! deployment settings 2>"$WORK/problems"; then
    problems+=$(<"$WORK/problems")
  fi
  stop_on "$problems"
}

check_target() {
  step 'Check credentials, database and project'
  local problems
  problems=$(deployment check "$ACTION" 2>&1) || stop_on "$problems"
  say 'they are as they have to be'
}

stage_function() {
  step 'Stage the function'
  local staged=$WORK/staged
  mkdir "$staged"
  cp -R functions shared "$staged"
  rm -rf "$staged/shared/deployment"
  find "$staged" -name __pycache__ -type d -prune -exec rm -rf {} +
  cp shared/deployment/requirements.lock "$staged/requirements.txt"
  echo 'from functions.main import handle_scheduled_invocation as handle_scheduled_invocation' >"$staged/main.py"
  [[ $TARGET == cloud-run ]] || cp shared/deployment/Dockerfile "$staged"
  deployment digests
}

deploy_to_google() {
  step 'Prepare Google Cloud: services, account, secrets'
  deployment prepare-cloud
  step 'Deploy the function to Cloud Run'
  deployment deploy-cloud
}

build_container() {
  step 'Build the image'
  change docker build --tag "$(fact image)" "$WORK/staged"
  [[ -z $(fact pushed_image) ]] || change docker push "$(fact image)"
  write_environment
  if [[ -z $(fact function_url) ]]; then
    end 'Not done yet: start the function, set FUNCTION_URL to where the database reaches it, and run this again.' \
      "   $(fact serve_command)"
    exit 0
  fi
  say 'restart the function with this image and these settings, for example:' "$(fact serve_command)"
}

write_environment() {
  would "write the settings that the function needs into $(fact container_path)" || deployment write-environment
}

# Deploys the function with the settings as they are, and has the database call it.
put_in_service() {
  if [[ $TARGET == cloud-run ]]; then deploy_to_google; else build_container; fi
  step 'Try the function'
  if ! would 'wait until it answers with this code and these settings' && ! deployment up; then
    deployment state | sed -n 1p
    fail "what was deployed does not answer. Where the old one does, change that: $(fact serve_command)"
  fi
  step 'Connect the database to the function'
  deployment connect
}

deploy() {
  stage_function
  step 'Migrate the database'
  deployment migrate
  step 'Prepare the schedule'
  deployment prepare-schedule
  put_in_service
  step 'Smoke test'
  would 'evaluate ten mentors in a dry run' || deployment smoke-test
  [[ $TARGET != cloud-run ]] || deployment destroy-old-secrets
  step 'State'
  deployment state
}

change_tokens() {
  step "Change the tokens: $1"
  would "change those in $ENV_FILE" && return
  deployment "$1"
}

# New tokens beside the old ones, then the database takes the new one, then the old ones go: every caller keeps a known token.
rotate_tokens() {
  if [[ $TARGET == cloud-run ]]; then
    stage_function
    change_tokens add-tokens
    put_in_service
    change_tokens keep-newest-tokens
    put_in_service
    deployment destroy-old-secrets
    say "the new tokens are in $ENV_FILE"
  elif [[ $(fact has_one_token) ]]; then
    # Its operator starts a container, so this comes in two halves.
    change_tokens add-tokens
    write_environment
    end 'Not done yet: the old tokens are in use. The second half: restart the function, and run this again.' \
      "   $(fact serve_command)"
    exit 0
  else
    step 'Try the new tokens'
    deployment check-token || fail "restart the function first: $(fact serve_command)"
    step 'Connect the database to the function'
    deployment connect
    change_tokens keep-newest-tokens
    write_environment
    end 'The new tokens are in use. The old ones end when you restart the function once more.' "   $(fact serve_command)"
    exit 0
  fi
}

uninstall() {
  local answer=uninstall left='the container, which is yours to stop, and its image'
  if [[ -z $YES$DRY_RUN ]]; then
    end_ticker
    printf '\nThis ends the scheduled runs%s of\n%s\nType "uninstall" to continue: ' \
      "${DELETE_DATA:+ and deletes what they recorded}" "$(fact target)"
    read -r answer || true
  fi
  [[ $answer == uninstall ]] || fail 'nothing was done'
  step 'Disconnect the database'
  deployment disconnect
  if [[ $TARGET == cloud-run ]]; then
    step 'Remove the function from Google Cloud'
    deployment remove-from-cloud
    left='in Google Cloud the images and uploaded sources of its builds, its logs, the services that were enabled'
  fi
  if [[ $DELETE_DATA ]]; then
    step 'Delete the data'
    deployment delete-data
  fi
  step 'What is left'
  [[ $DELETE_DATA ]] || say 'schema scheduler, its tables, functions and queues, and what was recorded: ./deploy.sh resumes with them'
  say "peer_mentors and active_peer_mentors, which are the application's" \
    'the extensions pgmq, pg_net, pg_cron and supabase_vault, since others may use them' \
    "its statements, without secrets, in pg_stat_statements and the server's log; the database's backups" "$left" \
    "at the engine what it keeps of calls and notifications${ENV_FILE:+; and $ENV_FILE with the secrets}"
}

main() {
  while (($#)); do
    case $1 in
      --target) shift && TARGET=${1?--target: expected a value} ;;
      --env-file) shift && ENV_FILE=${1?--env-file: expected a value} ;;
      --dry-run) DRY_RUN=1 ;;
      --rotate-tokens) ACTION=rotate ;;
      --uninstall) ACTION=uninstall ;;
      --delete-data) DELETE_DATA=1 ;;
      --yes) YES=1 ;;
      --help | -h) usage && exit 0 ;;
      *) usage >&2 && fail "expected one of the options above, found $1" ;;
    esac
    shift
  done
  [[ $TARGET == cloud-run || $TARGET == container ]] || fail "--target: expected cloud-run or container, found $TARGET"
  [[ -z $DELETE_DATA$YES || $ACTION == uninstall ]] || fail '--delete-data and --yes go with --uninstall'
  [[ -n $ENV_FILE || ! -r $ROOT/.env ]] || ENV_FILE=$ROOT/.env
  [[ -z $ENV_FILE || -r $ENV_FILE ]] || fail "--env-file: $ENV_FILE cannot be read"
  [[ -z $ENV_FILE ]] || ENV_FILE=$(cd "$(dirname "$ENV_FILE")" && pwd)/$(basename "$ENV_FILE")
  umask 077
  WORK=$(mktemp -d)
  mkdir "$WORK/facts"
  trap finish EXIT
  cd "$ROOT"
  check_settings
  check_target
  case $ACTION in
    deploy) deploy ;;
    rotate) rotate_tokens ;;
    *) uninstall ;;
  esac
  end 'Done.'
}

main "$@"
