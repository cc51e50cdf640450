// What to do in a project without a run.

import { listMentors, listScenarios } from "./api.js";
import { h } from "./dom.js";
import { counted, sign } from "./words.js";

/** What is known of the first steps; a part that cannot be read is null. */
export async function stepsOf(signal) {
  const [mentors, scenarios] = await Promise.allSettled([listMentors({ limit: 1 }, { signal }), listScenarios({ signal })]);
  signal.throwIfAborted();
  return {
    hasMentors: mentors.status === "fulfilled" ? mentors.value.data.length > 0 : null,
    typesOn: scenarios.status === "fulfilled" ? scenarios.value.data.filter((entry) => entry.organization === null && entry.effective.enabled).length : null,
  };
}

/** The steps, with what is done and what is missing. */
export function steps({ hasMentors, typesOn }) {
  const step = (isDone, ...text) => {
    const [tone, name, word] = { true: ["good", "success", "done"], false: ["warning", "partial", "to do"], null: ["off", "pending", "next"] }[isDone];
    return h("li", {}, h("span", { class: `badge tone-${tone}` }, sign(name), word), h("span", {}, text));
  };
  const link = (href, text) => h("a", { href }, text);
  return h("ol", { class: "steps", "aria-label": "What to do next" },
    step(hasMentors, hasMentors === false ? "The view active_peer_mentors has no mentor: adapt it. " : hasMentors ? "The view active_peer_mentors has mentors. " : "Whether the view active_peer_mentors can be read is not known. ", link("#/roster", "See the roster")),
    step(typesOn === null ? null : typesOn > 0, typesOn === null ? "Which scenario types are on is not known. " : `${counted(typesOn, "scenario type")} on. `, link("#/scenarios", "See the scenarios")),
    step(null, "Press Dry run: it evaluates without notifying, and shows whether the engine answers."),
    step(null, "Press Send a test alert, above: a run that fails is reported the same way."),
    step(null, "Wait for the next slot, or press Run now."));
}
