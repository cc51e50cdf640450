// The frame: who is signed in, and which page the address names.

import { forgetToken, listRuns, Problem, rememberToken, token } from "./api.js";
import { h } from "./dom.js";
import { mentorView } from "./mentor.js";
import { overview } from "./overview.js";
import { problemText } from "./polling.js";
import { runView } from "./run.js";
import { scenariosView } from "./scenarios.js";

const TITLE = "Scenario evaluations";
// What a header can carry; anything else is no token, and would not even be sent.
const PRINTABLE = /^[!-~]+$/;

const find = (id) => document.getElementById(id);
const [content, signIn, form, input, errors, signOut, pages] = ["content", "sign-in", "sign-in-form", "token", "sign-in-error", "sign-out", "pages"].map(find);

let view;
let shownAt;
let scrolledTo = 0;

const context = {
  go(address) {
    if (location.hash === address) navigate();
    else location.hash = address;
  },
  /** The token is not accepted any more: prompts for another one and leaves everything where it is. */
  lost(problem) {
    forgetToken();
    view?.stop();
    scrolledTo = scrollY;
    askForToken(refusal(problem, "Your token is not accepted any more. Sign in again, and continue where you were."));
  },
};

function refusal(problem, unknown) {
  if (problem.status === 403) return h("p", {}, "This is an invoke token: it may only start what is due. The dashboard needs an admin token.");
  if (problem.status === 401) return h("p", {}, unknown);
  return problemText(problem);
}

function askForToken(message) {
  content.hidden = pages.hidden = signOut.hidden = true;
  signIn.hidden = false;
  document.title = `Sign in – ${TITLE}`;
  errors.replaceChildren(...(message ? [message] : []));
  input.value = "";
  input.focus();
}

async function signInSubmitted(event) {
  event.preventDefault();
  const given = input.value.trim();
  const button = find("sign-in-button");
  errors.replaceChildren();
  if (!PRINTABLE.test(given)) {
    errors.append(h("p", {}, given ? "A token has no blanks or special letters." : "Enter the token."));
    input.focus();
    return;
  }
  button.disabled = true;
  try {
    await listRuns({ limit: 1 }, { as: given });
  } catch (error) {
    // An answer that the database is away means that the token was accepted.
    const letIn = error instanceof Problem && [500, 503].includes(error.status) && !error.code.startsWith("http_");
    if (!letIn) {
      errors.append(refusal(error, "This token is not known. Expected is one of SCHEDULER_ADMIN_TOKENS."));
      input.focus();
      return;
    }
  } finally {
    button.disabled = false;
  }
  rememberToken(given);
  input.value = "";
  open();
}

/** Shows the page that the address names; one that was left for a new token is where it was. */
function open() {
  signIn.hidden = true;
  content.hidden = pages.hidden = signOut.hidden = false;
  if (view === undefined || shownAt !== location.hash) return navigate();
  document.title = `${view.title} – ${TITLE}`;
  scrollTo(0, scrolledTo);
  content.focus({ preventScroll: true });
  view.start();
  return undefined;
}

function navigate() {
  if (!token()) return askForToken();
  view?.stop();
  const isFirst = view === undefined;
  shownAt = location.hash;
  view = viewAt(shownAt);
  content.replaceChildren(view.element);
  document.title = `${view.title} – ${TITLE}`;
  const page = ["scenarios", "mentors"].find((name) => shownAt.startsWith(`#/${name}`)) ?? "runs";
  for (const link of pages.querySelectorAll("a")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  view.start();
  if (!isFirst) {
    const target = content.querySelector(view.focus);
    target?.focus({ preventScroll: true });
    if (view.focus === "h1") scrollTo(0, 0);
    else target?.scrollIntoView({ block: "start" });
  }
  return undefined;
}

function viewAt(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name, id = ""] = path.split("/").map(decoded);
  if (name === "runs" && id) return runView(context, id);
  if (name === "scenarios") return scenariosView(context);
  if (name === "mentors") return mentorView(context, id);
  return overview(context, new URLSearchParams(query));
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

form.addEventListener("submit", signInSubmitted);
signOut.addEventListener("click", () => {
  forgetToken();
  view?.stop();
  view = shownAt = undefined;
  content.replaceChildren();
  history.replaceState(null, "", "#/");
  askForToken(h("p", { class: "info" }, "You are signed out."));
});
find("skip-link").addEventListener("click", (event) => {
  event.preventDefault();
  (content.hidden ? signIn : content).querySelector("h1")?.focus();
});
addEventListener("hashchange", navigate);
if (token()) open();
else askForToken();
