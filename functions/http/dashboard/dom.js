// Elements from data. Text only ever becomes text nodes, so nothing that the API answers can become markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element.
 * @param {string} tag its name.
 * @param {Object} [properties] attributes; `on…` are listeners; false, null and undefined are left out, true is bare.
 * @param {...(Node|string|number|null|false|undefined|Array)} children what is in it; lists are flattened.
 */
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for an element of SVG. */
export function s(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...present(children));
  return element;
}

function present(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false).map(
    (child) => (child instanceof Node ? child : String(child)),
  );
}

/**
 * A part of the page that is built anew only when its data changed, so that a page that polls does not
 * move the focus out of it, and does not close what was open.
 */
export class Region {
  #latest;
  #shown;
  #build;

  /**
   * @param {Element} element holds it.
   * @param {function(*): (Node|Array|null)} build makes its content of its data.
   */
  constructor(element, build) {
    this.element = element;
    this.#build = build;
  }

  /** Shows these data, once nothing in it is pressed: what is replaced before it is released gets no click. */
  show(data) {
    this.#latest = data;
    if (this.element.querySelector(":active")) {
      requestAnimationFrame(() => this.#latest === data && this.show(data));
      return;
    }
    const key = JSON.stringify(data);
    if (key === this.#shown) return;
    this.#shown = key;
    const unfolded = new Set([...this.element.querySelectorAll("details[open][data-key]")].map((d) => d.dataset.key));
    const focused = this.element.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    this.element.replaceChildren(...present([this.#build(data)]));
    for (const details of this.element.querySelectorAll("details[data-key]")) {
      details.open ||= unfolded.has(details.dataset.key);
    }
    if (focused) this.element.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
}

/** Says something to those who do not see it. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** A field with its label, and a hint behind it. */
export function field(label, hint, control) {
  return h("label", { class: "field" }, h("span", {}, label, hint && h("span", { class: "muted" }, ` (${hint})`)), control);
}

/** A table with a heading for each column; the first cell of a row is the row's heading. On a phone each row is a card. */
export function table(caption, columns, rows, properties = { class: "cards titled" }) {
  const numeric = (index) => (columns[index].numeric ? "number" : null);
  return h(
    "div",
    { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 },
    h(
      "table",
      properties,
      h("caption", { class: "visually-hidden" }, caption),
      h("thead", {}, h("tr", {}, columns.map((column, index) => h("th", { scope: "col", class: numeric(index) }, column.title)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, index) => (index === 0
        ? h("th", { scope: "row" }, cell)
        : h("td", { class: numeric(index), "data-title": columns[index].title }, cell)))))),
    ),
  );
}
