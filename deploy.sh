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

# All users of this machine can read arguments: secrets go by environment, by standard input and by files of this user.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TARGET=cloud-run ACTION=deploy ENV_FILE='' DRY_RUN='' DELETE_DATA='' YES=''
STEP='' WORK='' PYTHON='' NAME='' REGION='' ACCOUNT='' SECRETS='' SOURCE_DIGEST='' FUNCTION_URL=''

usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
step() { STEP=$1 && printf '\n== %s\n' "$1"; }
fail() { printf 'deploy.sh: %s\n' "$*" >&2 && exit 1; }
# On file descriptor 3, so that a function may report while its output is captured.
say() { printf '   %s\n' "$@" >&3; }
exec 3>&1
# In a dry run, reports what would be done and succeeds; otherwise fails, so that the caller does it.
would() { [[ $DRY_RUN ]] && say "would $*"; }
# Whether it is one of the lines on standard input.
is_listed() { grep -xF -- "$1" >/dev/null; }

# Runs a command that changes something; a dry run only reports it.
change() {
  local words
  words=$(printf ' %q' "$@")
  would "run:$words" && return
  say "\$$words"
  "$@"
}

# Stops if there are problems, a line for each.
stop_on() {
  [[ -z $1 ]] && return
  printf '%s' "$1" | sed 's/^/   /' >&2
  fail 'nothing was done; fix each line above first'
}

finish() {
  (($? == 0)) || [[ -z $STEP ]] ||
    printf '\ndeploy.sh: stopped at "%s". What was done before it stays. Fix the errors above and run it again.\n' "$STEP" >&2
  rm -rf "$WORK"
}

deployment() { "$PYTHON" -m shared.deployment --target "$TARGET" ${ENV_FILE:+--env-file "$ENV_FILE"} "$@"; }
read_settings() { rm -rf "$WORK/facts" && mkdir "$WORK/facts" && deployment settings "$WORK/facts"; }
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
    problems+='python3: expected Python 3.11 or newer with venv and pip'$'\n'
  elif ! read_settings 2>"$WORK/problems"; then
    problems+=$(<"$WORK/problems")$'\n'
  fi
  stop_on "$problems"
  say "all settings are usable; secret among them: $(cd "$WORK/facts/secrets" && echo *)"
}

