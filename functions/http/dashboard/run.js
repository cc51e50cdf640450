// One run with all that is known of it, live while it works.

import { cancelButton, noteButton, retryButton } from "./actions.js";
import { getRun, listRuns } from "./api.js";
import { auditAddress } from "./audit.js";
import { announce, h, Region, table } from "./dom.js";
import { Poll } from "./polling.js";
import { pollProblem, problemText } from "./problem.js";
import { resultsAddress } from "./results.js";
import { unfinishedText } from "./runs_table.js";
import { secondsBetween, span, time } from "./times.js";
import { OUTCOMES, causeCount, causeText, count, counted, evaluated, isLate, isOpen, lateBadge, outcomeMeaning, outcomeWord, reasonText, retriesOf, sign, skipText, statusBadge, statusWord, toneOf, triggerWord, unfinished } from "./words.js";

const QUICK_MS = 700;
const SLOW_MS = 5_000;
const AFTERWARDS_MS = 30_000;
const ANNOUNCED_MS = 10_000;
const RATE_OVER_MS = 15_000;
const NOT_STARTED_SECONDS = 90;

export function runView(context, id) {
  const trouble = h("div", { role: "alert", class: "error-place" });
  const names = ["heading", "progress", "facts", "counts", "scenarios", "failures", "waiting", "dispatches", "config"];
  const places = Object.fromEntries(names.map((name) => [name, h("div", { class: `place-${name}` })]));
  const regions = {
    heading: new Region(places.heading, ({ run, retries }) => heading(context, run, retries, () => poll.now())),
    facts: new Region(places.facts, facts),
    counts: new Region(places.counts, counts),
    scenarios: new Region(places.scenarios, scenarios),
    failures: new Region(places.failures, (data) => failures(id, data)),
    waiting: new Region(places.waiting, waiting),
    dispatches: new Region(places.dispatches, dispatches),
    config: new Region(places.config, config),
  };
  const progress = new Progress(places.progress);
  places.heading.append(h("h1", { tabindex: -1, "data-key": "title" }, "One run"), h("p", { class: "loading" }, "Reading the run…"));
  const element = h("div", { class: "run" }, h("p", { class: "back" }, h("a", { href: "#/" }, "All runs")), trouble, Object.values(places));

  let pause = QUICK_MS;
  let last = null;
  let previous;

  async function look(signal) {
    const run = await getRun(id, { signal });
    // Only a run that has ended can have retries, so those of an open one are not requested.
    const retries = isOpen(run) || !(unfinished(run) || !run.enumeration_done) ? [] : retriesOf(run, (await listRuns({ trigger: "retry", limit: 50 }, { signal })).data);
    show(run, retries);
    const moved = JSON.stringify(run.counts);
    pause = moved === last ? Math.min(pause * 1.5, SLOW_MS) : QUICK_MS;
    last = moved;
    // Of an ended run a late result may still come.
    return isOpen(run) ? pause : AFTERWARDS_MS;
  }

  function show(run, retries) {
    regions.heading.show({ run: headingOf(run), retries: retries.map(({ id: retry, invoked_at, status }) => ({ id: retry, invoked_at, status })) });
    progress.show(run);
    regions.facts.show(factsOf(run));
    regions.counts.show(run.counts);
    regions.scenarios.show(run.scenarios);
    regions.failures.show({ failures: run.failures, others: run.other_failures.count });
    regions.waiting.show({ ids: run.not_evaluated_user_ids, number: run.counts.not_evaluated });
    regions.dispatches.show({ answers: run.dispatches, open: isOpen(run), waited: isOpen(run) && !run.started_at && secondsBetween(run.invoked_at) > NOT_STARTED_SECONDS });
    regions.config.show({ config: run.config, request: run.request });
    if (previous && previous !== run.status && !isOpen(run)) announce(`The run has ended: ${statusWord(run.status)}. ${unfinishedText(run)}`);
    previous = run.status;
  }

  const poll = new Poll(look, (error, wait) => {
    if (error?.isOfToken) return context.lost(error);
    if (error?.status === 404 || error?.status === 422) {
      poll.stop();
      places.heading.replaceChildren(h("h1", { tabindex: -1 }, "There is no such run"));
      trouble.replaceChildren(problemText(error));
      return undefined;
    }
    places.heading.querySelector(".loading")?.remove();
    trouble.replaceChildren(...pollProblem(error, wait));
    return undefined;
  });
  return { element, title: "One run", focus: "h1", start: () => poll.start(), stop: () => poll.stop(), refresh: () => poll.now() };
}

