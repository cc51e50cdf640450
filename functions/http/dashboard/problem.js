// What went wrong with a request: the function's own words (RFC 9457), or what the status says.

import { h } from "./dom.js";
import { span } from "./times.js";

/** A request was refused, or got no answer: `status` is 0 then. `field`: the member that was refused, if one was. */
export class Problem extends Error {
  constructor({ status = 0, code = "unreachable", title = "No answer", detail = "", field = "", retryAfterSeconds = null }) {
    super(detail || title);
    Object.assign(this, { status, code, title, detail, field, retryAfterSeconds });
  }

  /** Whether another token is needed to continue. */
  get isOfToken() {
    return this.status === 401 || this.status === 403;
  }
}

/** The problem that a response of the function says. */
export async function problemOf(response) {
  const retryAfter = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const answer = { status: response.status, retryAfterSeconds: Number.isFinite(retryAfter) ? retryAfter : null };
  const isProblem = (response.headers.get("Content-Type") ?? "").startsWith("application/problem+json");
  try {
    if (isProblem) return new Problem({ ...(await response.json()), ...answer });
  } catch {
    // cut off: what the status says is left
  }
  // Not the function's words: something between it and here answered.
  return new Problem({
    ...answer,
    code: `http_${response.status}`,
    title: response.statusText || `Status ${response.status}`,
    detail: "The answer is not the function's own. Something in front of it may be at fault.",
  });
}

/** What went wrong, in the words of the problem, with its code. */
export function problemText(error) {
  const name = error.status ? `${error.title} (${error.status})` : (error.title ?? "Something is wrong with this page");
  return h(
    "div",
    { class: "problem" },
    h("p", {}, h("strong", {}, name), ": ", error.detail || error.message),
    error.code && h("p", { class: "small" }, "Code: ", h("code", {}, error.code)),
  );
}

/** The same while a poll fails, with when it tries again; nothing without an error. */
export function pollProblem(error, pause) {
  return error ? [problemText(error), h("p", { class: "small" }, `What is shown may be old. Trying again in ${span(pause / 1000)}.`)] : [];
}
