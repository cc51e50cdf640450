// The list of runs, a page at a time: filters and the place in it stand in the address, so that it can be kept and shared.

import { field, h, table } from "./dom.js";
import { momentOf, secondsBetween, span, time } from "./times.js";
import { count, counted, isOpen, lateBadge, outcomeWord, reasonText, statusBadge, statusWord, triggerWord, unfinished } from "./words.js";

const PAGE_SIZE = 25;

const STATUSES = ["pending", "running", "success", "partial", "failed", "cancelled", "skipped"];
const TRIGGERS = ["schedule", "manual", "retry"];

// Where each page began that was come from; a cursor cannot be turned round.
const before = new Map();

/** The API's parameters, of those in the address. */
export function queryOf(parameters) {
  const until = parameters.get("until");
  return {
    limit: PAGE_SIZE,
    status: parameters.get("status"),
    trigger: parameters.get("kind"),
    scheduled_to: /^\d{4}-\d\d-\d\d$/.test(until ?? "") ? endOfDay(until) : null,
    cursor: parameters.get("cursor"),
  };
}

function endOfDay(day) {
  return momentOf(`${day}T23:59:59`).replace(".000", ".999");
}

/** The filters; choosing goes to the address that has them. */
export function filters(parameters, go) {
  const chosen = (event) => {
    event.preventDefault();
    const next = new URLSearchParams();
    for (const { name, value } of form.elements) if (name && value) next.set(name, value);
    go(address(next));
  };
  const choice = (name, label, values, word) => field(label, null, h("select", { name }, h("option", { value: "" }, "all"), values.map((value) => h("option", { value, selected: parameters.get(name) === value }, word(value)))));
  const form = h(
    "form",
    { class: "filters", "aria-label": "Filters", onchange: chosen, onsubmit: chosen },
    choice("status", "Status", STATUSES, statusWord),
    choice("kind", "Kind", TRIGGERS, triggerWord),
    field("Up to", null, h("input", { type: "date", name: "until", value: parameters.get("until") })),
    [...parameters.keys()].length > 0 && h("a", { class: "clear", href: "#/" }, "Show all, newest first"),
  );
  return form;
}

/** A page of runs with the ways to the next and the one before. */
export function runsTable({ page, query }) {
  const parameters = new URLSearchParams(query);
  if (!page.data.length) {
    return [
      h("p", { class: "empty" }, [...parameters.keys()].length ? "No run fits." : "There is no run yet."),
      ways(parameters, page),
    ];
  }
  const columns = [
    { title: "Run" },
    { title: "Status" },
    { title: "Evaluations", numeric: true },
    { title: "Triggered", numeric: true },
    { title: "Suppressed", numeric: true },
    { title: "Failed", numeric: true },
    { title: "Not evaluated", numeric: true },
    { title: "Took", numeric: true },
  ];
  return [table("Runs", columns, page.data.map(row), { class: "runs cards" }), ways(parameters, page)];
}

function row(run) {
  return [
    h("span", {}, h("a", { href: `#/runs/${run.id}`, "data-key": `run-${run.id}` }, time(run.trigger === "schedule" ? run.scheduled_for : run.invoked_at)),
      h("span", { class: "sub" }, triggerWord(run.trigger), ` · ${run.triggered_by}`, run.dry_run && " · dry run", run.reason && ` · ${shortened(run.reason)}`, run.note && ` · ${shortened(run.note)}`)),
    h("span", {}, h("span", { class: "badges" }, statusBadge(run.status), lateBadge(run)), run.error_code && h("span", { class: "sub", title: reasonText(run.error_code) }, h("code", {}, run.error_code))),
    count(run.counts.evaluations),
    count(run.counts.triggered),
    count(run.counts.suppressed),
    some(run.counts.failed, "failed"),
    some(run.counts.not_evaluated, "not_evaluated"),
    isOpen(run) ? "…" : span(secondsBetween(run.started_at, run.finished_at)),
  ];
}

function some(number, outcome) {
  return number ? h("strong", { class: `some-${outcome}`, title: `${count(number)} ${outcomeWord(outcome)}` }, count(number)) : "0";
}

function shortened(note) {
  return note.length > 60 ? `${note.slice(0, 60)}…` : note;
}

function ways(parameters, page) {
  const cursor = parameters.get("cursor");
  const older = page.pagination.next_cursor && at(parameters, page.pagination.next_cursor);
  if (page.pagination.next_cursor) before.set(page.pagination.next_cursor, cursor);
  if (!cursor && !older) return null;
  return h(
    "nav",
    { class: "ways", "aria-label": "Pages of runs" },
    cursor && h("a", { href: at(parameters, null), "data-key": "newest" }, "Newest"),
    cursor && before.has(cursor) && h("a", { href: at(parameters, before.get(cursor)), "data-key": "newer" }, "Newer"),
    page.pagination.total !== null && h("span", { class: "muted" }, `${counted(page.pagination.total, "run")} in all`),
    older ? h("a", { href: older, "data-key": "older" }, "Older") : h("span", { class: "muted" }, "These are the oldest."),
  );
}

function at(parameters, cursor) {
  const next = new URLSearchParams(parameters);
  next.delete("cursor");
  if (cursor) next.set("cursor", cursor);
  return address(next);
}

function address(parameters) {
  const text = parameters.toString();
  return text ? `#/?${text}` : "#/";
}

/** How many of a run's evaluations have no result, in words; empty where none. */
export function unfinishedText(run) {
  const parts = [["failed", run.counts.failed], ["not_evaluated", run.counts.not_evaluated]]
    .filter(([, number]) => number)
    .map(([outcome, number]) => `${count(number)} ${outcomeWord(outcome)}`);
  return unfinished(run) ? parts.join(", ") : "";
}
