// The overview: did the scheduled run take place, what is missing, why, and what to do; then the runs before.

import { cancelButton, retryButton } from "./actions.js";
import { getRun, listMentors, listRuns, listScenarios } from "./api.js";
import { chart, timeTicks } from "./charts.js";
import { h, Region } from "./dom.js";
import { Poll } from "./polling.js";
import { pollProblem } from "./problem.js";
import { dryRunButton, runButton } from "./run_now.js";
import { filters, queryOf, runsTable, unfinishedText } from "./runs_table.js";
import { slotsOf, strip } from "./strip.js";
import { secondsBetween, span, time } from "./times.js";
import { causeCount, causeText, count, counted, evaluated, isLate, isOpen, reasonText, retriesOf, sign, statusBadge, toneOf, unfinished, unusable } from "./words.js";

const SLOTS = 60;
const SLOTS_IN_STRIP = 30;
const RETRIES = 50;
const CAUSES = 3;
const QUIET_MS = 30_000;
const BUSY_MS = 2_500;

/** @param {URLSearchParams} parameters which page of which runs the table shows. */
export function overview(context, parameters) {
  const query = parameters.toString();
  const trouble = h("div", { role: "alert", class: "error-place" });
  const places = Object.fromEntries(["verdict", "strip", "charts", "table"].map((name) => [name, h("div", { class: `place-${name}` })]));
  const regions = {
    verdict: new Region(places.verdict, (data) => verdict(context, data, () => poll.now())),
    strip: new Region(places.strip, stripCard),
    charts: new Region(places.charts, charts),
    table: new Region(places.table, runsTable),
  };
  places.verdict.append(h("p", { class: "loading card" }, "Reading the last runs…"));
  const element = h(
    "div",
    { class: "overview" },
    h("div", { class: "heading" }, h("h1", { tabindex: -1 }, "Runs"), h("div", { class: "buttons" }, dryRunButton(context), runButton(context))),
    trouble,
    places.verdict,
    places.strip,
    places.charts,
    h("section", { class: "card", "aria-labelledby": "all-runs" }, h("h2", { id: "all-runs", tabindex: -1 }, "All runs"), filters(parameters, context.go), places.table),
  );

  async function look(signal) {
    const [scheduled, retries, page] = await Promise.all([
      listRuns({ trigger: "schedule", limit: SLOTS, slots: true }, { signal }),
      listRuns({ trigger: "retry", limit: RETRIES }, { signal }),
      listRuns(queryOf(parameters), { signal }),
    ]);
    const slots = slotsOf(scheduled.data, scheduled.slots.missed, SLOTS);
    const slot = slots.at(-1) ?? null;
    regions.verdict.show({
      slot,
      detail: await detailOf(slot?.run, signal),
      retry: slot?.run ? (retriesOf(slot.run, retries.data)[0] ?? null) : null,
      next: context.schedule()?.next_slots,
      first: page.data.length || slot || query ? null : await stepsOf(signal),
    });
    regions.strip.show(slots.slice(-SLOTS_IN_STRIP));
    regions.charts.show(slots);
    regions.table.show({ page, query });
    return [...scheduled.data.slice(0, 1), ...page.data].some(isOpen) ? BUSY_MS : QUIET_MS;
  }

  const poll = new Poll(look, (error, pause) => {
    if (error?.isOfToken) context.lost(error);
    else {
      places.verdict.querySelector(".loading")?.remove();
      trouble.replaceChildren(...pollProblem(error, pause));
    }
  });
  return { element, title: "Runs", focus: query ? "#all-runs" : "h1", start: () => poll.start(), stop: () => poll.stop(), refresh: () => poll.now() };
}

/** What a list does not say of a run that ended badly: the commonest causes of failures, and whether it can be retried. */
async function detailOf(run, signal) {
  if (!run || isOpen(run) || ["success", "skipped"].includes(run.status)) return { causes: [], retry: null };
  try {
    const { failures, retry } = await getRun(run.id, { signal });
    return { causes: failures.slice(0, CAUSES), retry };
  } catch (error) {
    // Deleted since it was listed.
    if (error.status === 404) return { causes: [], retry: null };
    throw error;
  }
}

