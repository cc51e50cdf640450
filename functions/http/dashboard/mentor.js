// One mentor's history: evaluated when, and with what result.

import { listRuns } from "./api.js";
import { announce, h, table } from "./dom.js";
import { pagedList } from "./paged.js";
import { isUserId } from "./run_now.js";
import { time } from "./times.js";
import { causeText, counted, outcomeBadge, outcomeWord, statusBadge, triggerWord } from "./words.js";

const PAGE_SIZE = 25;
const WEEK_MS = 7 * 24 * 3600 * 1000;

export function mentorView(context, userId) {
  const trouble = h("div", { role: "alert", class: "error-place" });
  const input = h("input", { id: "user-id", name: "user_id", value: userId, autocomplete: "off", autocapitalize: "off", spellcheck: "false", placeholder: "0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10", "aria-describedby": "user-id-help" });
  const sought = (event) => {
    event.preventDefault();
    const text = input.value.trim().toLowerCase();
    if (!isUserId(text)) {
      trouble.replaceChildren(h("p", {}, "That is no user id. They look like 0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10."));
      input.focus();
      return;
    }
    context.go(`#/mentors/${text}`);
  };
  const list = pagedList(context, {
    read: (page, options) => listRuns({ user_id: userId, limit: PAGE_SIZE, ...page }, options),
    full: PAGE_SIZE,
    waiting: "Looking through the runs…",
    render: (runs, more) => {
      announce(runs.length ? summary(runs, more) : "No run includes this mentor.");
      return history(runs, more);
    },
  });
  const element = h(
    "div",
    { class: "page" },
    h("div", { class: "heading" }, h("h1", { tabindex: -1 }, "Mentor history")),
    h("form", { class: "card search", role: "search", onsubmit: sought, novalidate: true },
      h("label", { for: "user-id" }, "User id"),
      h("div", { class: "search-line" }, input, h("button", { type: "submit", class: "primary" }, "Show history")),
      h("p", { class: "small", id: "user-id-help" }, "Every run with this mentor, the newest first, with the results.")),
    trouble,
    list.parts,
  );
  return {
    element,
    title: "Mentor history",
    focus: userId ? "h1" : "#user-id",
    start: () => userId && list.start(),
    stop: list.stop,
  };
}

function history(runs, more) {
  if (!runs.length) {
    return h("section", { class: "card" }, h("h2", {}, more ? "Not found so far" : "No run includes this mentor"),
      h("p", {}, more ? "None of the newest runs includes this mentor." : "No stored run includes this mentor: it may not be active, or no enabled scenario type that was due applied."), more);
  }
  const columns = [{ title: "Run" }, { title: "Status of the run" }, { title: "Results" }];
  return h(
    "section",
    { class: "card", "aria-labelledby": "history-title" },
    h("h2", { id: "history-title" }, "History"),
    h("p", { class: "lead" }, summary(runs, more)),
    table("Runs with this mentor", columns, runs.map(row), { class: "history cards" }),
    more || h("p", { class: "small" }, "That is all that is kept."),
  );
}

function row(run) {
  return [
    h("span", {}, h("a", { href: `#/runs/${run.id}` }, time(run.trigger === "schedule" ? run.scheduled_for : run.invoked_at)), h("span", { class: "sub" }, triggerWord(run.trigger), run.dry_run && " · dry run")),
    statusBadge(run.status),
    h("ul", { class: "results" }, run.results.map((result) => h(
      "li",
      {},
      h("code", {}, result.scenario_type),
      " ",
      outcomeBadge(result.outcome),
      result.error_code && h("span", { class: "sub" }, h("code", {}, result.error_code), " ", result.error_message || causeText(result.error_code)),
      result.notification_id && h("span", { class: "sub" }, `notification ${result.notification_id}`),
    ))),
  ];
}

/** "In the last 7 days: 7 runs, 12 not triggered, 2 triggered." */
function summary(runs, more) {
  const since = Date.now() - WEEK_MS;
  const real = runs.filter((run) => !run.dry_run && Date.parse(run.invoked_at) >= since);
  const whole = !more || runs.some((run) => Date.parse(run.invoked_at) < since);
  if (!real.length) return "In the last 7 days: no run that was not dry.";
  const outcomes = new Map();
  for (const { outcome } of real.flatMap((run) => run.results)) outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  const counts = [...outcomes].sort(([, one], [, other]) => other - one).map(([outcome, number]) => `${number} ${outcomeWord(outcome)}`).join(", ");
  return `In the last 7 days: ${whole ? "" : "at least "}${counted(real.length, "run")}, ${counts}.`;
}
