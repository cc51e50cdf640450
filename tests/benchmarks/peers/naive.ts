// The Edge Function that most tutorials lead to: read everybody, then Promise.all over one chunk after the other, and
// one upsert for each chunk. It is correct; the calls are made by the same code as the good one's. With many users in a
// call a chunk has so many rows that supabase-js's gathering of their columns takes most of the time.

import { createClient } from "@supabase/supabase-js";
import { evaluate, newRun, type Pairs } from "./engine_call.ts";
import { settings } from "./settings.ts";

const PAGE = 1000;

const supabase = createClient(settings.supabaseUrl, settings.secretKey);

async function readEverybody(): Promise<string[]> {
  const users: string[] = [];
  // the Data API gives a thousand rows at most
  for (;;) {
    const { data, error } = await supabase
      .from("active_peer_mentors").select("user_id").order("user_id").range(users.length, users.length + PAGE - 1);
    if (error) throw new Error(error.message);
    users.push(...data.map((row) => row.user_id));
    if (data.length < PAGE) return users;
  }
}

function callsFor(users: string[]): Pairs[] {
  const calls: Pairs[] = [];
  for (let at = 0; at < users.length; at += settings.usersPerCall) {
    for (let type = 0; type < settings.scenarioTypes.length; type += settings.typesPerCall) {
      calls.push({
        users: users.slice(at, at + settings.usersPerCall),
        types: settings.scenarioTypes.slice(type, type + settings.typesPerCall),
      });
    }
  }
  return calls;
}

async function evaluateEverybody(): Promise<Record<string, unknown>> {
  const run = newRun();
  const users = await readEverybody();
  const calls = callsFor(users);
  const counts: Record<string, number> = {};
  for (let at = 0; at < calls.length; at += settings.inFlight) {
    const chunk = calls.slice(at, at + settings.inFlight);
    const rows = (await Promise.all(chunk.map((call) => evaluate(run, call)))).flat();
    const { error } = await supabase.from("benchmark_results").upsert(rows);
    if (error) throw new Error(error.message);
    for (const { outcome } of rows) counts[outcome] = (counts[outcome] ?? 0) + 1;
  }
  return { id: run.id, mentors: users.length, counts };
}

Deno.serve({ hostname: "127.0.0.1", port: settings.port, onListen: () => {} }, async (request) => {
  if (request.method !== "POST") return Response.json({ status: "ok" });
  try {
    return Response.json(await evaluateEverybody());
  } catch (error) {
    console.error(error);
    return Response.json({ error: "the run did not complete" }, { status: 500 });
  }
});
