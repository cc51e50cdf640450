// A list that is read a page at a time, further pages at a press: what was read stays.

import { h } from "./dom.js";
import { problemText } from "./problem.js";

// A filtered page may be short, or empty, before the end; the next ones are read without a press for each.
const PAGES_AT_ONCE = 10;

/** The filters of a list, with the values in force; a change goes to the address that has them. */
export function filterForm(context, addressOf, query, ...fields) {
  const chosen = (event) => {
    event.preventDefault();
    const given = [...new FormData(form)].map(([name, text]) => [name, text.trim()]).filter(([, text]) => text);
    context.go(addressOf(given));
  };
  const form = h("form", { class: "filters card", "aria-label": "Filters", onchange: chosen, onsubmit: chosen }, fields,
    Object.values(query).some(Boolean) && h("a", { class: "clear", href: addressOf() }, "Show all"));
  return form;
}

/**
 * @param {Object} what
 * @param {function({cursor: string|null}, {signal: AbortSignal}): Promise<Object>} what.read a page: `data` and `pagination`.
 * @param {function(Array, Element|null): Node} what.render shows all that was read, with the button for more if there is more.
 * @param {string} what.waiting is shown before the first page.
 * @param {number} what.full how many items are enough for one press.
 * @param {function(*): boolean} [what.keeps] which items are shown.
 * @returns {{parts: Array<Element>, start: function(), stop: function()}}
 */
export function pagedList(context, { read, render, waiting, full, keeps = () => true }) {
  const result = h("div");
  const trouble = h("div", { role: "alert", class: "error-place" });
  const found = [];
  let asking = new AbortController();
  let cursor = null;
  let hasBegun = false;

  async function more() {
    trouble.replaceChildren();
    result.setAttribute("aria-busy", "true");
    if (!found.length) result.replaceChildren(h("p", { class: "loading card" }, waiting));
    try {
      const before = found.length;
      for (let pages = 0; pages < PAGES_AT_ONCE; pages += 1) {
        const page = await read({ cursor }, { signal: asking.signal });
        found.push(...page.data.filter(keeps));
        cursor = page.pagination.next_cursor;
        if (!cursor || found.length - before >= full) break;
      }
      hasBegun = true;
      result.replaceChildren(render(found, cursor && h("div", { class: "buttons" }, h("button", { type: "button", onclick: more }, found.length ? "Show more" : "Look further"))));
    } catch (error) {
      if (asking.signal.aborted) return;
      if (error.isOfToken) return context.lost(error);
      if (!found.length) result.replaceChildren();
      trouble.replaceChildren(problemText(error), h("button", { type: "button", onclick: more }, "Try again"));
    } finally {
      result.removeAttribute("aria-busy");
    }
    return undefined;
  }

  return {
    parts: [trouble, result],
    start() {
      asking = new AbortController();
      if (!hasBegun) more();
    },
    stop: () => asking.abort(),
  };
}
