#!/usr/bin/env bash
# Deploys the scenario evaluation scheduler; ./deploy.sh --help says how, docs/deployment.md says more.
#
# Each step looks at what is there and does what is missing, so a deployment that broke off is run again and goes on. Whatever
# stands in an argument is visible to all users of this machine: secrets go by environment, standard input and files that
# only this user can read.
set -euo pipefail

usage() {
  cat <<'USAGE'
./deploy.sh [--target cloud-run|container] [--env-file FILE] [--dry-run]
./deploy.sh --rotate-tokens [...]
./deploy.sh --uninstall [--delete-data] [--yes] [...]

Applies the migrations, deploys the function, tells the database where it is, and tries it with a dry run of ten mentors.
Run it again after every change of code or settings: it does what is missing and nothing else.

  --target cloud-run   the function runs on Google Cloud Run (default)
  --target container   an image is built here; where it runs is up to you
  --env-file FILE      the settings (default: .env, if it is there); the environment has the last word
  --dry-run            look at everything, say what would be done, change nothing
  --rotate-tokens      new tokens for the function's callers, without a moment in which one of them is refused; the file
                       of settings gets them
  --uninstall          nothing calls the function any more, and it is gone; what it recorded stays; says what else does
  --delete-data        with --uninstall: that goes too; the mentors stay
  --yes                with --uninstall: do not ask
  --help               this

.env.example explains the settings. Needed: Python 3.11, psql, the Supabase CLI, and gcloud or docker.
USAGE
}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly ROOT
TARGET=cloud-run ACTION=deploy ENV_FILE='' DRY_RUN='' DELETE_DATA='' YES=''
STEP='' WORK='' PYTHON='' STAGED='' SOURCE_DIGEST='' ACCOUNT='' SECRETS='' FUNCTION_URL=''

# --- Saying what is done ---------------------------------------------------------------------------------------------------

step() {
  STEP=$1
  printf '\n== %s\n' "$STEP"
}

say() { printf '   %s\n' "$*"; }

fail() {
  printf 'deploy.sh: %s\n' "$*" >&2
  exit 1
}

# Runs a command that changes something; in a dry run only says it.
change() {
  local words
  words=$(printf ' %q' "$@")
  if [[ $DRY_RUN ]]; then
    say "would run:$words"
    return 0
  fi
  say "\$$words"
  "$@"
}

finish() {
  local code=$?
  [[ -n $WORK ]] && rm -rf "$WORK"
  if ((code)) && [[ -n $STEP ]]; then
    printf '\ndeploy.sh: stopped at "%s". What was done before it stays. Fix the errors above and run it again.\n' "$STEP" >&2
  fi
}

# Whether it is one of the lines on standard input.
is_listed() { grep -xF -- "$1" >/dev/null; }

# --- Settings --------------------------------------------------------------------------------------------------------------

deployment() { "$PYTHON" -m shared.deployment --target "$TARGET" ${ENV_FILE:+--env-file "$ENV_FILE"} "$@"; }

fact() { cat "$WORK/facts/$1"; }

has_fact() { [[ -e $WORK/facts/$1 ]]; }

# A Python that can read the settings: the project's own, the system's, or one made here for the purpose.
find_python() {
  local python
  for python in "$ROOT/.venv/bin/python" "$ROOT/build/deploy-venv/bin/python" python3; do
    if "$python" -c 'import sys, cronsim, dotenv, httpx, pydantic_settings; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      PYTHON=$python
      return 0
    fi
  done
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || return 1
  say 'installing what reads the settings into build/deploy-venv (first use only)'
  python3 -m venv "$ROOT/build/deploy-venv" || return 1
  PYTHON=$ROOT/build/deploy-venv/bin/python
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$ROOT/shared/deployment/requirements.lock"
}

