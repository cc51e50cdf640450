// Signing in: with e-mail and password at the project's Auth, or with an admin token.

import { listRuns } from "./api.js";
import { h } from "./dom.js";
import { Problem, problemText } from "./problem.js";
import { isLegacy, rememberSession, rememberToken, roleOf, settings, signInWith, userName } from "./session.js";

// What a header can carry; anything else is no token, and would not even be sent.
const PRINTABLE = /^[!-~]+$/;
const ROLES = ["operator", "viewer"];

/** The form; `done` is called once the function accepts what was given. */
export function signInForm(message, done) {
  const errors = h("div", { role: "alert", class: "error-place" }, message);
  const button = h("button", { type: "submit", class: "primary" }, "Sign in");
  const fields = h("div", { class: "fields" });
  const other = h("button", { type: "button", class: "link", onclick: () => show(!isByToken) });
  const canSignIn = settings.sign_in !== null;
  let isByToken = !canSignIn;

  function show(byToken) {
    isByToken = byToken;
    fields.replaceChildren(...(byToken ? tokenFields(canSignIn) : userFields()));
    other.textContent = byToken ? "Use e-mail and password" : "Use an admin token";
    errors.replaceChildren(...(message ? [message] : []));
    fields.querySelector("input").focus();
  }

  async function submitted(event) {
    event.preventDefault();
    errors.replaceChildren();
    button.disabled = true;
    try {
      await (isByToken ? byToken(form.elements.token.value.trim()) : byPassword(form.elements.email.value.trim(), form.elements.password.value));
      form.reset();
      done();
    } catch (error) {
      errors.append(error.code ? problemText(error) : h("p", {}, error.message));
      (fields.querySelector("input[type=password]") ?? other).focus();
    } finally {
      button.disabled = false;
    }
  }

  const form = h("form", { class: "card", novalidate: true, onsubmit: submitted },
    h("h1", { id: "sign-in-title", tabindex: -1 }, "Sign in"), fields, errors, button, canSignIn && other);
  return { element: form, start: () => show(isByToken) };
}

function tokenFields(canSignIn) {
  return [
    h("p", { id: "sign-in-help" }, "With an admin token, one of ", h("code", {}, "SCHEDULER_ADMIN_TOKENS"), ", without its name. It stays in this tab and is forgotten when the tab is closed."),
    h("label", { for: "token" }, "Admin token"),
    h("input", { id: "token", name: "token", type: "password", autocomplete: "off", autocapitalize: "off", spellcheck: "false", maxlength: 300, "aria-describedby": "sign-in-help" }),
    ...(canSignIn ? [] : [h("p", { class: "small" }, "The project's users cannot sign in here: ", h("code", {}, "SUPABASE_PUBLISHABLE_KEY"), " is not set, or the function did not say.")]),
  ];
}

function userFields() {
  return [
    h("p", { id: "sign-in-help" }, "As a user of the Supabase project whose ", h("code", {}, "scheduler_role"), " is operator or viewer. The session ends with this tab."),
    h("label", { for: "email" }, "E-mail"),
    h("input", { id: "email", name: "email", type: "email", autocomplete: "username", autocapitalize: "off", spellcheck: "false", "aria-describedby": "sign-in-help" }),
    h("label", { for: "password" }, "Password"),
    h("input", { id: "password", name: "password", type: "password", autocomplete: "current-password" }),
  ];
}

async function byToken(given) {
  if (!PRINTABLE.test(given)) throw new Error(given ? "A token has no blanks or special letters." : "Enter the token.");
  await check(given, "This token is not known. Expected is one of SCHEDULER_ADMIN_TOKENS.");
  rememberToken(given);
}

async function byPassword(email, password) {
  if (!email || !password) throw new Error("Enter e-mail and password.");
  const session = await signInWith(email, password).catch((error) => {
    throw error.code === "invalid_credentials" ? new Error("E-mail or password is wrong.") : error;
  });
  if (isLegacy(session.access_token)) throw new Error("This project signs its users' tokens with the legacy JWT secret (HS256), which the function does not have. Use an admin token, or move the project to JWT signing keys.");
  if (!ROLES.includes(roleOf(session.access_token))) throw new Error("This user has no role here. Expected is app_metadata.scheduler_role: operator or viewer.");
  await check(session.access_token, "The function does not accept this user's token.", true);
  rememberSession(session);
}

/** Whether the function accepts a token; raises what the operator has to know. */
async function check(token, unknown, isUser = false) {
  try {
    await listRuns({ limit: 1 }, { as: token });
  } catch (error) {
    // An answer that the database is away means that the token was accepted.
    if (error instanceof Problem && [500, 503].includes(error.status) && !/^http_|^sign_in_/.test(error.code)) return;
    throw error.isOfToken ? new Error(refusalText(error, unknown, isUser)) : error;
  }
}

/** Why a token is refused. */
export function refusalText(problem, unknown, isUser = userName() !== null) {
  if (problem.status !== 403) return unknown;
  return isUser ? "Your role does not allow this." : "This is an invoke token: it may only start what is due. The dashboard needs an admin token.";
}
