// The public REST contract (docs/api.md).

import { Problem, problemOf } from "./problem.js";
import { bearer } from "./session.js";

const API = new URL("../api/v1/", import.meta.url);
const [INVOCATIONS, SCENARIOS, SCHEDULE, AUDIT, TEST_ALERT] = ["scheduler-invocations", "scenario-configs", "schedule", "scheduler-audit", "test-alert"].map((name) => new URL(name, API));
const TIMEOUT_MS = 45_000;

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

/** Sets a run's note; null removes it. */
export function setNote(id, note) {
  return call("PUT", address(INVOCATIONS, `/${encodeURIComponent(id)}`), { body: { note } });
}

/** A page of a run's stored results. */
export function listResults(id, query, options) {
  return call("GET", address(INVOCATIONS, `/${encodeURIComponent(id)}/evaluations`, query), options);
}

/** All stored results that match, as the response whose body is the CSV; without a limit of time, as it may be long. */
export function exportResults(id, query, options) {
  return request("GET", address(INVOCATIONS, `/${encodeURIComponent(id)}/evaluations`, query), { ...options, headers: { Accept: "text/csv" } });
}

/** A page of the active mentors, with the scenario types that apply. */
export function listMentors(query, options) {
  return call("GET", address(INVOCATIONS, "/active-peer-mentors", query), options);
}

/** The schedule, the slots to come, and what is paused. */
export function getSchedule(options) {
  return call("GET", address(SCHEDULE), options);
}

/** Pauses, changes a pause, resumes, or ends the engine's pause; answers as `getSchedule`. */
export function changeSchedule(changes) {
  return call("PUT", address(SCHEDULE), { body: changes });
}

/** A page of what was done, the newest first. */
export function listAudit(query, options) {
  return call("GET", address(AUDIT, "", query), options);
}

export function sendTestAlert() {
  return call("POST", address(TEST_ALERT));
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

async function call(method, url, options = {}) {
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  const response = await request(method, url, { ...options, signal: options.signal ? AbortSignal.any([options.signal, limit]) : limit, caller: options.signal });
  try {
    return await response.json();
  } catch (error) {
    throw options.signal?.aborted ? error : cutOff();
  }
}

/** A response that is well; raises a Problem, or what aborted it. */
async function request(method, url, { body, headers = {}, signal, caller = signal, as } = {}) {
  const sent = { Authorization: `Bearer ${as ?? (await bearer())}`, ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(url, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    throw caller?.aborted ? error : cutOff();
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

function cutOff() {
  return new Problem({ detail: "The function cannot be reached, or its answer was cut off." });
}
