// What an operator does with a run: retry, cancel, a note. Each is confirmed first, and shows what went wrong.

import { cancelRun, openRun, setNote } from "./api.js";
import { actionButton, ask } from "./dialog.js";
import { field, h } from "./dom.js";
import { momentText } from "./times.js";
import { counted } from "./words.js";

/** The button that evaluates what a run and its retries left; none where nothing can be retried. */
export function retryButton(context, run, look = "primary") {
  if (!run.retry) return null;
  const { invocation_id: source, mentors } = run.retry;
  const name = mentors === null ? "Retry what is left" : `Retry ${counted(mentors, "mentor")}`;
  return actionButton(name, look, () => ask(context, {
    title: `${name}?`,
    explanation: [
      `Evaluates what the run of ${momentText(run.scheduled_for)}${source === run.id ? "" : " and its retries"} left unfinished, and nothing else: ${mentors === null ? "not all mentors had been read, so how many are left is not known." : `${counted(mentors, "mentor")}.`}`,
      run.dry_run ? "It was a dry run, and so is its retry." : "Mentors who were notified before are not notified again.",
    ],
    confirm: "Retry",
    act: (_, key) => openRun({ retry_of: source }, key),
    done: (retry) => context.go(`#/runs/${retry.id}`),
  }));
}

/** The button that ends an open run. */
export function cancelButton(context, run, cancelled) {
  return actionButton("Cancel this run", "danger", () => ask(context, {
    title: "Cancel this run?",
    explanation: ["What no worker has begun is left as not evaluated; what is under way is still recorded. A cancelled run is not taken up again, but what it left can be retried."],
    confirm: "Cancel the run",
    dismiss: "Let it run",
    look: "danger",
    act: () => cancelRun(run.id),
    done: cancelled,
  }));
}

/** The button that writes, changes or removes a run's note. */
export function noteButton(context, run, noted) {
  return actionButton(run.note ? "Change the note" : "Write a note", "", () => ask(context, {
    title: run.note ? "Change the note" : "Write a note",
    explanation: ["For people: the scheduler does not read it."],
    fields: [field("Note", run.note && "empty: removes it", h("textarea", { name: "note", rows: 4, maxlength: 2000, class: "prose" }, run.note))],
    confirm: "Save",
    act: (values) => setNote(run.id, values.get("note").trim() || null),
    done: noted,
  }));
}
