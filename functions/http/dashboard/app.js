// The frame: who is signed in, and which page the address names.

import { auditView } from "./audit.js";
import { h } from "./dom.js";
import { header } from "./header.js";
import { mentorView } from "./mentor.js";
import { overview } from "./overview.js";
import { resultsView } from "./results.js";
import { rosterView } from "./roster.js";
import { runView } from "./run.js";
import { scenariosView } from "./scenarios.js";
import { forget, isSignedIn, readSettings, signOut, userName } from "./session.js";
import { refusalText, signInForm } from "./sign_in.js";

const TITLE = "Scenario evaluations";

const find = (id) => document.getElementById(id);
const [content, signIn, signOutButton, user, pages, frame] = ["content", "sign-in", "sign-out", "user", "pages", "frame"].map(find);

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
    // Both the page and the header may find out.
    if (!signIn.hidden) return;
    const text = refusalText(problem, "Your token is not accepted any more. Sign in again, and continue where you were.");
    forget();
    stop();
    scrolledTo = scrollY;
    askForToken(h("p", {}, text));
  },
  /** What the header changed concerns the page. */
  refresh: () => view?.refresh?.(),
  /** Shows the page anew. */
  redraw: () => navigate(),
  schedule: () => band.schedule(),
};
const band = header(context);
frame.append(band.element);

function stop() {
  view?.stop();
  band.stop();
}

function setSignedIn(isIn) {
  signIn.hidden = isIn;
  content.hidden = pages.hidden = signOutButton.hidden = frame.hidden = user.hidden = !isIn;
  user.textContent = (isIn && userName()) || "";
}

function askForToken(message) {
  setSignedIn(false);
  document.title = `Sign in – ${TITLE}`;
  const form = signInForm(message, open);
  signIn.replaceChildren(form.element);
  form.start();
}

/** Shows the page that the address names; one that was left for a new token is where it was. */
function open() {
  setSignedIn(true);
  band.start();
  if (view === undefined || shownAt !== location.hash) return navigate();
  document.title = `${view.title} – ${TITLE}`;
  scrollTo(0, scrolledTo);
  content.focus({ preventScroll: true });
  view.start();
  return undefined;
}

function navigate() {
  if (!isSignedIn()) return askForToken();
  view?.stop();
  const isFirst = view === undefined;
  shownAt = location.hash;
  view = viewAt(shownAt);
  content.replaceChildren(view.element);
  document.title = `${view.title} – ${TITLE}`;
  const page = ["roster", "scenarios", "mentors", "audit"].find((name) => shownAt.startsWith(`#/${name}`)) ?? "runs";
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
  const [name, id = "", part = ""] = path.split("/").map(decoded);
  const parameters = new URLSearchParams(query);
  if (name === "runs" && id) return part === "results" ? resultsView(context, id, parameters) : runView(context, id);
  if (name === "roster") return rosterView(context, parameters);
  if (name === "scenarios") return scenariosView(context);
  if (name === "mentors") return mentorView(context, id);
  if (name === "audit") return auditView(context, parameters);
  return overview(context, parameters);
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

signOutButton.addEventListener("click", () => {
  signOut();
  stop();
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
// Each use of them waits for it, and nothing can be done before.
await readSettings();
if (isSignedIn()) open();
else askForToken();
