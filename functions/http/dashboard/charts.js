// Bars over time, one for each slot: SVG, and the same figures as a table for screen readers.

import { h, s, table } from "./dom.js";
import { dayText, momentText } from "./times.js";

const HEIGHT = 132;
const MARGIN = { top: 8, right: 2, bottom: 22, left: 46 };
const LEAST_VISIBLE = 2;

let charts = 0;

/**
 * A chart.
 * @param {Object} what
 * @param {string} what.name its heading.
 * @param {string} what.description what it shows, for those who do not see it.
 * @param {Array<{name: string, look: string, pattern?: "hatch"|"dots"}>} what.series stacked in this order; `look` is a class.
 * @param {Array<{slot: string, href: string|null, values: Array<number>|null}>} what.rows the oldest first; null: no run.
 * @param {function(number): string} what.format of a value.
 * @param {function(number): Array<number>} [what.ticks] of the greatest sum.
 */
export function chart({ name, description, series, rows, format, ticks = decimalTicks }) {
  const id = `chart-${(charts += 1)}`;
  const place = h("div", { class: "chart-place" });
  let drawn = 0;
  const draw = () => {
    const width = place.clientWidth;
    if (!width || width === drawn) return;
    drawn = width;
    place.replaceChildren(picture(id, width, { name, description, series, rows, format, ticks }));
  };
  new ResizeObserver(draw).observe(place);
  return h(
    "figure",
    { class: "chart" },
    h("figcaption", {}, h("h3", {}, name), series.length > 1 && key(id, series)),
    place,
    asTable(name, series, rows, format),
  );
}

function picture(id, width, { name, description, series, rows, format, ticks }) {
  const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  const marks = ticks(Math.max(0, ...rows.map((row) => sum(row.values))));
  const top = marks.at(-1);
  const y = (value) => MARGIN.top + inner.height * (1 - value / top);
  const step = inner.width / Math.max(rows.length, 12);
  const x = (index) => MARGIN.left + inner.width - step * (rows.length - index);
  return s(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-labelledby": `${id}-title ${id}-desc` },
    s("title", { id: `${id}-title` }, name),
    s("desc", { id: `${id}-desc` }, description),
    s("defs", {}, patterns(id)),
    marks.map((mark) => [
      s("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(mark), y2: y(mark) }),
      s("text", { class: "axis", x: MARGIN.left - 6, y: y(mark) + 4, "text-anchor": "end" }, format(mark)),
    ]),
    rows.map((row, index) => column(id, series, row, { x: x(index), width: step, y, inner, format })),
    axis(rows, x, step, inner),
  );
}

function column(id, series, row, { x, width, y, inner, format }) {
  const gap = Math.min(3, width * 0.2);
  const bar = { x: x + gap / 2, width: Math.max(1, width - gap) };
  const bottom = MARGIN.top + inner.height;
  if (!row.values) {
    return s("g", {}, s("title", {}, `${momentText(row.slot)}: no run`), s("rect", { class: "no-run", ...bar, y: MARGIN.top + 1, height: inner.height - 1 }));
  }
  let edge = bottom;
  const parts = row.values.map((value, index) => {
    if (!value) return null;
    // What there is one of in a million is seen all the same.
    const height = Math.max(LEAST_VISIBLE, y(0) - y(value));
    edge -= height;
    const { look, pattern } = series[index];
    return s("rect", { class: pattern ? null : look, fill: pattern ? `url(#${id}-${pattern})` : null, ...bar, y: Math.max(MARGIN.top, edge), height });
  });
  const text = [`${momentText(row.slot)}`, ...series.map(({ name }, index) => `${name}: ${format(row.values[index])}`)].join("\n");
  return s("g", { class: "column" }, s("title", {}, text), s("rect", { class: "hit", ...bar, y: MARGIN.top, height: inner.height }), parts);
}

function axis(rows, x, step, inner) {
  if (!rows.length) return null;
  const y = MARGIN.top + inner.height + 15;
  const at = (index, anchor, place) => s("text", { class: "axis", x: place, y, "text-anchor": anchor }, dayText(rows[index].slot));
  const last = rows.length - 1;
  const first = rows.length > 3 ? at(0, x(0) > MARGIN.left + 20 ? "middle" : "start", x(0) + (x(0) > MARGIN.left + 20 ? step / 2 : 0)) : null;
  return [first, at(last, "end", x(last) + step)];
}

function patterns(id) {
  return [
    s("pattern", { id: `${id}-hatch`, width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      s("rect", { class: "bar-failed", width: 5, height: 5 }), s("rect", { class: "bar-ink", width: 1.6, height: 5 })),
    s("pattern", { id: `${id}-dots`, width: 5, height: 5, patternUnits: "userSpaceOnUse" },
      s("rect", { class: "bar-not-evaluated", width: 5, height: 5 }), s("circle", { class: "bar-ink", cx: 2.5, cy: 2.5, r: 1 })),
  ];
}

function key(id, series) {
  return h("ul", { class: "chart-key" }, series.map(({ name, look, pattern }) => h(
    "li",
    {},
    s("svg", { viewBox: "0 0 12 12", class: "key-mark", "aria-hidden": "true" },
      s("defs", {}, patterns(`${id}-key-${look}`)),
      s("rect", { class: pattern ? null : look, fill: pattern ? `url(#${id}-key-${look}-${pattern})` : null, width: 12, height: 12, rx: 2 })),
    name,
  )));
}

function asTable(name, series, rows, format) {
  const details = h("details", { class: "as-table", "data-key": `table-${name}` }, h("summary", {}, "As a table", h("span", { class: "visually-hidden" }, `: ${name}`)));
  // Only built when it is opened.
  details.addEventListener("toggle", () => {
    if (!details.open || details.childElementCount > 1) return;
    const columns = [{ title: "Slot" }, ...series.map((one) => ({ title: one.name, numeric: true }))];
    const cells = rows.toReversed().map((row) => [momentText(row.slot), ...series.map((_, index) => (row.values ? format(row.values[index]) : "no run"))]);
    details.append(table(name, columns, cells));
  });
  return details;
}

function sum(values) {
  return (values ?? []).reduce((total, value) => total + value, 0);
}

/** 0, a half and a round number that is not below the greatest. */
function decimalTicks(greatest) {
  if (greatest <= 2) return [0, Math.max(1, Math.ceil(greatest))];
  const magnitude = 10 ** Math.floor(Math.log10(greatest));
  const top = [1, 2, 4, 5, 6, 8, 10].map((factor) => factor * magnitude).find((candidate) => candidate >= greatest);
  return [0, top / 2, top];
}

/** The same for seconds: a round number of seconds, minutes or hours. */
export function timeTicks(greatest) {
  const top = [1, 2, 4, 10, 20, 40, 60, 120, 240, 600, 1200, 2400, 3600, 7200, 14400, 28800, 43200, 86400].find((candidate) => candidate >= greatest);
  return top ? [0, top / 2, top] : [0, Math.ceil(greatest / 86400) * 86400];
}
