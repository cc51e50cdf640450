// The stored results of one run: by outcome, cause and scenario type, and all that match as a file.

import { exportResults, getRun, listResults } from "./api.js";
import { field, h, table } from "./dom.js";
import { filterForm, pagedList } from "./paged.js";
import { problemText } from "./problem.js";
import { causeText, count, counted, outcomeBadge, outcomeWord } from "./words.js";

const STORED = ["triggered", "suppressed", "skipped", "failed"];
const PAGE_SIZE = 100;

/** Where the results of a run are that match. */
export function resultsAddress(id, filters = {}) {
  const query = new URLSearchParams(filters).toString();
  return `#/runs/${encodeURIComponent(id)}/results${query ? `?${query}` : ""}`;
}

/** @param {URLSearchParams} parameters the filters: outcome, code, scenario_type. */
export function resultsView(context, id, parameters) {
  const query = Object.fromEntries(["outcome", "code", "scenario_type"].map((name) => [name, parameters.get(name)]));
  const known = { code: h("datalist", { id: "known-codes" }), scenario_type: h("datalist", { id: "known-types" }) };
  const trouble = h("div", { role: "alert", class: "error-place" });
  const said = h("div", { class: "small", role: "status" });
  const exporting = h("button", { type: "button", onclick: save }, "Export all that match (CSV)");
  const list = pagedList(context, {
    read: (page, options) => listResults(id, { ...query, ...page, limit: PAGE_SIZE }, options),
    full: PAGE_SIZE,
    waiting: "Reading the results…",
    render: (results, more) => h("section", { class: "card", "aria-label": "Results" },
      results.length
        ? [h("p", { class: "small" }, `${counted(results.length, "result")}${more ? " so far" : ", all that match"}.`), table("Results", ["Mentor", "Scenario type", "Result", "Calls"].map((title) => ({ title, numeric: title === "Calls" })), results.map(row), { class: "cards titled roster" })]
        : h("p", { class: "empty" }, more ? "None among those read so far." : "No stored result matches. Evaluations that were not triggered, or not evaluated, are only counted."),
      more),
  });
  const element = h(
    "div",
    { class: "page" },
    h("p", { class: "back" }, h("a", { href: `#/runs/${encodeURIComponent(id)}` }, "The run")),
    h("div", { class: "heading" }, h("h1", { tabindex: -1 }, "Results of the run"), h("div", { class: "buttons" }, exporting)),
    trouble,
    said,
    filters(context, id, query, known),
    list.parts,
  );

  /** Proposes what the run has; without an answer the fields are filled in by hand. */
  async function propose() {
    const run = await getRun(id).catch(() => null);
    if (!run) return;
    known.code.replaceChildren(...run.failures.map((cause) => h("option", { value: cause.code })));
    known.scenario_type.replaceChildren(...Object.keys(run.scenarios).map((type) => h("option", { value: type })));
  }

  async function save() {
    trouble.replaceChildren();
    said.replaceChildren();
    exporting.disabled = true;
    try {
      const target = await fileFor(`evaluations-${id}.csv`);
      const response = await exportResults(id, query);
      said.textContent = "Saving…";
      await target(response);
      said.textContent = "Saved.";
    } catch (error) {
      said.textContent = "";
      if (error.name === "AbortError") return; // no file was chosen
      if (error.isOfToken) context.lost(error);
      else trouble.replaceChildren(error.code === undefined || error instanceof DOMException ? h("p", {}, "The file is not complete: the answer was cut off, or it could not be written.") : problemText(error));
    } finally {
      exporting.disabled = false;
    }
  }

  return { element, title: "Results of the run", focus: "h1", start: () => { list.start(); propose(); }, stop: list.stop };
}

/** How a response is saved: as it comes where the browser can, otherwise once it is whole. */
async function fileFor(name) {
  if (window.showSaveFilePicker) {
    const file = await window.showSaveFilePicker({ suggestedName: name });
    return async (response) => response.body.pipeTo(await file.createWritable());
  }
  return async (response) => {
    const address = URL.createObjectURL(await response.blob());
    h("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  };
}

function filters(context, id, query, known) {
  const text = (name, label) => field(label, null, [h("input", { name, value: query[name], list: known[name].id, maxlength: 100, autocomplete: "off", spellcheck: "false" }), known[name]]);
  return filterForm(context, (given) => resultsAddress(id, given), query,
    field("Outcome", null, h("select", { name: "outcome" }, h("option", { value: "" }, "all stored"), STORED.map((outcome) => h("option", { value: outcome, selected: query.outcome === outcome }, outcomeWord(outcome))))),
    text("code", "Code"),
    text("scenario_type", "Scenario type"));
}

function row({ user_id: mentor, scenario_type: type, outcome, error_code: code, error_message: message, notification_id: notification, attempts }) {
  return [
    h("a", { href: `#/mentors/${mentor}` }, h("code", {}, mentor)),
    h("code", {}, type),
    h("span", {}, outcomeBadge(outcome),
      code && h("span", { class: "sub" }, h("code", {}, code), " ", message || causeText(code)),
      notification && h("span", { class: "sub" }, `notification ${notification}`)),
    count(attempts),
  ];
}