check_credentials() {
  step 'Check credentials'
  local problems='' answer
  answer=$(deployment credentials 2>&1) || problems+="$answer"$'\n'
  answer=$(sql 2>&1 <<<"select 'this database has no ' || string_agg(name, ', ') || '; is it a Supabase project''s?'
    from unnest(array['pgmq', 'pg_net', 'pg_cron', 'supabase_vault']) as needed (name)
   where name not in (select name from pg_available_extensions)") || true
  [[ -z $answer ]] || problems+="DATABASE_URL: $answer"$'\n'
  if [[ $TARGET == cloud-run ]]; then
    export CLOUDSDK_CORE_DISABLE_PROMPTS=1 CLOUDSDK_CORE_PROJECT
    CLOUDSDK_CORE_PROJECT=$(fact google_cloud_project) NAME=$(fact function_name) REGION=$(fact google_cloud_region)
    ACCOUNT=$NAME@$CLOUDSDK_CORE_PROJECT.iam.gserviceaccount.com
    answer=$(gcloud projects describe "$CLOUDSDK_CORE_PROJECT" 2>&1) || problems+="gcloud: $answer"$'\n'
  fi
  stop_on "$problems"
  say 'database, Data API and cloud accept them'
}

# Runs the SQL on standard input. Nothing of it is in an argument, and nothing secret in a statement, which a server may log.
sql() {
  PGPASSWORD=$(fact database_password) PGCONNECT_TIMEOUT=15 psql --no-psqlrc --quiet --no-align --tuples-only --no-password \
    --set ON_ERROR_STOP=1 --set VERBOSITY=terse --dbname "$(fact database_url)" --file - "$@"
}

# Repeats the SQL every half a second, for a minute, until it finds something; prints that.
sql_until_found() {
  local found=''
  for _ in {1..120}; do
    found=$(sql <<<"$1") || return
    [[ -z $found ]] || break
    sleep 0.5
  done
  printf '%s' "$found"
}

# Whether the migrations are applied; reports where they are not.
is_installed() {
  [[ $(sql <<<"select to_regprocedure('scheduler.disconnect()') is not null") == f ]] || return 0
  say 'nothing is installed yet'
  return 1
}

migrate_database() {
  step 'Migrate the database'
  local folder=$WORK/project/supabase applied='' version
  # In a folder of its own: the CLI leaves notes where it works.
  mkdir -p "$folder"
  cp -R supabase/config.toml supabase/migrations "$folder"
  [[ $(sql <<<"select to_regclass('supabase_migrations.schema_migrations') is null") == t ]] ||
    applied=$(sql <<<'select version from supabase_migrations.schema_migrations')
  # It refuses a database in which it finds migrations of others, unless it finds files for them as well.
  for version in $applied; do
    compgen -G "$folder/migrations/${version}_*" >/dev/null || : >"$folder/migrations/${version}_of_others.sql"
  done
  # include-all: theirs may be younger than ours.
  PGPASSWORD=$(fact database_password) supabase db push --include-all --workdir "$WORK/project" --yes ${DRY_RUN:+--dry-run} \
    --remote="$(fact database_url)" </dev/null 2>&1 | sed 's/^/   /' ||
    fail 'the Supabase CLI could not apply them (if it knows no --remote: it has to be version 3 or newer)'
  # A hosted project notices by itself; others may not.
  [[ $DRY_RUN ]] || sql <<<"notify pgrst, 'reload schema'"
}

prepare_database() {
  step 'Check the view of the mentors, prepare the schedule'
  local fault
  is_installed || return 0
  # The migrations check it when they are first applied; it is the application's, and may have been changed since.
  fault=$(sql <<<'select public.scheduler_mentors_view_fault()')
  [[ -z $fault ]] || fail "$fault"
  # Before the function: a new schedule begins with its next slot, and none of today is caught up under it.
  would "let the schedule $(fact schedule) begin with its next slot, if it is a new one" && return
  sql --set schedule="$(fact schedule)" <<<"select case when scheduler.prepare_schedule(:'schedule')
    then '   the schedule is new: the first slot from now on is the first to run' else '   the schedule stays' end"
}

# Has the database call the function, once at first as it will every minute, and waits for the answer.
connect_database() {
  step 'Connect the database to the function'
  would 'keep its URL and the first invoke token in Vault, schedule the cron jobs, and run scheduler.dispatch()' && return
  INVOKE_TOKEN=$(fact invoke_token) sql --set function_url="$FUNCTION_URL" --set schedule="$(fact schedule)" \
    <supabase/connect.sql >/dev/null
  local dispatch answer
  dispatch=$(sql <<<"do 'begin perform scheduler.dispatch(); end'; select max(id) from scheduler.dispatches")
  answer=$(sql_until_found "do 'begin perform scheduler.collect_responses(); end';
                            select coalesce(status_code::text, error) from scheduler.dispatches where id = ${dispatch:-0}")
  # connect() has cleared when the next slot is due; the next call of the function stores it again.
  [[ -n $answer || $(sql <<<'select next_due_at is null from scheduler.settings') == t ]] || answer='not yet, it is at work'
  case $answer in
    200 | 202 | not*) say "pg_net called it with the token from Vault; its answer: $answer" && return ;;
    401) fail 'the function does not know the token that Vault holds (401)' ;;
    '') fail 'pg_net has sent nothing for a minute; is its worker running (select net.worker_restart())?' ;;
    *[!0-9]*) ;;
    # With what the function said of its error, unless pg_net has lost it.
    *) answer=$(sql <<<"select left(answer.content, 100000) from scheduler.dispatches as d join net._http_response as answer
                            on answer.id = d.request_id and answer.status_code = d.status_code
                         where d.id = $dispatch" | deployment problem "$answer") ;;
  esac
  fail "the database's call was answered: $answer"
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
  SOURCE_DIGEST=$(deployment digest "$staged")
  say "version $(fact version), digest ${SOURCE_DIGEST:0:12}"
}

# The versions of a secret, the newest first.
enabled_versions() { gcloud secrets versions list "$1" --filter=state:ENABLED --format='value(name.basename())' 2>/dev/null; }

# Sets SECRETS to the names and versions that the function gets.
prepare_google() {
  step 'Prepare Google Cloud: services, account, secrets'
  local service file name secret version readers pause
  for service in $(printf '%s.googleapis.com\n' run cloudbuild artifactregistry secretmanager |
    grep -vxF -f <(gcloud services list --enabled --format='value(config.name)')); do
    change gcloud services enable "$service"
  done
  # It may read the secrets below and nothing else: the project's default account may edit everything.
  gcloud iam service-accounts describe "$ACCOUNT" &>/dev/null ||
    change gcloud iam service-accounts create "$NAME" --display-name='Scenario evaluation scheduler'
  # Each secret under its newest version.
  SECRETS=''
  for file in "$WORK"/facts/secrets/*; do
    name=${file##*/} readers=''
    secret=$NAME-$name
    if version=$(enabled_versions "$secret"); then
      readers=$(gcloud secrets get-iam-policy "$secret" --flatten='bindings[].members' \
        --filter=bindings.role:roles/secretmanager.secretAccessor --format='value(bindings.members)')
    else
      change gcloud secrets create "$secret" --replication-policy=automatic
    fi
    # Repeated: an account that was just created is not known everywhere at once.
    for pause in 3 6 9 12 ''; do
      if is_listed "serviceAccount:$ACCOUNT" <<<"$readers" || change gcloud secrets add-iam-policy-binding "$secret" \
        --member="serviceAccount:$ACCOUNT" --role=roles/secretmanager.secretAccessor >/dev/null; then break; fi
      [[ $pause ]] || fail "cannot let the function read $secret"
      sleep "$pause"
    done
    version=${version%%$'\n'*}
    if [[ -z $version ]] || ! gcloud secrets versions access "$version" --secret="$secret" 2>/dev/null | cmp -s - "$file"; then
      version=$(change gcloud secrets versions add "$secret" --data-file=- --format='value(name.basename())' <"$file")
    fi
    SECRETS+="${SECRETS:+,}$name=$secret:${version:-new}"
  done
}