check_settings() {
  step 'Check prerequisites and settings'
  local problems='' found command
  local commands=(psql supabase)
  if [[ $TARGET == cloud-run ]]; then commands+=(gcloud); elif [[ $ACTION == deploy ]]; then commands+=(docker); fi
  for command in "${commands[@]}"; do
    command -v "$command" >/dev/null || problems+="$command: not installed, or not on PATH"$'\n'
  done
  if ! find_python; then
    problems+='python3: expected Python 3.11 or newer with venv and pip'$'\n'
  else
    read_settings 2>"$WORK/problems" || problems+=$(<"$WORK/problems")$'\n'
  fi
  if [[ -n $problems ]]; then
    printf '%s' "$problems" | sed 's/^/   /' >&2
    fail 'nothing was done; fix each line above first'
  fi
  found=$(cd "$WORK/facts/secrets" && echo *)
  say "all settings are usable; secret among them: $found"
}

read_settings() {
  rm -rf "$WORK/facts"
  mkdir "$WORK/facts"
  deployment settings "$WORK/facts"
}

check_credentials() {
  step 'Check credentials'
  local problems='' answer
  answer=$(deployment credentials 2>&1) || problems+="$answer"$'\n'
  if ! answer=$(sql <<<"select string_agg(name, ', ') from unnest(array['pgmq', 'pg_net', 'pg_cron', 'supabase_vault'])
                        as needed (name) where name not in (select name from pg_available_extensions)" 2>&1); then
    problems+="DATABASE_URL: $answer"$'\n'
  elif [[ -n $answer ]]; then
    problems+="DATABASE_URL: this database has no $answer; is it a Supabase project's?"$'\n'
  fi
  if [[ $TARGET == cloud-run ]]; then
    answer=$(google projects describe "$(fact google_cloud_project)" --format='value(projectNumber)' 2>&1) ||
      problems+="gcloud: $answer"$'\n'
  fi
  if [[ -n $problems ]]; then
    printf '%s' "$problems" | sed 's/^/   /' >&2
    fail 'nothing was done'
  fi
  say 'database, Data API and cloud let us in'
}

# --- The database ----------------------------------------------------------------------------------------------------------

# Runs the SQL on standard input. Nothing of it is in an argument, and nothing secret in a statement, which a server may log.
sql() {
  PGPASSWORD=$(fact database_password) PGCONNECT_TIMEOUT=15 psql --no-psqlrc --quiet --no-align --tuples-only --no-password \
    --set ON_ERROR_STOP=1 --set VERBOSITY=terse --dbname "$(fact database_url)" --file - "$@"
}

is_migrated() { [[ $(sql <<<"select to_regprocedure('scheduler.disconnect()') is not null") == t ]]; }

migrate_database() {
  step 'Migrate the database'
  local applied folder=$WORK/project/supabase file version missing=0
  applied=$(applied_migrations)
  # In a folder of its own: the CLI leaves notes where it works.
  mkdir -p "$folder"
  cp -R "$ROOT/supabase/config.toml" "$ROOT/supabase/migrations" "$folder"
  for file in "$folder"/migrations/*.sql; do
    version=${file##*/}
    is_listed "${version%%_*}" <<<"$applied" || missing=$((missing + 1))
  done
  if ((missing == 0)); then
    say 'all migrations are applied'
    return
  fi
  # It refuses a database in which it finds migrations of others, unless it finds files for them as well.
  for version in $applied; do
    compgen -G "$folder/migrations/${version}_*" >/dev/null || : >"$folder/migrations/${version}_of_others.sql"
  done
  # include-all: theirs may be younger than ours.
  PGPASSWORD=$(fact database_password) supabase db push --include-all --workdir "$WORK/project" --yes ${DRY_RUN:+--dry-run} \
    --remote="$(fact database_url)" </dev/null 2>&1 | sed 's/^/   /' ||
    fail 'the Supabase CLI could not apply them (if it knows no --remote: it has to be version 3 or newer)'
  # A hosted project notices by itself; others may not.
  if [[ -z $DRY_RUN ]]; then sql <<<"notify pgrst, 'reload schema'"; fi
}

# The migrations check it when they are first applied; it is the application's, and may have been changed since.
check_mentors_view() {
  step 'Check the view of the mentors'
  local fault
  if ! is_migrated; then
    say 'the migrations will check it'
    return
  fi
  fault=$(sql <<<'select public.scheduler_mentors_view_fault()')
  [[ -z $fault ]] || fail "$fault"
  say 'public.active_peer_mentors has the columns user_id uuid and segments text[]'
}

