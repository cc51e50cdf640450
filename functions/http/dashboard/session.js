// Who is signed in: an admin token, or a user of the project's own Auth. Either lasts as long as the tab.

import { Problem } from "./problem.js";

const TOKEN = "scheduler-admin-token";
const SESSION = "scheduler-session";
// A token that ends sooner is replaced before it is used.
const REFRESH_BEFORE_MS = 60_000;
const TIMEOUT_MS = 15_000;

let refreshing;

/** Which project this is and where its users sign in, if they can; all null where the function does not say. */
export const settings = { sign_in: null, project: null, environment: null };

export async function readSettings() {
  try {
    const response = await fetch(new URL("config.json", import.meta.url), { credentials: "omit", signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (response.ok) Object.assign(settings, await response.json());
  } catch {
    // away: an admin token does without them
  }
}

export function isSignedIn() {
  return sessionStorage.getItem(TOKEN) !== null || session() !== null;
}

/** The signed-in user's e-mail address; null with an admin token. */
export function userName() {
  return claimsOf(session()?.access_token).email ?? null;
}

/** Whether requests that change something are accepted: a viewer's are not. */
export function mayAct() {
  return session() === null || roleOf(session().access_token) !== "viewer";
}

export function roleOf(accessToken) {
  return claimsOf(accessToken).app_metadata?.scheduler_role ?? null;
}

/** Whether the project signs with the secret that the function does not have. */
export function isLegacy(accessToken) {
  return String(part(accessToken, 0).alg).startsWith("HS");
}

export function rememberToken(value) {
  sessionStorage.removeItem(SESSION);
  sessionStorage.setItem(TOKEN, value);
}

export function rememberSession(value) {
  sessionStorage.removeItem(TOKEN);
  sessionStorage.setItem(SESSION, JSON.stringify(value));
}

export function forget() {
  sessionStorage.removeItem(TOKEN);
  sessionStorage.removeItem(SESSION);
}

/** A new session, which is not remembered yet; raises a Problem. */
export function signInWith(email, password) {
  return grant("password", { email, password });
}

/** Forgets who is signed in, here and, if Auth answers, there. */
export function signOut() {
  const held = session();
  forget();
  if (held && settings.sign_in) request("logout?scope=local", {}, held.access_token).catch(() => {});
}

/** The token to send, a fresh one where it is about to end; raises a Problem. */
export async function bearer() {
  const held = session();
  if (held === null) return sessionStorage.getItem(TOKEN);
  if (held.ends_at - Date.now() > REFRESH_BEFORE_MS) return held.access_token;
  refreshing ??= refresh(held).finally(() => { refreshing = undefined; });
  return refreshing;
}

async function refresh(held) {
  try {
    const fresh = await grant("refresh_token", { refresh_token: held.refresh_token });
    // Signed out meanwhile, or in as another user: it must not come back.
    if (session()?.refresh_token === held.refresh_token) rememberSession(fresh);
    return fresh.access_token;
  } catch (error) {
    if ([400, 401, 403].includes(error.status)) throw new Problem({ status: 401, code: "session_ended", title: "The session has ended" });
    if (held.ends_at > Date.now()) return held.access_token;
    throw error;
  }
}

async function grant(type, body) {
  const answer = await request(`token?grant_type=${type}`, body);
  return { access_token: answer.access_token, refresh_token: answer.refresh_token, ends_at: Date.now() + answer.expires_in * 1000 };
}

async function request(path, body, accessToken) {
  let response;
  try {
    response = await fetch(`${settings.sign_in.auth_url}/${path}`, {
      method: "POST",
      headers: { apikey: settings.sign_in.publishable_key, "Content-Type": "application/json", ...(accessToken && { Authorization: `Bearer ${accessToken}` }) },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
    if (response.ok) return response.status === 204 ? null : await response.json();
  } catch {
    throw new Problem({ detail: "The project's Auth endpoint cannot be reached, or its answer was cut off." });
  }
  const said = await response.json().catch(() => ({}));
  throw new Problem({ status: response.status, code: said.error_code ?? said.error ?? `http_${response.status}`, title: "Supabase Auth", detail: said.msg ?? said.error_description ?? response.statusText });
}

function session() {
  try {
    return JSON.parse(sessionStorage.getItem(SESSION));
  } catch {
    return null;
  }
}

function claimsOf(accessToken) {
  return accessToken ? part(accessToken, 1) : {};
}

/** A part of a JWT, which is not verified here: the function does that. */
function part(accessToken, index) {
  try {
    const bytes = atob(accessToken.split(".")[index].replaceAll("-", "+").replaceAll("_", "/"));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (letter) => letter.charCodeAt(0))));
  } catch {
    return {};
  }
}