deploy_to_google() {
  prepare_google
  step 'Deploy the function to Cloud Run'
  local options settings_digest file version source_now='' settings_now='' created='' ready=''
  options=(
    --region="$REGION" --service-account="$ACCOUNT" --set-secrets="$SECRETS" --cpu=1 --memory="$(fact function_memory)"
    --concurrency="$(fact function_concurrency)" --timeout="$(fact request_timeout)" --max-instances="$(fact function_max_instances)"
  )
  printf '%s\n' "${options[@]}" >"$WORK/facts/deployed/options"
  settings_digest=$(deployment digest "$WORK/facts/deployed")
  options+=(--env-vars-file="$WORK/facts/deployed/environment.json")
  options+=(--update-labels="source_digest=$SOURCE_DIGEST,settings_digest=$settings_digest")
  IFS='|' read -r source_now settings_now created ready < <(gcloud run services describe "$NAME" --region="$REGION" 2>/dev/null \
    --format='value[separator="|"](metadata.labels.source_digest,metadata.labels.settings_digest,status.latestCreatedRevisionName,status.latestReadyRevisionName)') ||
    true
  # A revision that did not become ready is no reason to believe its labels.
  [[ -n $ready && $created == "$ready" ]] || source_now=''
  if [[ $source_now == "$SOURCE_DIGEST" && $settings_now == "$settings_digest" ]]; then
    say 'nothing has changed since it was deployed'
  elif [[ $source_now == "$SOURCE_DIGEST" ]]; then
    change gcloud run services update "$NAME" "${options[@]}"
  else
    # Public, because pg_net cannot get an identity token from Google: the function has tokens of its own.
    change gcloud run deploy "$NAME" --source="$WORK/staged" --function=handle_scheduled_invocation --base-image=python311 \
      --allow-unauthenticated "${options[@]}"
  fi
  [[ $DRY_RUN ]] || FUNCTION_URL=$(gcloud run services describe "$NAME" --region="$REGION" --format='value(status.url)')
  # What is superseded opens nothing any more or should not: a rolled-back deployment makes versions of its own.
  for file in "$WORK"/facts/secrets/*; do
    for version in $(enabled_versions "$NAME-${file##*/}" | tail -n +2); do
      change gcloud secrets versions destroy "$version" --secret="$NAME-${file##*/}"
    done
  done
}

build_container() {
  step 'Build the image'
  local image
  image=$(fact image)
  image=${image:-scenario-evaluation-scheduler:$(fact version)}
  change docker build --tag "$image" "$WORK/staged"
  [[ -z $(fact image) ]] || change docker push "$image"
  FUNCTION_URL=$(fact function_url)
  [[ -z $FUNCTION_URL ]] || return 0
  say "run $image with the settings as its environment, for example:" \
    "  docker run --rm --env-file ${ENV_FILE:-FILE} --publish 8080:8080 $image" \
    'then set FUNCTION_URL to where the database reaches it, and run this again'
  exit 0
}

# Deploys the function with the settings as they are, and has the database call it.
put_in_service() {
  if [[ $TARGET == cloud-run ]]; then deploy_to_google; else build_container; fi
  step 'Try the function'
  would "wait until version $(fact version) is up" || deployment up "$FUNCTION_URL"
  connect_database
}

deploy() {
  stage_function
  migrate_database
  prepare_database
  put_in_service
  step 'Smoke test'
  would 'evaluate ten mentors in a dry run' || deployment smoke-test "$FUNCTION_URL"
  step 'State'
  if is_installed; then sql <supabase/state.sql | sed 's/^/   /'; fi
}

change_tokens() {
  step "Change the tokens: $1"
  change deployment "$1"
  [[ $DRY_RUN ]] || read_settings
}

