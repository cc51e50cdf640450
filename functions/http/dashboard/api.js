// The public REST contract (docs/api.md), and the token that opens it.

const INVOCATIONS = new URL("../api/v1/scheduler-invocations", import.meta.url);
const SCENARIOS = new URL("../api/v1/scenario-configs", import.meta.url);
const TOKEN = "scheduler-admin-token";
const TIMEOUT_MS = 45_000;

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

export function token() {
  return sessionStorage.getItem(TOKEN);
}

export function rememberToken(value) {
  sessionStorage.setItem(TOKEN, value);
}

export function forgetToken() {
  sessionStorage.removeItem(TOKEN);
}

/** A page of runs. `query`: as the contract has it; a list is repeated, what is empty is left out. */
export function listRuns(query, options) {
  return call("GET", address(INVOCATIONS, "", query), options);
}

export function getRun(id, options) {
  return call("GET", address(INVOCATIONS, `/${encodeURIComponent(id)}`), options);
}

/** Opens a run and answers at once; the database requests its slices. */
export function openRun(body, idempotencyKey) {
  return call("POST", address(INVOCATIONS), {
    body,
    headers: { Prefer: "respond-async", "Idempotency-Key": idempotencyKey },
  });
}

export function cancelRun(id) {
  return call("PUT", address(INVOCATIONS, `/${encodeURIComponent(id)}`), { body: { status: "cancelled" } });
}

/** The scenario types, each followed by the rows of its organizations. */
export function listScenarios(options) {
  return call("GET", address(SCENARIOS), options);
}

/** Changes these members of a type's row; null is as not set. `organization` null: the row of all organizations. */
export function configureScenario(type, organization, changes) {
  return call("PUT", address(SCENARIOS, `/${encodeURIComponent(type)}`, { organization }), { body: changes });
}

/** Something that no other request is named by. (`crypto.randomUUID` is not there without TLS.) */
export function newIdempotencyKey() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return `dashboard-${[...random].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

function address(base, path = "", query = {}) {
  const url = new URL(base.href + path);
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") url.searchParams.append(name, one);
  }
  return url;
}

async function call(method, url, { body, headers = {}, signal, as = token() } = {}) {
  const sent = { Authorization: `Bearer ${as}`, ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  try {
    response = await fetch(url, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
    if (response.ok) return await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem({ detail: "The function cannot be reached, or its answer was cut off." });
  }
  throw await problemOf(response);
}

async function problemOf(response) {
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
