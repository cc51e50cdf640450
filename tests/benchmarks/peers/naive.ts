// The Edge Function that most tutorials lead to: read all mentors, then Promise.all over one chunk after the other, and
// one upsert for each chunk. It is correct; the calls are made by the same code as the good one's. With many users in a
// call a chunk has so many rows that supabase-js's gathering of their columns takes most of the time.

import { createClient } from "@supabase/supabase-js";
import { callsFor, evaluate, newRun, serve, settings } from "./shared.ts";

const PAGE = 1000;

const supabase = createClient(settings.supabaseUrl, settings.secretKey);

async function readAll(): Promise<string[]> {
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

serve(async () => {
  const run = newRun();
  const users = await readAll();
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
});
