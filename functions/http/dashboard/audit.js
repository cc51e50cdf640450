// Who did it: every change of runs, of the schedule and of the scenario types, the newest first.

import { listAudit } from "./api.js";
import { field, h, table } from "./dom.js";
import { filterForm, pagedList } from "./paged.js";
import { time } from "./times.js";

const ACTIONS = {
  run: "opened a run",
  retry: "retried a run",
  cancel: "cancelled a run",
  fail: "marked a run as failed",
  status_change: "changed a run's status",
  delete: "deleted a run",
  restore: "restored a run",
  note: "changed a note",
  pause: "paused the schedule",
  resume: "resumed the schedule",
  engine_retry: "tried the engine",
  scenario_change: "changed a scenario type",
};
const FILTERS = ["actor", "action", "invocation_id"];
const PAGE_SIZE = 50;
const MOMENT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/;

/** Where the entries are that match. */
export function auditAddress(filters = {}) {
  const query = new URLSearchParams(filters).toString();
  return query ? `#/audit?${query}` : "#/audit";
}

/** @param {URLSearchParams} parameters the filters: actor, action, invocation_id. */
export function auditView(context, parameters) {
  const query = Object.fromEntries(FILTERS.map((name) => [name, parameters.get(name)]));
  const list = pagedList(context, {
    read: (page, options) => listAudit({ ...query, ...page, limit: PAGE_SIZE }, options),
    full: PAGE_SIZE,
    waiting: "Reading what was done…",
    render: (entries, more) => h("section", { class: "card", "aria-label": "Entries" },
      entries.length ? table("Entries", ["When", "Who", "What", "Before and after"].map((title) => ({ title })), entries.map(row)) : h("p", { class: "empty" }, "No entry fits."),
      more),
  });
  const element = h("div", { class: "page" }, h("div", { class: "heading" }, h("h1", { tabindex: -1 }, "Who did it")), filters(context, query), list.parts);
  return { element, title: "Who did it", focus: "h1", start: list.start, stop: list.stop };
}

function filters(context, query) {
  return filterForm(context, auditAddress, query,
    field("Who", null, h("input", { name: "actor", value: query.actor, maxlength: 100, autocomplete: "off", spellcheck: "false" })),
    field("What", null, h("select", { name: "action" }, h("option", { value: "" }, "all"), Object.entries(ACTIONS).map(([action, word]) => h("option", { value: action, selected: query.action === action }, word)))),
    field("Run", null, h("input", { name: "invocation_id", value: query.invocation_id, maxlength: 36, autocomplete: "off", spellcheck: "false", placeholder: "its id" })));
}

function row({ at, actor, action, invocation_id: run, scenario_type: type, before, after }) {
  return [
    time(at, "exact"),
    actor,
    h("span", {}, ACTIONS[action] ?? h("code", {}, action),
      type && h("span", { class: "sub" }, h("code", {}, type)),
      run && h("span", { class: "sub" }, h("a", { href: `#/runs/${run}` }, "the run"))),
    changes(before ?? {}, after ?? {}),
  ];
}

/** The members that differ. */
function changes(before, after) {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((name) => JSON.stringify(before[name]) !== JSON.stringify(after[name]));
  return names.length ? h("ul", { class: "changes" }, names.map((name) => h("li", {}, h("code", {}, name), " ", valueText(before[name]), " → ", valueText(after[name])))) : "–";
}

function valueText(value) {
  if (value === null || value === undefined) return h("span", { class: "muted" }, "none");
  if (typeof value !== "string") return JSON.stringify(value);
  return MOMENT.test(value) ? time(value, "exact") : value;
}