function headingOf(run) {
  const { id, status, trigger, scheduled_for, invoked_at, dry_run, lateness_seconds, finished_at, error_code, error_message, note, retry } = run;
  return { id, status, trigger, scheduled_for, invoked_at, dry_run, lateness_seconds, finished_at, error_code, error_message, note, retry };
}

function heading(context, run, retries, refresh) {
  const open = isOpen(run);
  return [
    h(
      "div",
      { class: "heading" },
      h("div", {},
        h("h1", { tabindex: -1, "data-key": "title" }, { schedule: "Scheduled run of ", manual: "Manual run of ", retry: "Retry of " }[run.trigger], time(run.trigger === "schedule" ? run.scheduled_for : run.invoked_at)),
        h("p", { class: "badges" }, statusBadge(run.status), lateBadge(run), run.dry_run && h("span", { class: "badge tone-off" }, "dry run: no notifications"))),
      h("div", { class: "buttons" }, noteButton(context, run, refresh), open && cancelButton(context, run, refresh), retryButton(context, run)),
    ),
    run.error_code && h("p", { class: `notice tone-${open ? "warning" : toneOf(run.status)}` }, sign("partial"), h("span", {}, h("code", {}, run.error_code), " ", reasonText(run.error_code), run.error_message && [" ", run.error_message])),
    retries.length > 0 && h("p", { class: "notice tone-off" }, sign("skipped"), h("span", {}, "Retried: ", retries.map((retry, index) => [index ? ", " : "", h("a", { href: `#/runs/${retry.id}` }, time(retry.invoked_at)), " ", statusBadge(retry.status)]))),
  ];
}

/** The bar that moves, with its rate. It is announced in words every few seconds, not at every step. */
class Progress {
  #samples = [];
  #announcedAt = 0;

  constructor(element) {
    this.element = element;
    this.bar = h("progress", { max: 1, value: 0, "aria-label": "Evaluated" });
    this.text = h("p", { class: "progress-text" });
    this.element.append(h("section", { class: "card progress", "aria-label": "Progress" }, this.bar, this.text));
    this.element.hidden = true;
  }

  show(run) {
    const open = isOpen(run);
    this.element.hidden = !open;
    if (!open) return;
    const done = evaluated(run);
    const total = run.counts.evaluations;
    const rate = this.#rate(done);
    this.bar.max = Math.max(total, 1);
    this.bar.value = done;
    const text = [
      run.status === "pending" ? "Waiting for the function to begin." : `${count(done)} of ${counted(total, "evaluation")}${run.enumeration_done ? "" : " so far; still reading mentors"}`,
      total > 0 && run.enumeration_done && `${Math.floor((100 * done) / total)} %`,
      rate > 0 && `${count(Math.round(rate))} a second`,
      rate > 0 && run.enumeration_done && done < total && `about ${span((total - done) / rate)} to go`,
    ].filter(Boolean).join(" · ");
    this.text.textContent = text;
    if (Date.now() - this.#announcedAt > ANNOUNCED_MS) {
      this.#announcedAt = Date.now();
      announce(text);
    }
  }

  #rate(done) {
    const now = Date.now();
    this.#samples = [...this.#samples.filter((sample) => now - sample.at < RATE_OVER_MS), { at: now, done }];
    const first = this.#samples[0];
    return now - first.at > 500 ? (1000 * (done - first.done)) / (now - first.at) : 0;
  }
}

function factsOf(run) {
  const { id, trigger, triggered_by, requested_by, reason, scheduled_for, invoked_at, started_at, finished_at, expires_at, lateness_seconds, retry_of, note } = run;
  return { id, trigger, triggered_by, requested_by, reason, scheduled_for, invoked_at, started_at, finished_at, expires_at, lateness_seconds, retry_of, note, skip_reasons: run.skip_reasons, counts: { mentors: run.counts.mentors } };
}

