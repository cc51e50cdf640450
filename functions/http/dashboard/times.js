// Times in the reader's zone, with UTC on hover; lengths of time in words.

import { h } from "./dom.js";

const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const SLOT = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

/** "2026-11-23 02:00:00 UTC" */
export function inUtc(moment) {
  return `${new Date(moment).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** "23 Nov 2026, 03:00", in text where no element can stand. */
export function momentText(moment) {
  return MOMENT.format(new Date(moment));
}

/** "Monday 23 November at 03:00" */
export function slotText(moment) {
  return SLOT.format(new Date(moment));
}

/** "23 Nov" */
export function dayText(moment) {
  return DAY.format(new Date(moment));
}

/** An element for a moment; `style`: `moment`, `exact` (with seconds) or `slot`. */
export function time(moment, style = "moment") {
  if (!moment) return "–";
  const format = { moment: MOMENT, exact: EXACT, slot: SLOT }[style];
  return h("time", { datetime: moment, title: inUtc(moment) }, format.format(new Date(moment)));
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