applied_migrations() {
  [[ $(sql <<<"select to_regclass('supabase_migrations.schema_migrations') is not null") == t ]] || return 0
  sql <<<'select version from supabase_migrations.schema_migrations'
}

# Ours, but for the mentors' table and view, which are the application's.
own_migrations() {
  local file
  for file in "$ROOT"/supabase/migrations/*.sql; do
    file=${file##*/}
    [[ $file == *_create_sample_peer_mentors.sql ]] || printf '%s,' "${file%%_*}"
  done
}

# Before the function: a new schedule begins with its next slot, and none of today is caught up under it.
prepare_schedule() {
  step 'Prepare the schedule'
  if ! is_migrated; then
    say 'a new installation: the first slot from now on is the first to run'
  elif [[ $DRY_RUN ]]; then
    say "would have the schedule $(fact schedule) begin with its next slot, if it is a new one"
  elif [[ $(sql --set schedule="$(fact schedule)" <<<"select scheduler.prepare_schedule(:'schedule')") == t ]]; then
    say "the schedule is new ($(fact schedule)): the first slot from now on is the first to run"
  else
    say "the schedule stays ($(fact schedule))"
  fi
}

connect_database() {
  step 'Connect the database to the function'
  local changed
  if [[ $DRY_RUN ]]; then
    say "would keep $1/ and the first invoke token in Vault, and schedule the cron jobs"
    return
  fi
  changed=$(INVOKE_TOKEN=$(fact invoke_token) sql --set function_url="$1" --set schedule="$(fact schedule)" \
    <"$ROOT/supabase/connect.sql")
  if [[ $changed == t ]]; then say 'Vault holds its URL and the invoke token'; else say 'Vault held its URL and the invoke token already'; fi
}

# Has the database call the function as it does every minute, and waits for the answer.
try_dispatch() {
  step 'Have the database call the function'
  if [[ $DRY_RUN ]]; then
    say 'would run scheduler.dispatch() and wait for the answer'
    return
  fi
  local dispatch answer='' attempt
  dispatch=$(
    sql <<'SQL'
select scheduler.dispatch() as posted \gset
select max(id) from scheduler.dispatches;
SQL
  )
  for ((attempt = 0; attempt < 120; attempt++)); do
    answer=$(
      sql <<SQL
select from scheduler.collect_responses() \g /dev/null
select coalesce(status_code::text, error) from scheduler.dispatches where id = ${dispatch:-0};
SQL
    )
    [[ -z $answer ]] || break
    sleep 0.5
  done
  # connect() has cleared when the next slot is due; the next call of the function stores it again.
  if [[ -z $answer && $(sql <<<'select next_due_at is not null from scheduler.settings') == t ]]; then
    answer='not yet, it is at work'
  fi
  case $answer in
    200 | 202 | not*) say "pg_net called it with the token from Vault; its answer: $answer" ;;
    401) fail 'the function does not know the token that Vault holds (401)' ;;
    '') fail 'pg_net has sent nothing for a minute; is its worker running (select net.worker_restart())?' ;;
    *) fail "the database's call was answered: $(describe_answer "$dispatch" "$answer")" ;;
  esac
}

# What the function said of the error that it answered a dispatch with. pg_net may have lost it: then it is the status alone.
describe_answer() {
  local described=''
  if [[ $2 =~ ^[0-9]+$ ]]; then
    described=$(
      sql <<SQL | deployment problem "$2"
select left(answer.content, 100000)
  from scheduler.dispatches as d
  join net._http_response as answer on answer.id = d.request_id and answer.status_code = d.status_code
 where d.id = $1;
SQL
    ) || true
  fi
  printf '%s' "${described:-$2}"
}

