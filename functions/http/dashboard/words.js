// What the API's names mean, in words and signs. Each sign has a shape of its own: colour alone never carries meaning.

import { h, s } from "./dom.js";
import { span } from "./times.js";

/** From so late on a run is called late, in seconds. */
const LATE_SECONDS = 300;

export const OUTCOMES = ["triggered", "not_triggered", "suppressed", "skipped", "failed", "not_evaluated"];

const NUMBER = new Intl.NumberFormat();

const STATUSES = {
  pending: ["waiting", "open"],
  running: ["running", "open"],
  success: ["success", "good"],
  partial: ["partial", "warning"],
  failed: ["failed", "bad"],
  cancelled: ["cancelled", "off"],
  skipped: ["skipped", "off"],
  missed: ["no run", "missed"],
};

// Drawn in a square of 16.
const SIGNS = {
  pending: "M4 8h.01M8 8h.01M12 8h.01",
  running: "M8 3a5 5 0 1 1-4.6 3M3 2.6v3.6h3.6",
  success: "M3.5 8.5l3 3 6-7",
  partial: "M8 3.5v5.5M8 12.4v.1",
  failed: "M4 4l8 8M12 4l-8 8",
  cancelled: "M3.5 8h9",
  skipped: "M3.5 4l4 4-4 4M8.5 4l4 4-4 4",
  missed: "M5.6 6a2.4 2.4 0 1 1 3.4 2.2c-.7.35-1 .8-1 1.4v.3M8 12.6v.1",
  late: "M8 2.6a5.4 5.4 0 1 1 0 10.8a5.4 5.4 0 0 1 0-10.8M8 5v3.2l2.2 1.4",
};

const OUTCOME_WORDS = {
  triggered: ["triggered", "a notification was queued"],
  not_triggered: ["not triggered", "nothing to do"],
  suppressed: ["suppressed", "it applies, but a cool-down or a wish forbids it"],
  skipped: ["skipped", "not sent to the engine, for the reason given"],
  failed: ["failed", "the engine could not decide"],
  not_evaluated: ["not evaluated", "the run ended before its turn"],
};

const TRIGGERS = { schedule: "scheduled", manual: "manual", retry: "retry" };

const REASONS = {
  no_active_mentors: "No active mentor was read. An empty view looks like this, and so does a key that may not read it: check the view active_peer_mentors and SUPABASE_SECRET_KEY.",
  mentors_view_invalid: "The view active_peer_mentors has the wrong columns, or none of its rows can be used. An open run waits for it, and continues by itself once the view is fixed.",
  expired: "It was still open when its time was up; what had not been evaluated by then was left.",
  marked_failed: "An operator ended it as failed; what had not been evaluated by then was left.",
  paused: "The schedule was paused when its time came.",
  overlap: "The run before it was still open when its time came.",
  no_enabled_scenarios: "Every scenario type was off when it was opened, so no mentor was read. Switch one on (page Scenarios), then run now or wait for the next slot.",
  engine_unavailable: "The trigger engine is unavailable. No pair failed because of that: the batches wait, and continue by themselves when it is back.",
  engine_rejected: "The trigger engine turns the scheduler away (401, 403, 404 or a redirect). Check SCENARIO_ENGINE_URL and SCENARIO_ENGINE_TOKEN; the batches wait meanwhile.",
};

const CAUSES = {
  engine_timeout: "The engine took too long to answer, while it answered about other mentors.",
  engine_unreachable: "The call broke off, while calls about other mentors went through.",
  engine_bad_answer: "The engine's answer cannot be read.",
  engine_missing_result: "The engine's answer has no result for this.",
  engine_failed: "The engine returned a failure without a cause.",
  outcome_unknown: "A call about this broke off or failed, and the engine may have acted on it. Look into the engine's log; a retry leaves it out, unless it has include_unknown, by the API.",
  dry_run_not_supported: "The engine supports no dry run, so it was not called.",
  forgotten: "The person was erased here.",
  worker_lost: "The function crashed, or did not finish, at each attempt to evaluate this.",
  time_budget_exceeded: "The evaluation took longer than several slices.",
  mentor_not_active: "Unknown, or not active at that time.",
  invalid_segments: "The segments in the view active_peer_mentors cannot be used: a null among them, an array of several dimensions, or more than 200,000 bytes.",
  scenario_not_applicable: "The scenario type does not apply.",
  scenario_disabled: "The scenario type has been switched off since the run that this one retries, and was not evaluated again.",
};

