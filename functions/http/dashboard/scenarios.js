// The scenario types: which are on, for which mentors and when; switched, changed and reset here.

import { configureScenario, getRun, listRuns, listScenarios } from "./api.js";
import { ask } from "./dialog.js";
import { field, h, Region, table } from "./dom.js";
import { Poll } from "./polling.js";
import { pollProblem, problemText } from "./problem.js";
import { mayAct } from "./session.js";
import { time } from "./times.js";
import { OUTCOMES, count, isOpen, outcomeWord, sign, statusBadge } from "./words.js";

// A skipped run evaluated nothing.
const STATUSES_WITH_COUNTS = ["pending", "running", "success", "partial", "failed", "cancelled"];
const QUIET_MS = 30_000;
const BUSY_MS = 2_500;
const COLUMNS = ["Scenario type", "State", "Applies to", "Schedule", "Last scheduled run", "Changed", "Change"].map((title) => ({ title }));
const WHEN = "This holds from the next run on; a run under way is not changed.";

export function scenariosView(context) {
  const trouble = h("div", { role: "alert", class: "error-place" });
  const said = h("div", { role: "status" });
  const place = h("div", {}, h("p", { class: "loading card" }, "Reading the scenario types…"));
  const region = new Region(place, (data) => scenarios(data, { change, ask: (dialog) => ask(context, { ...dialog, done: say }) }));
  const element = h("div", { class: "page" }, h("div", { class: "heading" }, h("h1", { tabindex: -1 }, "Scenarios")), trouble, said, place);

  async function look(signal) {
    const [configs, runs] = await Promise.all([
      listScenarios({ signal }),
      listRuns({ trigger: "schedule", status: STATUSES_WITH_COUNTS, limit: 1 }, { signal }),
    ]);
    const run = runs.data.length ? await getRun(runs.data[0].id, { signal }) : null;
    region.show({ configs, run: run && { id: run.id, status: run.status, scheduled_for: run.scheduled_for, scenarios: run.scenarios } });
    return run && isOpen(run) ? BUSY_MS : QUIET_MS;
  }

  function say(text) {
    said.replaceChildren(h("p", { class: "notice tone-good" }, sign("success"), h("span", {}, text)));
    poll.now();
  }

  /** Changes a row at once, and says what that means. */
  async function change(entry, changes, text) {
    trouble.replaceChildren();
    said.replaceChildren();
    try {
      await configureScenario(entry.scenario_type, entry.organization, changes);
      say(text);
    } catch (error) {
      if (error.isOfToken) context.lost(error);
      else trouble.replaceChildren(problemText(error));
    }
  }

  const poll = new Poll(look, (error, pause) => {
    if (error?.isOfToken) return context.lost(error);
    place.querySelector(".loading")?.remove();
    trouble.replaceChildren(...pollProblem(error, pause));
    return undefined;
  });
  return { element, title: "Scenarios", focus: "h1", start: () => poll.start(), stop: () => poll.stop() };
}

function scenarios({ configs, run }, actions) {
  const isOff = configs.data.every((entry) => entry.organization !== null || !entry.effective.enabled);
  return h(
    "section",
    { class: "card", "aria-labelledby": "types-title" },
    h("h2", { id: "types-title" }, "Which types, for which mentors and when"),
    h("p", { class: "small" }, "A change holds from the next run on; a run under way is not changed. For a type that is off no mentor is evaluated, in any run. What is not “set here” is, for an organization, as for all mentors, and for all mentors as SCENARIO_TYPES says."),
    h("p", { class: "small" }, "A type with a schedule of its own is due at the first slot (", h("code", {}, configs.evaluation_schedule), ` in ${configs.evaluation_timezone}) at or after it fires; runs by hand ignore it.`),
    run && h("p", { class: "small" }, "The last scheduled run: ", h("a", { href: `#/runs/${run.id}`, "data-key": "run" }, time(run.scheduled_for)), " ", statusBadge(run.status)),
    isOff && h("p", { class: "notice tone-bad" }, sign("failed"), h("span", {}, "All types are off: the next scheduled run fails, with ", h("code", {}, "no_enabled_scenarios"), ".")),
    table("Scenario types", COLUMNS, configs.data.map((entry) => row(entry, { configs, run, ...actions })), { class: "types cards titled" }),
  );
}

function nameOf({ scenario_type: type, organization }) {
  return organization === null ? type : `${type} for ${organization}`;
}

function row(entry, page) {
  const { scenario_type: type, organization, effective } = entry;
  const isForAll = organization === null;
  // No change of a type that SCENARIO_TYPES does not name is accepted; the warning says that it does not.
  const isKnown = !entry.warnings.some((warning) => warning.includes("SCENARIO_TYPES"));
  // What cannot be used is null, with a warning.
  const isSet = (member) => entry[member] !== null || entry.warnings.some((warning) => warning.startsWith(`${member}:`));
  const marked = (member, what) => isSet(member) && h("span", { class: "sub" }, "set here", isKnown && mayAct() && [" · ", resetButton(entry, member, what, page)]);
  return [
    [
      isForAll ? h("code", {}, type) : h("span", { class: isKnown && "organization" }, h("code", { class: isKnown && "visually-hidden" }, type), " for ", h("code", {}, organization)),
      entry.warnings.map((warning) => h("span", { class: "sub warned" }, sign("partial"), h("span", {}, warning))),
    ],
    [
      h("span", { class: `badge tone-${effective.enabled ? "good" : "off"}` }, sign(effective.enabled ? "success" : "cancelled"), effective.enabled ? "on" : "off"),
      isForAll ? marked("enabled", "the state") : isKnown && !effective.enabled && entry.enabled !== false && h("span", { class: "sub" }, "as for all"),
      isKnown && switchButton(entry, page),
    ],
    [effective.segments.join(", ") || "all mentors", marked("segments", "the segments")],
    [
      effective.schedule ? h("code", {}, effective.schedule) : "each slot",
      effective.next_slot && h("span", { class: "sub" }, "next: ", time(effective.next_slot)),
      marked("schedule", "the schedule"),
    ],
    isForAll && page.run ? countsText(page.run.scenarios[type]) : "–",
    [time(entry.updated_at), entry.updated_by && h("span", { class: "sub" }, "by ", entry.updated_by)],
    isKnown ? h("div", { class: "buttons" }, changeButton(entry, page), isForAll && addButton(entry, page)) : "–",
  ];
}