show_state() {
  step 'State'
  if ! is_migrated; then
    say 'nothing is installed yet'
    return
  fi
  sql <<'SQL' | sed 's/^/   /'
set timezone = 'UTC';
select 'schedule     ' || coalesce(schedule, 'none') || coalesce(', next slot due ' || to_char(next_due_at, 'YYYY-MM-DD HH24:MI UTC'), '')
  from scheduler.settings;
select 'last run     ' || coalesce((
    select to_char(scheduled_for, 'YYYY-MM-DD HH24:MI UTC') || ': ' || status || coalesce(', ' || error_code, '')
      from public.scheduler_invocations
     where trigger = 'schedule' and deleted_at is null
     order by created_at desc limit 1
  ), 'none yet');
select 'cron job     ' || jobname || ', ' || schedule || case when active then '' else ', NOT ACTIVE' end
  from cron.job where jobname like 'scheduler-%' order by jobname;
select 'call         ' || to_char(requested_at, 'YYYY-MM-DD HH24:MI:SS UTC') || ': '
    || coalesce(status_code::text, error, case when ended_at is null then 'under way' else 'ended' end)
  from (select * from scheduler.dispatches order by id desc limit 3) as newest order by id;
SQL
}

# --- The function ----------------------------------------------------------------------------------------------------------

stage_function() {
  step 'Stage the function'
  STAGED=$WORK/staged
  mkdir -p "$STAGED"
  cp -R "$ROOT/functions" "$ROOT/shared" "$STAGED"
  rm -rf "$STAGED/shared/deployment"
  find "$STAGED" -name __pycache__ -type d -prune -exec rm -rf {} +
  cp "$ROOT/shared/deployment/requirements.lock" "$STAGED/requirements.txt"
  echo 'from functions.main import handle_scheduled_invocation as handle_scheduled_invocation' >"$STAGED/main.py"
  [[ $TARGET == cloud-run ]] || cp "$ROOT/shared/deployment/Dockerfile" "$STAGED"
  SOURCE_DIGEST=$(deployment digest "$STAGED")
  say "version $(fact version), digest ${SOURCE_DIGEST:0:12}"
}

google() { gcloud --project="$(fact google_cloud_project)" --quiet "$@"; }

change_google() { change gcloud --project="$(fact google_cloud_project)" --quiet "$@" </dev/null; }

# For what is there, but not everywhere at once.
change_google_patiently() {
  local attempt
  for attempt in 1 2 3 4 5; do
    if change_google "$@"; then return 0; fi
    ((attempt == 5)) || sleep $((attempt * 3))
  done
  return 1
}

# Lists what is there. Before the first deployment, a dry run finds services that are not enabled yet.
list() {
  if [[ $DRY_RUN ]]; then google "$@" 2>/dev/null || true; else google "$@"; fi
}