export function count(number) {
  return NUMBER.format(number);
}

/** "1 evaluation", "2 evaluations" */
export function counted(number, noun, plural = `${noun}s`) {
  return `${count(number)} ${number === 1 ? noun : plural}`;
}

export function statusWord(status) {
  return STATUSES[status]?.[0] ?? status;
}

export function toneOf(status) {
  return STATUSES[status]?.[1] ?? "off";
}

export function outcomeWord(outcome) {
  return outcome === null ? "open" : (OUTCOME_WORDS[outcome]?.[0] ?? outcome);
}

export function outcomeMeaning(outcome) {
  return OUTCOME_WORDS[outcome]?.[1] ?? "";
}

export function triggerWord(trigger) {
  return TRIGGERS[trigger] ?? trigger;
}

export function reasonText(error) {
  return REASONS[error] ?? error;
}

/** Rows of the mentors' view that led to no evaluation, by reason; empty where none. */
export function skipText({ no_scenario_applies, user_id_missing, invalid_segments }) {
  return [
    no_scenario_applies && `no enabled scenario type that was due applies to ${count(no_scenario_applies)}`,
    user_id_missing && `${counted(user_id_missing, "row")} without a user id`,
    invalid_segments && `${counted(invalid_segments, "row")} with invalid segments`,
  ].filter(Boolean).join(", ");
}

/** What to make of a cause of failures; empty where its own message has to do. */
export function causeText(code) {
  const status = /^engine_http_(\d{3})$/.exec(code)?.[1];
  if (status) return `The engine answered ${status}, while it answered about other mentors.`;
  return CAUSES[code] ?? "";
}

/** How many evaluations a cause is known to have. */
export function causeCount(cause) {
  return cause.is_lower_bound ? `at least ${count(cause.count)}` : count(cause.count);
}

export function isLate(run) {
  return run.lateness_seconds !== null && run.lateness_seconds > LATE_SECONDS && run.trigger === "schedule";
}

export function isOpen(run) {
  return run.finished_at === null;
}

/** How many evaluations of an ended run have no result. */
export function unfinished(run) {
  return run.counts.failed + run.counts.not_evaluated;
}

/** Rows of the mentors' view that could not be used. */
export function unusable(run) {
  return run.skip_reasons.user_id_missing + run.skip_reasons.invalid_segments;
}

/** The retries of a run and of its retries, the newest first, among these. */
export function retriesOf(run, retries) {
  const ids = new Set([run.id]);
  return retries.toReversed().filter((retry) => ids.has(retry.retry_of) && ids.add(retry.id)).reverse();
}

export function evaluated(run) {
  return OUTCOMES.reduce((sum, outcome) => sum + run.counts[outcome], 0);
}

/** A sign of 16 by 16, for the eye only. */
export function sign(name) {
  return s("svg", { class: `sign sign-${name}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { d: SIGNS[name] ?? SIGNS.pending }));
}

export function statusBadge(status) {
  return h("span", { class: `badge tone-${toneOf(status)}` }, sign(status), statusWord(status));
}

export function lateBadge(run) {
  return isLate(run) && h("span", { class: "badge tone-warning" }, sign("late"), `${span(run.lateness_seconds)} late`);
}

export function outcomeBadge(outcome) {
  return h("span", { class: `outcome outcome-${outcome ?? "open"}`, title: outcomeMeaning(outcome) }, outcomeWord(outcome));
}
