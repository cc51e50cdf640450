// The buttons: each requires confirmation first, and shows what went wrong.

import { cancelRun, newIdempotencyKey, openRun } from "./api.js";
import { h } from "./dom.js";
import { problemText } from "./polling.js";
import { momentText } from "./times.js";
import { counted, unfinished } from "./words.js";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const MOST_MENTORS = 10_000;

export function isUserId(text) {
  return UUID.test(text);
}

/** The button for a new run of all active mentors, or of chosen ones. */
export function runButton(context) {
  return button("Run now", "primary", () => ask(context, {
    title: "Run now?",
    explanation: [
      "Evaluates every active mentor for every enabled scenario type that applies, whatever its schedule, at once, beside any scheduled run.",
      "For the engine it is a new run: mentors can be notified again where a scenario applies.",
    ],
    fields: runFields(),
    confirm: "Run now",
    act: (values, key) => openRun(runRequest(values, false), key),
    done: (run) => context.go(`#/runs/${run.id}`),
  }));
}

/** The button for a dry run. */
export function dryRunButton(context) {
  return button("Dry run", "", () => ask(context, {
    title: "Start a dry run?",
    explanation: ["Evaluates every active mentor for every scenario type that applies. No notification is sent, and the engine stores nothing."],
    fields: runFields(),
    confirm: "Start dry run",
    act: (values, key) => openRun(runRequest(values, true), key),
    done: (run) => context.go(`#/runs/${run.id}`),
  }));
}

/** The button that evaluates again what a run left unfinished. */
export function retryButton(context, run, look = "primary") {
  const left = unfinished(run);
  return button("Retry the failed only", look, () => ask(context, {
    title: "Retry the failed only?",
    explanation: [
      `Evaluates what the run of ${momentText(run.scheduled_for)} left unfinished (${left ? counted(left, "evaluation") : "the mentors it had not read"}) and nothing else.`,
      run.dry_run ? "It was a dry run, and so is its retry." : "Mentors who were notified before are not notified again.",
    ],
    confirm: "Retry",
    act: (_, key) => openRun({ retry_of: run.id }, key),
    done: (retry) => context.go(`#/runs/${retry.id}`),
  }));
}

/** The button that ends an open run. */
export function cancelButton(context, run, cancelled) {
  return button("Cancel this run", "danger", () => ask(context, {
    title: "Cancel this run?",
    explanation: ["What no worker has begun is left as not evaluated; what is under way is still recorded. A cancelled run is not taken up again, but what it left can be retried."],
    confirm: "Cancel the run",
    dismiss: "Let it run",
    look: "danger",
    act: () => cancelRun(run.id),
    done: cancelled,
  }));
}

function button(text, look, pressed) {
  return h("button", { type: "button", class: look, onclick: pressed, "data-key": `button-${text}` }, text);
}

function runFields() {
  return [
    h("label", { class: "field wide" }, h("span", {}, "Only these mentors ", h("span", { class: "muted" }, "(ids, one a line; none: all active mentors)")), h("textarea", { name: "user_ids", rows: 2, spellcheck: "false" })),
    h("label", { class: "field wide" }, h("span", {}, "Note ", h("span", { class: "muted" }, "(for people)")), h("input", { name: "note", maxlength: 2000, autocomplete: "off" })),
  ];
}

function runRequest(values, dryRun) {
  const userIds = (values.get("user_ids") ?? "").split(/[\s,;]+/).filter(Boolean);
  const wrong = userIds.find((text) => !isUserId(text));
  if (wrong) throw new Error(`“${wrong.slice(0, 60)}” is no user id. They look like 0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10.`);
  if (userIds.length > MOST_MENTORS) throw new Error(`${counted(userIds.length, "mentor")} are too many; ${MOST_MENTORS} at most.`);
  const note = values.get("note")?.trim();
  return { ...(dryRun && { dry_run: true }), ...(userIds.length && { user_ids: userIds }), ...(note && { note }) };
}

/**
 * Opens a dialog, and acts once it is confirmed. What fails is shown in it, and can be tried again: with the same key, so
 * that an answer which was lost on its way opens no second run. A refused member is shown at its field.
 */
export function ask(context, { title, explanation, fields = [], confirm, dismiss = "Not now", look = "primary", act, done }) {
  const errors = h("div", { role: "alert", class: "error-place" });
  const confirming = h("button", { type: "submit", class: look }, confirm);
  const dismissing = h("button", { type: "button", onclick: () => dialog.close() }, dismiss);
  const key = { of: null, value: null };
  const submitted = async (event) => {
    event.preventDefault();
    errors.replaceChildren();
    accept(form);
    confirming.disabled = true;
    form.setAttribute("aria-busy", "true");
    try {
      const values = new FormData(form);
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
    explanation.map((text) => h("p", {}, text)),
    fields,
    errors,
    h("div", { class: "buttons" }, dismissing, confirming),
  );
  const dialog = h("dialog", { "aria-labelledby": "dialog-title", onclose: () => dialog.remove() }, form);
  document.body.append(dialog);
  dialog.showModal();
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