# New tokens beside the old ones, then the database takes the new one, then the old ones go: every caller keeps a known token.
rotate_tokens() {
  [[ -n $ENV_FILE ]] || fail '--rotate-tokens needs a file of settings to keep the new tokens in'
  [[ -z ${SCHEDULER_INVOKE_TOKENS:-}${SCHEDULER_ADMIN_TOKENS:-} ]] ||
    fail 'unset SCHEDULER_INVOKE_TOKENS and SCHEDULER_ADMIN_TOKENS: the environment overrides the file'
  is_installed || fail 'run ./deploy.sh first'
  if [[ $TARGET == cloud-run ]]; then
    stage_function
    change_tokens add-tokens
    put_in_service
    change_tokens keep-newest-tokens
    put_in_service
    say "the new tokens are in $ENV_FILE"
    return
  fi
  # Its operator starts a container, so this comes in two halves.
  FUNCTION_URL=$(fact function_url)
  [[ -n $FUNCTION_URL ]] || fail 'FUNCTION_URL: missing; there is no function to rotate the tokens of'
  if [[ $(<"$WORK/facts/secrets/SCHEDULER_INVOKE_TOKENS") != *,* ]]; then
    change_tokens add-tokens
    say "restart the function with the tokens in $ENV_FILE, and run this again"
  else
    step 'Try the new tokens'
    deployment check-token "$FUNCTION_URL" || fail "restart the function with the tokens in $ENV_FILE first"
    connect_database
    change_tokens keep-newest-tokens
    say "the old tokens end when the function is restarted with $ENV_FILE"
  fi
}

uninstall() {
  local answer=uninstall
  if [[ -z $YES$DRY_RUN ]]; then
    printf '\nThis ends the scheduled runs%s. Type "uninstall" to continue: ' "${DELETE_DATA:+ and deletes what they recorded}"
    read -r answer || true
  fi
  [[ $answer == uninstall ]] || fail 'nothing was done'
  disconnect_database
  if [[ $TARGET == cloud-run ]]; then remove_from_google; fi
  if [[ $DELETE_DATA ]]; then
    step 'Delete the data'
    # Of all migrations but the first: the mentors' table and view are the application's.
    would 'run supabase/uninstall.sql' || sql <supabase/uninstall.sql \
      --set versions="$(printf '%s\n' supabase/migrations/*.sql | sed '1d; s/.*\///; s/_.*//' | paste -sd, -)"
  fi
  step 'What is left'
  [[ $DELETE_DATA ]] || say 'schema scheduler, its tables, functions and queues, and what was recorded: ./deploy.sh resumes with them'
  say "peer_mentors and active_peer_mentors, which are the application's" \
    'the extensions pgmq, pg_net, pg_cron and supabase_vault, since others may use them' \
    "its statements, without secrets, in pg_stat_statements and the server's log; the database's backups" \
    'in Google Cloud the images and uploaded sources of its builds, its logs, the services that were enabled' \
    'elsewhere the container, which is yours to stop, and its image' \
    "at the engine what it keeps of calls and notifications${ENV_FILE:+; and $ENV_FILE with the secrets}"
}

disconnect_database() {
  step 'Disconnect the database'
  is_installed || return 0
  would 'take URL and token out of Vault, end the cron jobs, and delete what pg_net and pg_cron keep of its calls' && return
  # A call that pg_net is sending ends within the time budget; its answer is deleted once it is there.
  local ended
  ended=$(sql_until_found 'select 1 where scheduler.disconnect() = 0')
  say 'Vault holds nothing of it, no cron job calls it, and what pg_net and pg_cron kept of its calls is deleted'
  [[ $ended ]] || say 'but for calls under way: pg_net keeps their answers for six hours'
  [[ $ended$DELETE_DATA ]] || say 'run this again to delete them'
}

remove_from_google() {
  step 'Remove the function from Google Cloud'
  local secret
  ! gcloud run services list --region="$REGION" --format='value(metadata.name)' | is_listed "$NAME" ||
    change gcloud run services delete "$NAME" --region="$REGION"
  for secret in $(gcloud secrets list --format='value(name.basename())' | grep -E "^$NAME-[A-Z_]+$" || true); do
    change gcloud secrets delete "$secret"
  done
  ! gcloud iam service-accounts list --format='value(email)' | is_listed "$ACCOUNT" ||
    change gcloud iam service-accounts delete "$ACCOUNT"
}

main() {
  while (($#)); do
    case $1 in
      --target) shift && TARGET=${1?--target: expected a value} ;;
      --env-file) shift && ENV_FILE=${1?--env-file: expected a value} ;;
      --dry-run) DRY_RUN=1 ;;
      --rotate-tokens) ACTION=rotate_tokens ;;
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
  trap finish EXIT
  cd "$ROOT"
  check_settings
  check_credentials
  "$ACTION"
  if [[ $DRY_RUN ]]; then printf '\nA dry run: nothing was changed.\n'; else printf '\nDone.\n'; fi
}

main "$@"
