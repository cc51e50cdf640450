// What both Deno contenders have in common: their settings, their calls to the scenario trigger engine with time-outs,
// retries and one user's failure costing only that user, and their HTTP entry.

export interface ResultRow {
  user_id: string;
  scenario_type: string;
  outcome: string;
  notification_id: string | null;
  attempts: number;
}

/** What a call asks: these users about these types. */
export interface Pairs {
  users: string[];
  types: string[];
}

type Run = ReturnType<typeof newRun>;
type EngineResult = Omit<ResultRow, "attempts">;

const TIMEOUT_MS = 10_000;
const MOST_ATTEMPTS = 5;
const LONGEST_PAUSE_MS = 8_000;

function required(name: string): string {
  const value = Deno.env.get(name);
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

export const settings = {
  port: Number(required("PORT")),
  supabaseUrl: required("SUPABASE_URL"),
  secretKey: required("SUPABASE_SECRET_KEY"),
  scenarioTypes: required("SCENARIO_TYPES").split(","),
  inFlight: Number(required("IN_FLIGHT")),
  usersPerCall: Number(required("USERS_PER_CALL")),
  typesPerCall: Number(required("TYPES_PER_CALL")),
};
const url = `${required("SCENARIO_ENGINE_URL")}/v1/evaluations`;
const headers = { "Authorization": `Bearer ${required("SCENARIO_ENGINE_TOKEN")}`, "Content-Type": "application/json" };

/** The engine turned the call away, for good or after the last attempt. */
class CallFailed extends Error {
  constructor(readonly code: string, readonly attempts: number) {
    super(code);
  }
}

export function newRun() {
  const id = crypto.randomUUID();
  return { id, scope: `manual:${id}`, scheduledFor: new Date().toISOString() };
}

/** The calls about these users. */
export function callsFor(users: string[]): Pairs[] {
  const calls: Pairs[] = [];
  for (let at = 0; at < users.length; at += settings.usersPerCall) {
    const together = users.slice(at, at + settings.usersPerCall);
    for (let type = 0; type < settings.scenarioTypes.length; type += settings.typesPerCall) {
      calls.push({ users: together, types: settings.scenarioTypes.slice(type, type + settings.typesPerCall) });
    }
  }
  return calls;
}

/** A row for each pair. A call that fails is halved until the user for whom it fails stands alone. */
export async function evaluate(run: Run, { users, types }: Pairs): Promise<ResultRow[]> {
  try {
    const { results, attempts } = await ask(run, users, types);
    return rowsOf(users, types, results, attempts);
  } catch (error) {
    if (!(error instanceof CallFailed)) throw error;
    if (users.length > 1) {
      const half = users.length >> 1;
      const first = await evaluate(run, { users: users.slice(0, half), types });
      return first.concat(await evaluate(run, { users: users.slice(half), types }));
    }
    const failed = { user_id: users[0], outcome: `failed:${error.code}`, notification_id: null };
    return types.map((scenario_type) => ({ ...failed, scenario_type, attempts: error.attempts }));
  }
}

async function ask(run: Run, users: string[], types: string[]): Promise<{ results: EngineResult[]; attempts: number }> {
  const body = JSON.stringify({
    invocation_id: run.id,
    scheduled_for: run.scheduledFor,
    dry_run: false,
    evaluations: users.map((user_id) => (
      { user_id, scenario_types: types, idempotency_key_prefix: `${run.scope}:${user_id}` }
    )),
  });
  for (let attempt = 1;; attempt++) {
    let code: string;
    let retryAfter = 0;
    // not AbortSignal.timeout(): it would be kept for all of its ten seconds, after thousands of calls each second
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(new DOMException("timed out", "TimeoutError")), TIMEOUT_MS);
    try {
      const answer = await fetch(url, { method: "POST", headers, body, signal: abort.signal });
      if (answer.ok) return { results: (await answer.json()).results, attempts: attempt };
      await answer.body?.cancel();
      code = `engine_http_${answer.status}`;
      if (answer.status !== 408 && answer.status !== 429 && answer.status < 500) throw new CallFailed(code, attempt);
      retryAfter = Number(answer.headers.get("retry-after")) * 1000 || 0;
    } catch (error) {
      if (error instanceof CallFailed) throw error;
      code = error instanceof DOMException && error.name === "TimeoutError" ? "engine_timeout" : "engine_unreachable";
    } finally {
      clearTimeout(timer);
    }
    if (attempt === MOST_ATTEMPTS) throw new CallFailed(code, attempt);
    const pause = retryAfter || Math.random() * Math.min(LONGEST_PAUSE_MS, 200 * 2 ** attempt);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** The engine's results in the pairs' order; what it left out has failed, what it added is dropped. */
function rowsOf(users: string[], types: string[], results: EngineResult[], attempts: number): ResultRow[] {
  // one pair needs no index
  if (users.length === 1 && types.length === 1 && results.length === 1) {
    const [{ user_id, scenario_type, outcome, notification_id }] = results;
    if (user_id === users[0] && scenario_type === types[0]) {
      return [{ user_id, scenario_type, outcome, notification_id: notification_id ?? null, attempts }];
    }
  }
  const byPair = new Map(results.map((result) => [`${result.user_id}:${result.scenario_type}`, result]));
  return users.flatMap((user_id) =>
    types.map((scenario_type) => {
      const result = byPair.get(`${user_id}:${scenario_type}`);
      const outcome = result?.outcome ?? "failed:engine_missing_result";
      return { user_id, scenario_type, outcome, notification_id: result?.notification_id ?? null, attempts };
    })
  );
}

/** GET: it serves. POST: one run of all mentors. */
export function serve(evaluateAll: () => Promise<Record<string, unknown>>): void {
  Deno.serve({ hostname: "127.0.0.1", port: settings.port, onListen: () => {} }, async (request) => {
    if (request.method !== "POST") return Response.json({ status: "ok" });
    try {
      return Response.json(await evaluateAll());
    } catch (error) {
      console.error(error);
      return Response.json({ error: "the run did not complete" }, { status: 500 });
    }
  });
}