function countsText(outcomes = {}) {
  const counted = OUTCOMES.filter((outcome) => outcomes[outcome]);
  return counted.length ? h("ul", {}, counted.map((outcome) => h("li", {}, `${count(outcomes[outcome])} ${outcomeWord(outcome)}`))) : h("span", { class: "muted" }, "no evaluation");
}

/** A button of a row, whose name says which one; none for a role that may only read. */
function button(entry, key, text, of, look, pressed) {
  const name = nameOf(entry);
  return mayAct() && h("button", { type: "button", class: look, onclick: pressed, "data-key": `${key}-${name}` }, text, h("span", { class: "visually-hidden" }, ` ${of}${name}`));
}

function switchButton(entry, { change }) {
  const isForAll = entry.organization === null;
  // An organization's row cannot switch on what is off for all.
  const isOn = isForAll ? entry.effective.enabled : entry.enabled !== false;
  const text = isOn
    ? `${nameOf(entry)} is off. From the next run on, mentors are not evaluated for it; a run under way is not changed.`
    : `${nameOf(entry)} is ${isForAll ? "on" : "not switched off any more"}. ${WHEN} What its schedule fired meanwhile is not caught up.`;
  const enabled = isOn ? false : isForAll || null;
  return button(entry, "switch", isOn ? "Switch off" : "Switch on", "", "small-button", () => change(entry, { enabled }, text));
}

function resetButton(entry, member, what, { change }) {
  const text = `${nameOf(entry)}: ${what} ${what.endsWith("s") ? "are" : "is"} reset. ${WHEN}`;
  return button(entry, `reset-${member}`, "reset", `${what} of `, "link", () => change(entry, { [member]: null }, text));
}

function changeButton(entry, page) {
  const segments = entry.effective.segments.join("\n");
  return button(entry, "change", "Change", "", "small-button", () => page.ask({
    title: `Change ${nameOf(entry)}`,
    explanation: [WHEN],
    fields: [
      segmentsField(segments, "none: all mentors"),
      scheduleField(entry.schedule ?? "", page.configs, entry.organization === null ? "empty: each slot" : "empty: as for all"),
    ],
    confirm: "Save",
    act: async (values) => {
      const changed = {
        ...(values.get("segments").replaceAll("\r", "") !== segments && { segments: linesOf(values) }),
        ...(scheduleOf(values) !== entry.schedule && { schedule: scheduleOf(values) }),
      };
      if (!Object.keys(changed).length) return `${nameOf(entry)} is as it was.`;
      await configureScenario(entry.scenario_type, entry.organization, changed);
      return `${nameOf(entry)} is changed. ${WHEN}`;
    },
  }));
}

function addButton(entry, page) {
  const { scenario_type: type } = entry;
  return button(entry, "add", "Add organization", "to ", "small-button", () => page.ask({
    title: `Add an organization to ${type}`,
    explanation: [`Holds for mentors with the segment org:NAME, before what holds for all. ${WHEN}`],
    fields: [
      field("Name", "without org:", h("input", { name: "organization", maxlength: 100, autocomplete: "off" })),
      h("label", { class: "check" }, h("input", { type: "checkbox", name: "off" }), "Switched off: its mentors are not evaluated for this type"),
      segmentsField("", "none: as for all"),
      scheduleField("", page.configs, "empty: as for all"),
    ],
    confirm: "Add",
    act: async (values) => {
      const organization = values.get("organization").trim();
      const refuse = (text) => { throw Object.assign(new Error(text), { field: "organization" }); };
      if (!organization || organization.startsWith("org:")) refuse("Enter its name, without org:.");
      if (page.configs.data.some((other) => other.scenario_type === type && other.organization === organization)) refuse("It has a row already.");
      const segments = linesOf(values);
      await configureScenario(type, organization, { enabled: values.has("off") ? false : null, segments: segments.length ? segments : null, schedule: scheduleOf(values) });
      return `${type} has a row for ${organization}. ${WHEN}`;
    },
  }));
}

function segmentsField(text, none) {
  return field("Segments", `one a line; ${none}`, h("textarea", { name: "segments", rows: 3, spellcheck: "false" }, text));
}

function scheduleField(text, { evaluation_timezone: timezone }, none) {
  return field("Schedule", `cron, in ${timezone}; ${none}`, h("input", { name: "schedule", value: text, maxlength: 100, autocomplete: "off", spellcheck: "false", placeholder: "0 6 * * 1" }));
}

function linesOf(values) {
  return values.get("segments").split("\n").map((line) => line.trim()).filter(Boolean);
}

function scheduleOf(values) {
  return values.get("schedule").trim() || null;
}