function facts(run) {
  const skips = skipText(run.skip_reasons);
  const fact = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  return h(
    "section",
    { class: "card", "aria-labelledby": "facts-title" },
    h("h2", { id: "facts-title" }, "When"),
    h(
      "dl",
      { class: "facts" },
      run.trigger === "schedule" ? fact("Slot", time(run.scheduled_for)) : fact("Opened", time(run.invoked_at, "exact")),
      fact("Started", time(run.started_at, "exact")),
      run.trigger === "schedule" && fact("Lateness", span(run.lateness_seconds), isLate(run) && " (late)"),
      fact(run.finished_at ? "Ended" : "Ends at the latest", time(run.finished_at ?? run.expires_at, "exact")),
      run.finished_at && fact("Took", span(secondsBetween(run.started_at, run.finished_at))),
      fact("Kind", triggerWord(run.trigger)),
      fact("Triggered by", h("code", {}, run.triggered_by), run.requested_by && ` for ${run.requested_by}`),
      run.reason && fact("Reason", run.reason),
      run.retry_of && fact("Retries", h("a", { href: `#/runs/${run.retry_of}` }, "the run before")),
      fact("Mentors", count(run.counts.mentors), skips && ` (${skips})`),
      run.note && fact("Note", run.note),
      h("div", { class: "wide" }, h("dt", {}, "Id"), h("dd", {}, h("code", {}, run.id))),
    ),
    h("p", {}, h("a", { href: resultsAddress(run.id) }, "All stored results"), " · ", h("a", { href: auditAddress({ invocation_id: run.id }) }, "Who did it")),
  );
}

function counts(those) {
  const open = those.evaluations - evaluated({ counts: those });
  const parts = [...OUTCOMES.map((outcome) => [outcome, those[outcome]]), ["open", open]];
  return h(
    "section",
    { class: "card", "aria-labelledby": "counts-title" },
    h("h2", { id: "counts-title" }, counted(those.evaluations, "evaluation"), h("span", { class: "muted" }, ` in ${counted(those.batches, "batch", "batches")}`)),
    h("ul", { class: "tiles" }, parts.filter(([outcome, number]) => number > 0 || !["open", "suppressed", "skipped"].includes(outcome)).map(([outcome, number]) => h(
      "li",
      { class: `tile outcome-${outcome}${number ? "" : " none"}`, title: outcome === "open" ? "not decided yet" : outcomeMeaning(outcome) },
      h("strong", {}, count(number)),
      h("span", {}, outcome === "open" ? "open" : outcomeWord(outcome)),
    ))),
  );
}

function scenarios(byType) {
  const types = Object.keys(byType).sort();
  if (!types.length) return null;
  const shown = OUTCOMES.filter((outcome) => types.some((type) => byType[type][outcome]));
  const columns = [{ title: "Scenario type" }, ...shown.map((outcome) => ({ title: outcomeWord(outcome), numeric: true })), { title: "all", numeric: true }];
  const rows = types.map((type) => [h("code", {}, type), ...shown.map((outcome) => count(byType[type][outcome] ?? 0)), count(shown.reduce((all, outcome) => all + (byType[type][outcome] ?? 0), 0))]);
  return card("scenarios", "By scenario type", table("Outcomes by scenario type", columns, rows));
}

function failures(run, { failures: causes, others }) {
  if (!causes.length && !others) return null;
  const uncounted = others > 0 && h("p", {}, `${counted(others, "more evaluation")} failed beside those counted here.`);
  return card("failures", "Why they failed", h("ul", { class: "cause-list" }, causes.map((cause) => h(
    "li",
    {},
    h("h3", {}, h("code", {}, cause.code), h("span", { class: "badge tone-bad" }, sign("failed"), causeCount(cause))),
    causeText(cause.code) && h("p", {}, causeText(cause.code)),
    cause.message && h("p", { class: "quoted" }, cause.message),
    mentors(cause.code, cause.sample_user_ids, cause.count),
    h("p", {}, h("a", { href: resultsAddress(run, { outcome: "failed", code: cause.code }), "data-key": `all-${cause.code}` }, "All of this cause")),
  ))), uncounted);
}

function waiting({ ids, number }) {
  if (!ids.length) return null;
  return card("waiting", "Not evaluated", h("p", {}, `${counted(number, "evaluation")} had not had a turn when the run ended.`), mentors("waiting", ids, number));
}

function mentors(key, ids, evaluations) {
  return [
    idList(key, ids),
    ids.length < evaluations && h("p", { class: "small" }, `These are some of those concerned (${counted(evaluations, "evaluation")}).`),
  ];
}

function idList(key, ids) {
  return h("ul", { class: "ids" }, ids.map((id) => h("li", {}, h("a", { href: `#/mentors/${id}`, "data-key": `${key}-${id}` }, h("code", {}, id)))));
}

