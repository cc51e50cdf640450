// A fast fake of the scenario trigger engine (docs/engine-contract.md), meant never to be what limits a contender.
//
//   deno run --allow-net=127.0.0.1 engine.ts PORT [--latency=20] [--tail] [--notable=0.1] [--expect=100000]
//
// `notable`: the share of pairs that are `triggered`; the others are `not_triggered`. `expect`: keys for which there is
// room from the start.
//
// It speaks HTTP over plain TCP: Deno.serve makes a Request, a Response and two streams of every call, which costs more
// than the work itself. It understands what HTTP clients send here: keep-alive, Content-Length, small heads.

import { hash53, KeySet } from "./key_set.ts";
import { LatencyQueue, tailLatency } from "./latency_queue.ts";

interface Call {
  dry_run?: boolean;
  evaluations: { user_id: string; scenario_types: string[]; idempotency_key_prefix: string }[];
}

const options = new Map(Deno.args.slice(1).map((arg) => arg.slice(2).split("=", 2) as [string, string]));
const latency = Number(options.get("latency") ?? 20);
const latencyOf = options.has("tail") ? tailLatency : () => latency;
const notable = Number(options.get("notable") ?? 0.1) * 1000;
const expect = Number(options.get("expect") ?? 100_000);
// A call of a thousand users with a dozen types stays below this.
const MOST_BYTES = 4 * 1024 * 1024;
const decoder = new TextDecoder();
const encoder = new TextEncoder();
const queue = new LatencyQueue();

function nothingSeen(in_flight: number) {
  const moments = { first_call: 0, last_answer: 0, latency: 0, longest: 0 };
  return { calls: 0, evaluations: 0, duplicates: 0, in_flight, max_in_flight: in_flight, connections: 0, ...moments };
}

let seen = nothingSeen(0);
let keys = new KeySet(expect);

/**
 * What was seen since the last reset. `busy_seconds`: from the first call's arrival to the last answer;
 * `latency_seconds`: what all calls together were meant to take, `longest_seconds`: the longest of them.
 */
function stats(): string {
  const { first_call, last_answer, latency, longest, ...counts } = seen;
  return JSON.stringify({
    pid: Deno.pid,
    ...counts,
    distinct: keys.size,
    busy_seconds: Math.max(0, last_answer - first_call) / 1000,
    latency_seconds: latency / 1000,
    longest_seconds: longest / 1000,
  });
}

/** Answers a call, after the latency that its first pair has for every contender. */
async function evaluate(body: string): Promise<string> {
  const call: Call = JSON.parse(body);
  if (!Array.isArray(call.evaluations)) throw new Error("evaluations: a list is expected");
  if (seen.calls++ === 0) seen.first_call = performance.now();
  if (++seen.in_flight > seen.max_in_flight) seen.max_in_flight = seen.in_flight;
  let results = "";
  let isDuplicate = false;
  let seed = -1;
  for (const { user_id, scenario_types, idempotency_key_prefix } of call.evaluations) {
    for (const type of scenario_types) {
      // contenders have scopes of their own in their keys; user and type are the same for all of them
      const pair = hash53(`${user_id}:${type}`);
      if (seed < 0) seed = pair;
      if (!call.dry_run) {
        seen.evaluations++;
        if (!keys.add(hash53(`${idempotency_key_prefix}:${type}`))) {
          seen.duplicates++;
          isDuplicate = true;
        }
      }
      const outcome = (pair % 1000) < notable ? `"triggered","notification_id":"n-${pair}"` : `"not_triggered"`;
      results += `${results && ","}{"user_id":"${user_id}","scenario_type":"${type}","outcome":${outcome}}`;
    }
  }
  const milliseconds = latencyOf(seed < 0 ? 0 : seed);
  seen.latency += milliseconds;
  if (milliseconds > seen.longest) seen.longest = milliseconds;
  if (milliseconds > 0) await queue.after(milliseconds);
  seen.in_flight--;
  seen.last_answer = performance.now();
  return isDuplicate
    ? respond("409 Conflict", `{"code":"duplicate_idempotency_key"}`)
    : respond("200 OK", `{"results":[${results}]}`);
}

async function answer(request: string, body: string): Promise<string> {
  switch (request) {
    case "POST /v1/evaluations":
      try {
        return await evaluate(body);
      } catch (error) {
        return respond("400 Bad Request", JSON.stringify({ code: "bad_request", detail: String(error) }));
      }
    case "GET /stats":
      return respond("200 OK", stats());
    case "POST /reset":
      seen = nothingSeen(seen.in_flight);
      keys = new KeySet(expect);
      return respond("200 OK", "{}");
    case "GET /":
      return respond("200 OK", "{}");
    default:
      return respond("404 Not Found", "{}");
  }
}

/** Serves one keep-alive connection until the client closes it. */
async function serve(connection: Deno.TcpConn): Promise<void> {
  seen.connections++;
  connection.setNoDelay(true);
  let buffer = new Uint8Array(4096);
  let filled = 0;
  const more = async (): Promise<boolean> => {
    if (filled === buffer.length) {
      const larger = new Uint8Array(buffer.length * 2);
      larger.set(buffer);
      buffer = larger;
    }
    const count = await connection.read(buffer.subarray(filled));
    filled += count ?? 0;
    return count !== null;
  };
  try {
    for (;;) {
      let end = indexOfHeadEnd(buffer, filled);
      while (end < 0) {
        if (filled > MOST_BYTES || !(await more())) return;
        end = indexOfHeadEnd(buffer, filled);
      }
      const head = decoder.decode(buffer.subarray(0, end));
      const start = end + 4;
      const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
      if (length > MOST_BYTES) return;
      while (filled < start + length) if (!(await more())) return;
      const body = decoder.decode(buffer.subarray(start, start + length));
      buffer.copyWithin(0, start + length, filled);
      filled -= start + length;
      const sent = encoder.encode(await answer(head.slice(0, head.indexOf(" HTTP/")), body));
      for (let at = 0; at < sent.length;) at += await connection.write(sent.subarray(at));
    }
  } catch {
    // the client went away; what it asked was counted
  } finally {
    connection.close();
  }
}

function respond(status: string, body: string): string {
  // all that is sent is ASCII, so that characters are bytes
  return `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
}

function indexOfHeadEnd(buffer: Uint8Array, filled: number): number {
  for (let at = buffer.indexOf(13); at >= 0 && at + 3 < filled; at = buffer.indexOf(13, at + 1)) {
    if (buffer[at + 1] === 10 && buffer[at + 2] === 13 && buffer[at + 3] === 10) return at;
  }
  return -1;
}

const listener = Deno.listen({ hostname: "127.0.0.1", port: Number(Deno.args[0]) });
for await (const connection of listener) serve(connection);
