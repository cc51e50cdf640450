// "Run now" and "Dry run": for whom and for what, with how many that is, and no run of all mentors by an empty field alone.

import { listScenarios, openRun } from "./api.js";
import { actionButton, ask } from "./dialog.js";
import { field, h } from "./dom.js";
import { tally } from "./roster.js";
import { counted } from "./words.js";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const MOST_MENTORS = 10_000;

export function isUserId(text) {
  return UUID.test(text);
}

/** The button for a new run of all active mentors, or of chosen ones. */
export function runButton(context) {
  return actionButton("Run now", "primary", () => open(context, {
    title: "Run now?",
    explanation: [
      "Evaluates at once, beside any scheduled run, and whatever the schedules of the scenario types.",
      "For the engine it is a new run: mentors can be notified again where a scenario applies.",
    ],
    confirm: "Run now",
    isDry: false,
  }));
}

/** The button for a dry run. */
export function dryRunButton(context) {
  return actionButton("Dry run", "", () => open(context, {
    title: "Start a dry run?",
    explanation: ["Evaluates at once. No notification is sent, and the engine stores nothing."],
    confirm: "Start dry run",
    isDry: true,
  }));
}

function open(context, { isDry, confirm, ...texts }) {
  const closed = new AbortController();
  const number = h("p", { class: "small", role: "status" }, "Counting the active mentors…");
  const types = h("div", { class: "checks" });
  let counts = null;
  const show = (known) => {
    counts = known;
    number.textContent = numberText(dialog, counts);
  };
  const counting = tally(closed.signal, show).catch((error) => {
    if (!closed.signal.aborted) number.textContent = `How many mentors are active could not be read: ${error.message}`;
  });
  const dialog = ask(context, {
    ...texts,
    confirm,
    fields: [
      field("Only these mentors", "ids, one a line; none: all active mentors", h("textarea", { name: "user_ids", rows: 2, spellcheck: "false", oninput: () => counts && show(counts) })),
      h("fieldset", { onchange: () => counts && show(counts) }, h("legend", {}, "Scenario types"), types),
      number,
      field("Note", "for people", h("input", { name: "note", maxlength: 2000, autocomplete: "off" })),
    ],
    question: async (values) => {
      if (request(values, types, isDry).user_ids) return null;
      await counting;
      return everyone(counts, chosenTypes(types), isDry);
    },
    act: (values, key) => openRun(request(values, types, isDry), key),
    done: (run) => context.go(`#/runs/${run.id}`),
  });
  dialog.addEventListener("close", () => closed.abort());
  showTypes(types, closed.signal);
}

async function showTypes(place, signal) {
  try {
    const configs = await listScenarios({ signal });
    const on = configs.data.filter((entry) => entry.organization === null && entry.effective.enabled).map((entry) => entry.scenario_type);
    place.replaceChildren(...(on.length ? on.map((type) => h("label", { class: "check" }, h("input", { type: "checkbox", name: "scenario_types", value: type, checked: true }), h("code", {}, type))) : [h("p", { class: "small" }, "All are off.")]));
  } catch (error) {
    if (!signal.aborted) place.replaceChildren(h("p", { class: "small" }, `All that are on: which these are could not be read. ${error.message}`));
  }
}

/** The chosen types; null: all that are on. */
function chosenTypes(place) {
  const boxes = [...place.querySelectorAll("input")];
  const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
  return chosen.length === boxes.length ? null : chosen;
}

function idsOf(text) {
  return [...new Set(text.split(/[\s,;]+/).filter(Boolean))];
}

function numberText(dialog, counts) {
  const chosen = idsOf(dialog.querySelector("textarea").value).length;
  if (chosen) return `${counted(chosen, "chosen mentor")}; who is not active is skipped.`;
  const { mentors, evaluations } = counts.of(chosenTypes(dialog.querySelector(".checks")));
  return `${counts.isWhole ? "" : "At least "}${counted(mentors, "mentor")}, ${counted(evaluations, "evaluation")}.`;
}

/** What is asked before all active mentors are evaluated. */
function everyone(counts, types, isDry) {
  const number = counts?.of(types);
  const all = !number ? "all active mentors" : `${counts.isWhole ? "all" : "more than"} ${counted(number.mentors, "active mentor")}`;
  return {
    text: `No mentor is named: this ${isDry ? "dry run" : "run"} evaluates ${all}${types ? ` for ${types.join(", ")}` : ""}${number ? ` (${counted(number.evaluations, "evaluation")})` : ""}.`,
    confirm: number ? `${isDry ? "Dry run" : "Run"} for ${counts.isWhole ? "" : "more than "}${counted(number.mentors, "mentor")}` : `${isDry ? "Dry run" : "Run"} for all`,
  };
}

function request(values, types, isDry) {
  const userIds = idsOf(values.get("user_ids"));
  const refuse = (text) => { throw Object.assign(new Error(text), { field: "user_ids" }); };
  const wrong = userIds.find((text) => !isUserId(text));
  if (wrong) refuse(`“${wrong.slice(0, 60)}” is no user id. They look like 0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10.`);
  if (userIds.length > MOST_MENTORS) refuse(`${counted(userIds.length, "mentor")} are too many; ${MOST_MENTORS} at most.`);
  const chosen = chosenTypes(types);
  if (chosen?.length === 0) throw new Error("Choose a scenario type.");
  const note = values.get("note").trim();
  return { ...(isDry && { dry_run: true }), ...(userIds.length && { user_ids: userIds }), ...(chosen && { scenario_types: chosen }), ...(note && { note }) };
}
