// The roster: who would be evaluated now, for what, and why a mentor is left out.

import { listMentors } from "./api.js";
import { field, h, table } from "./dom.js";
import { pagedList } from "./paged.js";
import { problemText } from "./problem.js";
import { causeText, counted, sign } from "./words.js";

const PAGE_SIZE = 100;
const LONGEST_PAGE = 1000;
// How many pages are counted: beyond them a number is a lower bound.
const PAGES_COUNTED = 100;
const LEFT_OUT = "left-out";
const NO_TYPE = "no_scenario_applies";

/** Counts of the roster: mentors by the types that apply to them, and those left out by reason. */
class Tally {
  mentors = 0;
  isWhole = false;
  withoutUserId = 0;
  leftOut = new Map();
  #byTypes = new Map();

  add(page) {
    for (const { scenario_types: types, skip_reason: reason } of page.data) {
      this.mentors += 1;
      const [counts, key] = types.length ? [this.#byTypes, types.join("\n")] : [this.leftOut, reason ?? NO_TYPE];
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    this.withoutUserId += page.user_id_missing;
    this.isWhole = !page.pagination.next_cursor;
  }

  /** How many mentors, and pairs of mentor and type, these types make; all types without any. */
  of(chosen = null) {
    let [mentors, evaluations] = [0, 0];
    for (const [key, number] of this.#byTypes) {
      const types = key.split("\n").filter((type) => !chosen || chosen.includes(type)).length;
      mentors += types && number;
      evaluations += types * number;
    }
    return { mentors, evaluations };
  }
}

/** Counts the roster; `counted` is called with the tally after each page. Raises a Problem. */
export async function tally(signal, counted) {
  const counts = new Tally();
  let cursor = null;
  for (let pages = 0; pages < PAGES_COUNTED && !counts.isWhole; pages += 1) {
    const page = await listMentors({ limit: LONGEST_PAGE, cursor }, { signal });
    cursor = page.pagination.next_cursor;
    counts.add(page);
    counted(counts);
  }
}

/** @param {URLSearchParams} parameters whom to show. */
export function rosterView(context, parameters) {
  const shown = parameters.get("show") ?? "";
  const summary = h("div", {}, h("p", { class: "loading" }, "Counting…"));
  const chosen = h("select", { name: "show", onchange: () => context.go(chosen.value ? `#/roster?show=${encodeURIComponent(chosen.value)}` : "#/roster") },
    h("option", { value: "" }, "all active mentors"), h("option", { value: LEFT_OUT, selected: shown === LEFT_OUT }, "who is left out"));
  let counting;
  const list = pagedList(context, {
    read: (page, options) => listMentors({ ...page, limit: shown ? LONGEST_PAGE : PAGE_SIZE }, options),
    keeps: (mentor) => !shown || !mentor.scenario_types.length,
    full: PAGE_SIZE,
    waiting: "Reading the mentors…",
    render: (mentors, more) => h("section", { class: "card", "aria-label": "Mentors" },
      mentors.length ? table("Mentors", [{ title: "Mentor" }, { title: "Evaluated for" }, { title: "Segments" }], mentors.map(row), { class: "cards titled roster" }) : h("p", { class: "empty" }, more ? "None among those read so far." : shown ? "No mentor is left out." : "The view active_peer_mentors has no mentor."),
      more),
  });
  const element = h(
    "div",
    { class: "page" },
    h("div", { class: "heading" }, h("h1", { tabindex: -1 }, "Roster")),
    h("section", { class: "card", "aria-labelledby": "roster-title" },
      h("h2", { id: "roster-title" }, "Who would be evaluated now"),
      summary,
      h("p", { class: "small" }, "By the view active_peer_mentors and the scenario types that are on, whatever their schedules."),
      h("form", { class: "filters roster-filters", "aria-label": "Filters" }, field("Show", null, chosen))),
    list.parts,
  );

  async function countAll() {
    counting = new AbortController();
    const { signal } = counting;
    try {
      await tally(signal, (counts) => summary.replaceChildren(...tallyText(counts)));
    } catch (error) {
      if (!signal.aborted && !error.isOfToken) summary.replaceChildren(problemText(error));
    }
  }

  return {
    element,
    title: "Roster",
    focus: "h1",
    start: () => { list.start(); countAll(); },
    stop: () => { list.stop(); counting?.abort(); },
  };
}

function tallyText(counts) {
  const { mentors, evaluations } = counts.of();
  const more = counts.isWhole ? "" : "at least ";
  return [
    h("p", {}, h("strong", {}, `${more}${counted(mentors, "mentor")}`), ` for ${counted(evaluations, "evaluation")}.`),
    ...[...counts.leftOut].map(([reason, number]) => h("p", {}, h("span", { class: "badge tone-off" }, sign("skipped"), "left out"), ` ${more}${counted(number, "mentor")}: ${leftOutText(reason)}`)),
    counts.withoutUserId > 0 && h("p", {}, h("span", { class: "badge tone-warning" }, sign("partial"), "unusable"), ` ${counted(counts.withoutUserId, "row")} without a user id.`),
  ].filter(Boolean);
}

function leftOutText(reason) {
  return reason === NO_TYPE ? "No scenario type that is on applies." : causeText(reason) || reason;
}

function row({ user_id: id, segments, scenario_types: types, skip_reason: reason }) {
  return [
    h("a", { href: `#/mentors/${id}` }, h("code", {}, id)),
    types.length ? types.join(", ") : h("span", {}, h("span", { class: "badge tone-off" }, sign("skipped"), "left out"), h("span", { class: "sub" }, leftOutText(reason ?? NO_TYPE))),
    segments.length ? segments.join(", ") : h("span", { class: "muted" }, "none"),
  ];
}
