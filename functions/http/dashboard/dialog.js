// A question to the operator: a dialog with fields, what went wrong in it, and a button only for roles that may act.

import { newIdempotencyKey } from "./api.js";
import { h } from "./dom.js";
import { problemText } from "./problem.js";
import { mayAct } from "./session.js";
import { sign } from "./words.js";

/** A button that changes something; none for a role that may only read. */
export function actionButton(text, look, pressed) {
  return mayAct() && h("button", { type: "button", class: look, onclick: pressed, "data-key": `button-${text}` }, text);
}

/**
 * Opens a dialog, and acts once it is confirmed. What fails is shown in it, and can be tried again: with the same key, so
 * that an answer which was lost on its way opens no second run. A refused member is shown at its field.
 * @param {function(FormData): Promise<{text: string, confirm: string}|null>} [question] what has to be confirmed as well,
 *   of what was filled in.
 * @returns {HTMLDialogElement} closed, it raises `close`.
 */
export function ask(context, { title, explanation, fields = [], confirm, dismiss = "Not now", look = "primary", question, act, done }) {
  const errors = h("div", { role: "alert", class: "error-place" });
  // A double click is one press: its second half must not confirm what the first one asks.
  const confirming = h("button", { type: "submit", class: look, onclick: (event) => event.detail > 1 && event.preventDefault() }, confirm);
  const dismissing = h("button", { type: "button", onclick: () => (asked.hidden ? dialog.close() : turn(null)) }, dismiss);
  const filled = h("div", { class: "fields" }, explanation.map((text) => h("p", {}, text)), fields);
  const asked = h("p", { class: "notice tone-warning", tabindex: -1, hidden: true });
  const key = { of: null, value: null };
  /** Shows a question in place of the fields, or the fields again. */
  const turn = (text, sure = confirm) => {
    filled.hidden = text !== null;
    asked.hidden = text === null;
    asked.replaceChildren(sign("partial"), h("span", {}, text ?? ""));
    confirming.textContent = sure;
    dismissing.textContent = text === null ? dismiss : "Back";
    (text === null ? confirming : asked).focus();
  };
  const submitted = async (event) => {
    event.preventDefault();
    errors.replaceChildren();
    accept(form);
    confirming.disabled = true;
    form.setAttribute("aria-busy", "true");
    try {
      const values = new FormData(form);
      const further = asked.hidden ? await question?.(values) : null;
      if (further) {
        turn(further.text, further.confirm);
        return;
      }
      const said = JSON.stringify([...values]);
      if (key.of !== said) Object.assign(key, { of: said, value: newIdempotencyKey() });
      const answer = await act(values, key.value);
      dialog.close();
      done(answer);
    } catch (error) {
      if (error.isOfToken) {
        dialog.close();
        context.lost(error);
        return;
      }
      if (error.field && !asked.hidden) turn(null);
      if (!refuse(form, error)) errors.append(error.code ? problemText(error) : h("p", {}, error.message));
    } finally {
      confirming.disabled = false;
      form.removeAttribute("aria-busy");
    }
  };
  const form = h(
    "form",
    { onsubmit: submitted, novalidate: true },
    h("h2", { id: "dialog-title" }, title),
    filled,
    asked,
    errors,
    h("div", { class: "buttons" }, dismissing, confirming),
  );
  const dialog = h("dialog", { "aria-labelledby": "dialog-title", onclose: () => dialog.remove() }, form);
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Shows what is wrong with a member at its field; returns whether the form has it. */
function refuse(form, error) {
  const field = form.elements.namedItem(error.field?.split(".")[0] ?? "");
  if (!field) return false;
  const id = `${field.name}-error`;
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", id);
  field.closest(".field").after(h("p", { class: "field-error", id, role: "alert" }, error.message));
  field.focus();
  return true;
}

function accept(form) {
  for (const shown of form.querySelectorAll(".field-error")) shown.remove();
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  }
}