function dispatches({ answers, open, waited }) {
  const columns = [{ title: "Answer" }, { title: "How often", numeric: true }, { title: "First" }, { title: "Last" }];
  const rows = answers.map((answer) => [
    h("span", {}, h("strong", {}, answer.status_code ?? (answer.error ? "none" : "none yet")), answer.error && [" ", h("code", {}, answer.error)], h("span", { class: "sub" }, answerText(answer))),
    count(answer.count),
    time(answer.first_at, "exact"),
    time(answer.last_at, "exact"),
  ]);
  return card(
    "dispatches",
    "What the function answered to the database",
    h("p", { class: "small" }, "The database calls the function for slices of work; a clock that is green while the function refuses shows here. Calls serve all runs of that time."),
    waited && h("p", { class: "notice tone-warning" }, sign("late"), h("span", {}, "Not started yet. pg_cron should have called the function by now: check that pg_cron runs scheduler.dispatch() and that Vault holds the function's URL and an invoke token.")),
    rows.length ? table("Answers to the database's calls", columns, rows) : h("p", { class: "empty" }, open ? "No call yet." : "No call in that time."),
  );
}

function answerText({ status_code: status, error }) {
  if (status === 200) return "worked, nothing left to do";
  if (status === 202) return "worked, more to do";
  if (status === 401 || status === 403) return "the invoke token in Vault is not one of the function's";
  if (status === 404) return "the URL in Vault is not the function's";
  if (status === 503) return "the function did not reach the database";
  if (status >= 500) return "the function, or its platform, failed";
  if (error === "no_answer") return "no answer came in time";
  if (error === "vault_secret_missing") return "Vault lacks the function's URL or its invoke token";
  return status === null && !error ? "under way" : "";
}

function config({ config: { scenarios: types = {}, ...settings }, request }) {
  const chosen = [
    request.users && h("p", {}, `Requested: ${counted(request.users, "chosen mentor")}${request.users > request.sample_user_ids.length ? `, the first ${request.sample_user_ids.length} of them:` : "."}`),
    request.users && idList("request", request.sample_user_ids),
    request.scenario_types && h("p", {}, "Requested: ", request.scenario_types.join(", ")),
  ];
  const rows = Object.entries(settings).sort().map(([name, value]) => [h("code", {}, name.toUpperCase()), value === null ? h("span", { class: "muted" }, "not set") : String(value)]);
  return h(
    "section",
    { class: "card", "aria-label": "Configuration" },
    chosen,
    scenarioNotes(types),
    h("details", { "data-key": "config" }, h("summary", {}, h("h2", {}, "The configuration in force when it was opened")),
      scenarioTable(types.source ?? types),
      rows.length ? table("Settings", [{ title: "Setting" }, { title: "Value" }], rows) : h("p", { class: "empty" }, "None was recorded.")),
  );
}

/** What an operator should know of the scenario types of a run, before unfolding them. */
function scenarioNotes({ types = [], warnings = [], source }) {
  const off = source && types.flatMap(({ type, enabled, organizations = {} }) => (enabled === false
    ? [type]
    : Object.entries(organizations).filter(([, rule]) => rule.enabled === false).map(([name]) => `${type} for ${name}`)));
  return [
    source && h("p", {}, "A retry evaluates by what was in force for the run that it retries. ", off.length ? `Off when it was opened, and skipped: ${off.join(", ")}.` : "No scenario type was off when it was opened."),
    [...new Set([...warnings, ...(source?.warnings ?? [])])].map((warning) => h("p", { class: "notice tone-warning" }, sign("partial"), h("span", {}, warning))),
  ];
}

function scenarioTable({ types = [], not_due: notDue = [] }) {
  const row = (type, organization, rule) => {
    const isDue = !notDue.some(([one, other]) => one === type && other === organization);
    const inherited = organization === null ? null : "as for all";
    return [
      [h("code", {}, type), organization !== null && [" for ", h("code", {}, organization)]],
      rule.enabled === false ? "off" : isDue ? (inherited ?? "on") : "not due",
      rule.segments ? rule.segments.join(", ") || "all mentors" : (inherited ?? "all mentors"),
      rule.schedule ? h("code", {}, rule.schedule) : (inherited ?? "each slot"),
    ];
  };
  const rows = types.flatMap((each) => [
    row(each.type, null, each),
    ...Object.entries(each.organizations ?? {}).sort().map(([name, rule]) => row(each.type, name, rule)),
  ]);
  const columns = [{ title: "Scenario type" }, { title: "State" }, { title: "Applies to" }, { title: "Schedule" }];
  return rows.length > 0 && table("Scenario types", columns, rows, { class: "cards titled" });
}

function card(name, title, ...content) {
  return h("section", { class: "card", "aria-labelledby": `${name}-title` }, h("h2", { id: `${name}-title` }, title), content);
}