/** What is known of the first steps in a project without a run; a part that cannot be read is null. */
async function stepsOf(signal) {
  const [mentors, scenarios] = await Promise.allSettled([listMentors({ limit: 1 }, { signal }), listScenarios({ signal })]);
  signal.throwIfAborted();
  return {
    hasMentors: mentors.status === "fulfilled" ? mentors.value.data.length > 0 : null,
    typesOn: scenarios.status === "fulfilled" ? scenarios.value.data.filter((entry) => entry.organization === null && entry.effective.enabled).length : null,
  };
}

function verdict(context, { slot, detail, retry, next, first }, refresh) {
  const following = next && h("p", { class: "next" }, next.length ? ["The next slot is ", time(next[0], "slot"), "."] : "The schedule is paused: no slot opens until it is resumed.");
  if (!slot) {
    return h("section", { class: "card verdict tone-off", "aria-label": "The latest run" }, h("div", { class: "verdict-sign" }, sign("pending")),
      h("div", { class: "verdict-text" }, h("h2", {}, "No scheduled run yet"), first && steps(first), following));
  }
  const { run } = slot;
  const status = run ? run.status : "missed";
  return h(
    "section",
    { class: `card verdict tone-${toneOf(status)}`, "aria-label": "The latest run" },
    h("div", { class: "verdict-sign" }, sign(status)),
    h(
      "div",
      { class: "verdict-text" },
      h("p", { class: "verdict-when" }, time(slot.slot, "slot")),
      h("h2", {}, headline(run)),
      run ? story(run, detail.causes, retry) : h("p", {}, "No run was opened for this slot: the database's clock did not call, or the function did not answer. Check cron.job_run_details, and what the function's platform says."),
      run && figures(run),
      h("div", { class: "buttons" },
        run && h("a", { class: "button", href: `#/runs/${run.id}`, "data-key": "look" }, "Look into it"),
        run && isOpen(run) && cancelButton(context, run, refresh),
        run && retryButton(context, { ...run, retry: detail.retry })),
      following,
    ),
  );
}

/** The steps, with what is done and what is missing. */
function steps({ hasMentors, typesOn }) {
  const step = (isDone, ...text) => {
    const [tone, name, word] = { true: ["good", "success", "done"], false: ["warning", "partial", "to do"], null: ["off", "pending", "next"] }[isDone];
    return h("li", {}, h("span", { class: `badge tone-${tone}` }, sign(name), word), h("span", {}, text));
  };
  const link = (href, text) => h("a", { href }, text);
  return h("ol", { class: "steps", "aria-label": "What to do next" },
    step(hasMentors, hasMentors === false ? "The view active_peer_mentors has no mentor: adapt it. " : hasMentors ? "The view active_peer_mentors has mentors. " : "Whether the view active_peer_mentors can be read is not known. ", link("#/roster", "See the roster")),
    step(typesOn === null ? null : typesOn > 0, typesOn === null ? "Which scenario types are on is not known. " : `${counted(typesOn, "scenario type")} on. `, link("#/scenarios", "See the scenarios")),
    step(null, "Press Dry run: it evaluates without notifying, and shows whether the engine answers."),
    step(null, "Press Send a test alert, above: a run that fails is reported the same way."),
    step(null, "Wait for the next slot, or press Run now."));
}

function headline(run) {
  if (!run) return "It did not run";
  if (isOpen(run)) return run.error_code ? "It is waiting" : "It is running";
  return {
    success: unusable(run) ? `${counted(unusable(run), "mentor")} could not be evaluated` : "All mentors were evaluated",
    partial: `${counted(unfinished(run), "evaluation")} of ${count(run.counts.evaluations)} without a result`,
    failed: run.counts.evaluations ? "No mentor was evaluated" : "It failed",
    cancelled: "It was cancelled",
    skipped: "It was skipped",
  }[run.status];
}

