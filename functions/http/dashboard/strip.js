// The last slots at a glance, one cell each: a gap, a late one and a partial one differ in their shapes.

import { h } from "./dom.js";
import { momentText, slotText, span } from "./times.js";
import { count, counted, isLate, isOpen, sign, statusWord, toneOf, unfinished } from "./words.js";

/**
 * Slots with and without a run, the oldest first.
 * @param {Array} runs scheduled runs, the newest first.
 * @param {Array<string>} missed slots that have none.
 * @param {number} most how many to keep, the newest.
 * @returns {Array<{slot: string, run: Object|null}>}
 */
export function slotsOf(runs, missed, most) {
  const slots = [
    ...runs.map((run) => ({ slot: run.scheduled_for, run })),
    ...missed.map((slot) => ({ slot, run: null })),
  ];
  return slots.sort((one, other) => new Date(one.slot) - new Date(other.slot)).slice(-most);
}

/** What came of a slot, in one line. */
function cellText({ slot, run }) {
  const parts = [run ? statusWord(run.status) : "no run"];
  if (run) {
    if (isOpen(run)) parts.push(`${count(run.counts.evaluations)} evaluations so far`);
    else if (unfinished(run)) parts.push(`${count(unfinished(run))} of ${counted(run.counts.evaluations, "evaluation")} without a result`);
    else if (run.counts.evaluations) parts.push(counted(run.counts.evaluations, "evaluation"));
    if (isLate(run)) parts.push(`${span(run.lateness_seconds)} late`);
  }
  return `${slotText(slot)}: ${parts.join(", ")}`;
}

/** The strip with its legend. */
export function strip(slots) {
  const ends = slots.length ? `${momentText(slots[0].slot)} to ${momentText(slots.at(-1).slot)}` : "";
  const usual = `${counted(slots.length, "slot")}, ${ends}. The newest is the last.`;
  const caption = h("p", { class: "strip-caption small", "aria-hidden": "true" }, usual);
  const say = (text) => () => { caption.textContent = text; };
  const cells = slots.map((entry) => cell(entry, say));
  return [
    h("ol", { class: "strip", "aria-label": `The last ${counted(slots.length, "slot")}, ${ends}`, onmouseleave: say(usual), onfocusout: say(usual) }, cells),
    caption,
    legend(),
  ];
}

function cell(entry, say) {
  const { run } = entry;
  const text = cellText(entry);
  const properties = {
    class: `cell tone-${toneOf(run ? run.status : "missed")}`,
    "aria-label": text,
    title: text,
    "data-key": `slot-${entry.slot}`,
    onmouseenter: say(text),
    onfocus: say(text),
  };
  if (!run) return h("li", {}, h("span", { ...properties, role: "img", tabindex: 0 }, sign("missed")));
  return h("li", {}, h("a", { ...properties, href: `#/runs/${run.id}` }, sign(run.status), isLate(run) && h("span", { class: "cell-late" }, sign("late"))));
}

function legend() {
  const entry = (name, word, tone) => h("li", {}, h("span", { class: `cell small-cell tone-${tone}` }, sign(name)), word);
  return h(
    "ul",
    { class: "legend", "aria-label": "Signs" },
    ["success", "partial", "failed", "running", "cancelled", "skipped"].map((status) => entry(status, statusWord(status), toneOf(status))),
    entry("missed", "no run", "missed"),
    h("li", {}, h("span", { class: "legend-late" }, sign("late")), "more than 5 min late"),
  );
}