prepare_google() {
  step 'Prepare Google Cloud: services, account, secrets'
  ACCOUNT="$(fact function_name)@$(fact google_cloud_project).iam.gserviceaccount.com"
  local enabled service missing=()
  enabled=$(google services list --enabled --format='value(config.name)')
  for service in run.googleapis.com cloudbuild.googleapis.com artifactregistry.googleapis.com secretmanager.googleapis.com; do
    is_listed "$service" <<<"$enabled" || missing+=("$service")
  done
  ((${#missing[@]} == 0)) || change_google services enable "${missing[@]}"
  # It may read the secrets below and nothing else: the project's default account may edit everything.
  if ! list iam service-accounts list --format='value(email)' | is_listed "$ACCOUNT"; then
    change_google iam service-accounts create "$(fact function_name)" --display-name='Scenario evaluation scheduler'
  fi
  keep_secrets
}

# Each secret in Secret Manager, under its newest version. Sets SECRETS to the names and versions that the function gets.
keep_secrets() {
  local file name secret version known readers
  SECRETS=''
  known=$(list secrets list --format='value(name.basename())')
  for file in "$WORK"/facts/secrets/*; do
    name=${file##*/}
    secret=$(fact function_name)-$name
    version='' readers=''
    if is_listed "$secret" <<<"$known"; then
      version=$(google secrets versions list "$secret" --filter=state:ENABLED --limit=1 --format='value(name.basename())')
      readers=$(google secrets get-iam-policy "$secret" --flatten='bindings[].members' \
        --filter=bindings.role:roles/secretmanager.secretAccessor --format='value(bindings.members)')
    else
      change_google secrets create "$secret" --replication-policy=automatic
    fi
    if ! is_listed "serviceAccount:$ACCOUNT" <<<"$readers"; then
      [[ $DRY_RUN ]] || say "letting the function's account read $secret"
      change_google_patiently secrets add-iam-policy-binding "$secret" --member="serviceAccount:$ACCOUNT" \
        --role=roles/secretmanager.secretAccessor >/dev/null || fail "cannot let the function read $secret"
    fi
    if [[ -z $version ]] || ! google secrets versions access "$version" --secret="$secret" 2>/dev/null | cmp -s - "$file"; then
      version=$(add_secret_version "$secret" "$file")
    fi
    SECRETS+="${SECRETS:+,}$name=$secret:${version##*/}"
  done
}

# Answers its name on standard output; what is said goes past it.
add_secret_version() {
  if [[ $DRY_RUN ]]; then
    say "would add a version to $1" >&2
    echo new
  else
    say "a new version of $1" >&2
    google secrets versions add "$1" --data-file=- --format='value(name)' <"$2"
  fi
}

deploy_to_google() {
  step 'Deploy the function to Cloud Run'
  local name region labels='' settings_digest services source_now='' settings_now='' created='' ready=''
  name=$(fact function_name) region=$(fact google_cloud_region)
  local flags=(
    --region="$region" --service-account="$ACCOUNT" --env-vars-file="$WORK/facts/environment.json" --set-secrets="$SECRETS"
    --concurrency="$(fact function_concurrency)" --timeout="$(fact request_timeout)" --memory="$(fact function_memory)" --cpu=1
    --max-instances="$(fact function_max_instances)"
  )
  mkdir -p "$WORK/deployed"
  cp "$WORK/facts/environment.json" "$WORK/deployed"
  settings_digest=$(deployment digest "$WORK/deployed" "$SECRETS" "$ACCOUNT" "$(fact function_concurrency)" "$(fact request_timeout)" \
    "$(fact function_memory)" "$(fact function_max_instances)")
  labels=source_digest=$SOURCE_DIGEST,settings_digest=$settings_digest
  services=$(list run services list --region="$region" --format='value(metadata.name)')
  if is_listed "$name" <<<"$services"; then
    IFS='|' read -r source_now settings_now created ready < <(google run services describe "$name" --region="$region" \
      --format='value[separator="|"](metadata.labels.source_digest,metadata.labels.settings_digest,status.latestCreatedRevisionName,status.latestReadyRevisionName)')
  fi
  # A revision that did not become ready is no reason to believe its labels.
  [[ -n $ready && $created == "$ready" ]] || source_now=''
  if [[ $source_now == "$SOURCE_DIGEST" && $settings_now == "$settings_digest" ]]; then
    say 'nothing has changed since it was deployed'
  elif [[ $source_now == "$SOURCE_DIGEST" ]]; then
    change_google run services update "$name" "${flags[@]}" --update-labels="$labels"
  else
    # Public, because pg_net cannot get an identity token from Google: the function has tokens of its own.
    change_google run deploy "$name" --source="$STAGED" --function=handle_scheduled_invocation --base-image=python311 \
      --allow-unauthenticated "${flags[@]}" --update-labels="$labels"
  fi
  FUNCTION_URL=$(list run services describe "$name" --region="$region" --format='value(status.url)')
  FUNCTION_URL=${FUNCTION_URL:-https://the-address-that-cloud-run-gives}
}

# What is superseded opens nothing any more or should not: a rolled-back deployment makes versions of its own.
drop_old_secret_versions() {
  local file secret version
  for file in "$WORK"/facts/secrets/*; do
    secret=$(fact function_name)-${file##*/}
    for version in $(google secrets versions list "$secret" --filter=state:ENABLED --format='value(name.basename())' 2>/dev/null | tail -n +2); do
      change_google secrets versions destroy "$version" --secret="$secret"
    done
  done
}

build_container() {
  step 'Build the image'
  local image
  image=scenario-evaluation-scheduler:$(fact version)
  if has_fact image; then image=$(fact image); fi
  change docker build --tag "$image" "$STAGED" </dev/null
  if has_fact image; then change docker push "$image" </dev/null; fi
  FUNCTION_URL=''
  if has_fact function_url; then FUNCTION_URL=$(fact function_url); fi
  [[ -n $FUNCTION_URL ]] && return
  STEP=''
  say "run $image with the settings as its environment, for example:"
  say "  docker run --rm --env-file ${ENV_FILE:-FILE} --publish 8080:8080 $image"
  say 'then set FUNCTION_URL to where the database reaches it, and run this again'
  exit 0
}

deploy_function() {
  if [[ $TARGET == cloud-run ]]; then
    prepare_google
    deploy_to_google
  else
    build_container
  fi
}

try_function() {
  step 'Try the function'
  if [[ $DRY_RUN ]]; then
    say "would wait until version $(fact version) is up"
    return
  fi
  deployment up "$FUNCTION_URL" || fail 'the new version is not up'
}

# --- What it is called for -------------------------------------------------------------------------------------------------

deploy() {
  stage_function
  migrate_database
  check_mentors_view
  prepare_schedule
  deploy_function
  try_function
  connect_database "$FUNCTION_URL"
  try_dispatch
  step 'Smoke test'
  if [[ $DRY_RUN ]]; then say 'would evaluate ten mentors in a dry run'; else deployment smoke-test "$FUNCTION_URL"; fi
  if [[ $TARGET == cloud-run ]]; then drop_old_secret_versions; fi
  show_state
}

# New tokens beside the old ones, then the database takes the new one, then the old ones go: every caller keeps a known token throughout.
rotate_tokens() {
  [[ -n $ENV_FILE ]] || fail '--rotate-tokens needs a file of settings, since the new tokens have to be kept somewhere'
  [[ -z ${SCHEDULER_INVOKE_TOKENS:-}${SCHEDULER_ADMIN_TOKENS:-} ]] ||
    fail 'unset SCHEDULER_INVOKE_TOKENS and SCHEDULER_ADMIN_TOKENS: the environment has the last word over the file'
  is_migrated || fail 'nothing is installed there: run ./deploy.sh first'
  if [[ $TARGET == container ]]; then
    rotate_in_container
    return
  fi
  stage_function
  step 'Add new tokens to the old ones'
  change_tokens add
  deploy_function
  try_function
  connect_database "$FUNCTION_URL"
  try_dispatch
  step 'Take the old tokens away'
  change_tokens keep-newest
  deploy_function
  try_function
  connect_database "$FUNCTION_URL"
  try_dispatch
  drop_old_secret_versions
  show_state
  printf '\nThe new tokens are in %s.\n' "$ENV_FILE"
}

change_tokens() {
  change deployment tokens "$1"
  if [[ -z $DRY_RUN ]]; then read_settings; fi
}

# The function is started by its operator, so this comes in two halves.
rotate_in_container() {
  has_fact function_url || fail 'FUNCTION_URL: missing; there is no function to rotate the tokens of'
  FUNCTION_URL=$(fact function_url)
  if [[ $(tr -cd , <"$WORK/facts/secrets/SCHEDULER_ADMIN_TOKENS") != *,* ]]; then
    step 'Add new tokens to the old ones'
    change_tokens add
    say "start the function anew with the tokens in $ENV_FILE, and run this again"
    return
  fi
  step 'Take the old tokens away'
  deployment knows-token "$FUNCTION_URL" || fail "the function does not know the new tokens yet: start it anew with $ENV_FILE"
  connect_database "$FUNCTION_URL"
  try_dispatch
  change_tokens keep-newest
  say "the old tokens end when the function is started anew with $ENV_FILE"
}

uninstall() {
  if [[ -z $YES && -z $DRY_RUN ]]; then
    local answer=''
    printf '\nThis ends the scheduled runs%s. Type "uninstall" to go on: ' "${DELETE_DATA:+ and deletes what they recorded}"
    read -r answer || true
    [[ $answer == uninstall ]] || fail 'nothing was done'
  fi
  disconnect_database
  if [[ $TARGET == cloud-run ]]; then remove_from_google; fi
  if [[ $DELETE_DATA ]]; then
    step 'Delete the data'
    if [[ $DRY_RUN ]]; then say 'would run supabase/uninstall.sql'; else sql --set versions="$(own_migrations)" <"$ROOT/supabase/uninstall.sql"; fi
  fi
  say_what_is_left
}

disconnect_database() {
  step 'Disconnect the database'
  local under_way attempt
  if ! is_migrated; then
    say 'nothing is installed there'
    return
  fi
  if [[ $DRY_RUN ]]; then
    say 'would take the URL and the token out of Vault, end the cron jobs, and delete what pg_net and pg_cron keep of its calls'
    return
  fi
  # A call that pg_net is sending ends within the time budget; its answer is deleted once it is there.
  for ((attempt = 0; attempt < 120; attempt++)); do
    under_way=$(sql <<<'select scheduler.disconnect()')
    if ((under_way == 0)); then break; fi
    sleep 0.5
  done
  say 'Vault holds nothing of it, no cron job calls it, and what pg_net and pg_cron kept of its calls is deleted'
  if ((under_way == 0)); then return; fi
  if [[ $DELETE_DATA ]]; then
    say "but for $under_way under way: pg_net keeps their answers for six hours"
  else
    say "but for $under_way under way: pg_net keeps their answers for six hours; run this again to delete them"
  fi
}

say_what_is_left() {
  step 'What is left'
  [[ $DELETE_DATA ]] || say 'schema scheduler, its tables, functions and queues, and what was recorded: ./deploy.sh takes it up again'
  say "peer_mentors and active_peer_mentors, which are the application's"
  say 'the extensions pgmq, pg_net, pg_cron and supabase_vault, since others may use them'
  say "its statements, without secrets, in pg_stat_statements and the server's log; the database's backups"
  if [[ $TARGET == cloud-run ]]; then
    say 'in Google Cloud: the images and uploaded sources of its builds, its logs, the services that were enabled'
  else
    say 'the container, which is yours to stop, and its image'
  fi
  say "at the engine: what it keeps of calls and notifications${ENV_FILE:+; and $ENV_FILE with the secrets}"
}

remove_from_google() {
  step 'Remove the function from Google Cloud'
  local name region secret
  name=$(fact function_name) region=$(fact google_cloud_region)
  ACCOUNT="$name@$(fact google_cloud_project).iam.gserviceaccount.com"
  if google run services list --region="$region" --format='value(metadata.name)' | is_listed "$name"; then
    change_google run services delete "$name" --region="$region"
  fi
  for secret in $(google secrets list --format='value(name.basename())' | grep -E "^$name-[A-Z_]+$" || true); do
    change_google secrets delete "$secret"
  done
  if google iam service-accounts list --format='value(email)' | is_listed "$ACCOUNT"; then
    change_google iam service-accounts delete "$ACCOUNT"
  fi
}

main() {
  while (($#)); do
    case $1 in
      --target | --env-file)
        (($# > 1)) || fail "$1: expected a value"
        if [[ $1 == --target ]]; then TARGET=$2; else ENV_FILE=$2; fi
        shift
        ;;
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
  if [[ -n $ENV_FILE ]]; then
    [[ -r $ENV_FILE ]] || fail "--env-file: $ENV_FILE cannot be read"
    ENV_FILE=$(cd "$(dirname "$ENV_FILE")" && pwd)/$(basename "$ENV_FILE")
  elif [[ -r $ROOT/.env ]]; then
    ENV_FILE=$ROOT/.env
  fi
  umask 077
  WORK=$(mktemp -d)
  trap finish EXIT
  cd "$ROOT"
  check_settings
  check_credentials
  "$ACTION"
  STEP=''
  if [[ $DRY_RUN ]]; then printf '\nA dry run: nothing was changed.\n'; else printf '\nDone.\n'; fi
}

main "$@"
