// Times in one chosen zone, with UTC on hover; lengths of time in words.

import { h } from "./dom.js";

const STYLES = {
  moment: { dateStyle: "medium", timeStyle: "short" },
  exact: { dateStyle: "medium", timeStyle: "medium" },
  slot: { weekday: "long", day: "numeric", month: "long", hour: "2-digit", minute: "2-digit" },
  day: { day: "numeric", month: "short" },
};
export const BROWSER_ZONE = new Intl.DateTimeFormat().resolvedOptions().timeZone;

let zone = BROWSER_ZONE;
const formats = new Map();

/** The zone that all times are shown in. */
export function shownZone() {
  return zone;
}

/** Shows times in this zone from now on; the browser's where it does not know it. */
export function showIn(name) {
  try {
    zone = new Intl.DateTimeFormat(undefined, { timeZone: name }) && name;
  } catch {
    zone = BROWSER_ZONE;
  }
  formats.clear();
}

function formatted(style, moment) {
  if (!formats.has(style)) formats.set(style, new Intl.DateTimeFormat(undefined, { ...STYLES[style], timeZone: zone }));
  return formats.get(style).format(new Date(moment));
}

/** "2026-11-23T08:00:00", the clock in the chosen zone, as fields for a time take and give it. */
export function clockText(moment) {
  return new Intl.DateTimeFormat("sv-SE", { timeZone: zone, dateStyle: "short", timeStyle: "medium" }).format(new Date(moment)).replace(" ", "T");
}

/** The moment at which the clock in the chosen zone shows such a text. */
export function momentOf(text) {
  const wanted = Date.parse(`${text}Z`);
  let moment = wanted;
  // Twice: the clock may have changed between the first guess and the moment.
  for (let time = 0; time < 2; time += 1) moment = wanted - (Date.parse(`${clockText(moment)}Z`) - moment);
  return new Date(moment).toISOString();
}

/** "2026-11-23 02:00:00 UTC" */
function inUtc(moment) {
  return `${new Date(moment).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** "23 Nov 2026, 03:00", in text where no element can stand. */
export function momentText(moment) {
  return formatted("moment", moment);
}

/** "Monday 23 November at 03:00" */
export function slotText(moment) {
  return formatted("slot", moment);
}

/** "23 Nov" */
export function dayText(moment) {
  return formatted("day", moment);
}

/** An element for a moment; `style`: `moment`, `exact` (with seconds) or `slot`. */
export function time(moment, style = "moment") {
  if (!moment) return "–";
  return h("time", { datetime: moment, title: inUtc(moment) }, formatted(style, moment));
}

/** "0.8 s", "41 s", "2 min 5 s", "3 h 20 min", "2 d 4 h" */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  for (const [size, unit, smaller, smallerUnit] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    if (whole < size) continue;
    const remainder = Math.floor((whole % size) / smaller);
    return `${Math.floor(whole / size)} ${unit}${remainder ? ` ${remainder} ${smallerUnit}` : ""}`;
  }
  return `${whole} s`;
}

/** Seconds from one moment to another, or to now; null without the first. */
export function secondsBetween(from, to) {
  return from ? (new Date(to ?? Date.now()) - new Date(from)) / 1000 : null;
}