function story(run, causes, retry) {
  return [
    isLate(run) && h("p", {}, h("span", { class: "badge tone-warning" }, sign("late"), "late"), ` It started ${span(run.lateness_seconds)} after its time.`),
    run.error_code && h("p", {}, reasonText(run.error_code)),
    unusable(run) > 0 && h("p", {}, h("span", { class: "badge tone-warning" }, sign("late"), "skipped"), ` ${counted(unusable(run), "row")} of active_peer_mentors could not be used: no user id, or invalid segments.`),
    !isOpen(run) && unfinished(run) > 0 && h("p", {}, `${unfinishedText(run)}.`),
    causes.length > 0 && h("ul", { class: "causes" }, causes.map((cause) => h("li", {}, h("code", {}, cause.code), ` ${causeCount(cause)} × `, causeText(cause.code) || cause.message))),
    retry && h("p", {}, "Retried ", h("a", { href: `#/runs/${retry.id}` }, time(retry.invoked_at)), ": ", statusBadge(retry.status), unfinished(retry) && !isOpen(retry) ? ` ${unfinishedText(retry)}` : null),
  ];
}

function figures(run) {
  const figure = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  return h(
    "dl",
    { class: "figures" },
    figure("Mentors", count(run.counts.mentors)),
    figure("Evaluations", isOpen(run) ? `${count(evaluated(run))} of ${count(run.counts.evaluations)}` : count(run.counts.evaluations)),
    figure("Triggered", count(run.counts.triggered)),
    figure("Failed", count(run.counts.failed)),
    figure("Not evaluated", count(run.counts.not_evaluated)),
    figure(isOpen(run) ? "For" : "Took", span(secondsBetween(run.started_at, run.finished_at))),
  );
}

function stripCard(slots) {
  if (!slots.length) return null;
  return h("section", { class: "card", "aria-labelledby": "strip-title" }, h("h2", { id: "strip-title" }, "The last slots"), strip(slots));
}

function charts(slots) {
  if (!slots.length) return null;
  const rows = (values) => slots.map(({ slot, run }) => ({ slot, values: run ? values(run) : null }));
  const most = (name) => slots.reduce((greatest, { run }) => Math.max(greatest, run?.counts[name] ?? 0), 0);
  const spoken = `${counted(slots.length, "slot")}, ${slots.filter(({ run }) => !run).length} without a run.`;
  const done = [
    { name: "not triggered", look: "bar-not-triggered" },
    { name: "triggered", look: "bar-triggered" },
    ...(most("suppressed") ? [{ name: "suppressed", look: "bar-suppressed" }] : []),
    ...(most("skipped") ? [{ name: "skipped", look: "bar-skipped" }] : []),
  ];
  const nameOf = (series) => series.name.replace(" ", "_");
  return h(
    "section",
    { class: "card charts", "aria-labelledby": "charts-title" },
    h("h2", { id: "charts-title", class: "visually-hidden" }, "Outcomes and duration over time"),
    chart({
      name: "Results",
      description: `Evaluations that came to a result, by outcome, for each slot. ${spoken}`,
      series: done,
      rows: rows((run) => done.map((series) => run.counts[nameOf(series)])),
      format: count,
    }),
    chart({
      name: "Without a result",
      description: `Evaluations that failed or were not evaluated, for each slot. ${spoken}`,
      series: [{ name: "failed", look: "bar-failed", pattern: "hatch" }, { name: "not evaluated", look: "bar-not-evaluated", pattern: "dots" }],
      rows: rows((run) => [run.counts.failed, run.counts.not_evaluated]),
      format: count,
    }),
    chart({
      name: "Duration",
      description: `From start to end, for each slot. ${spoken}`,
      series: [{ name: "duration", look: "bar-duration" }],
      rows: rows((run) => [run.finished_at ? (secondsBetween(run.started_at, run.finished_at) ?? 0) : 0]),
      format: (seconds) => (seconds === 0 ? "0" : span(seconds)),
      ticks: timeTicks,
    }),
  );
}
