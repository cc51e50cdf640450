// A fast fake of the scenario trigger engine (docs/engine-contract.md), meant never to be what limits a contender.
//
//   deno run --allow-net=127.0.0.1 engine.ts PORT [--latency=20] [--tail] [--notable=0.1] [--count-only | --repeat] [--expect=100000]
//
// It speaks HTTP over plain TCP: Deno.serve makes a Request, a Response and two streams of every call, which costs more
// than the work itself. It understands what HTTP clients send here: keep-alive, Content-Length, small heads.

import { type Options, parseArgs } from "./engine_options.ts";
import { hash53, KeySet } from "./key_set.ts";
import { LatencyQueue } from "./latency_queue.ts";

interface Evaluation {
  user_id: string;
  scenario_types: string[];
  idempotency_key_prefix: string;
}

interface Call {
  dry_run?: boolean;
  evaluations: Evaluation[];
}

const HEAD_END = new TextEncoder().encode("\r\n\r\n");
// A call of a thousand users with a dozen types stays below this; what is longer is nobody's benchmark.
const MOST_BYTES = 4 * 1024 * 1024;
const decoder = new TextDecoder();
const encoder = new TextEncoder();

export class Engine {
  private keys: KeySet;
  // with `--repeat`: one key for each pair, or somebody would be acted on twice
  private pairs: KeySet;
  private queue = new LatencyQueue();
  private calls = 0;
  private evaluations = 0;
  private duplicates = 0;
  private inFlight = 0;
  private maxInFlight = 0;
  private connections = 0;
  private firstCall = 0;
  private lastAnswer = 0;
  private latency = 0;
  private longest = 0;

  constructor(private options: Options) {
    this.keys = new KeySet(options.expect);
    this.pairs = new KeySet(options.repeat ? options.expect : 0);
  }

  /**
   * What was seen since the last reset. `busy_seconds`: from the first call's arrival to the last answer;
   * `latency_seconds`: what all calls together were meant to take, `longest_seconds`: the longest of them.
   */
  stats(): string {
    return JSON.stringify({
      pid: Deno.pid,
      calls: this.calls,
      evaluations: this.evaluations,
      distinct: this.keys.size,
      duplicates: this.duplicates,
      in_flight: this.inFlight,
      max_in_flight: this.maxInFlight,
      connections: this.connections,
      busy_seconds: Math.max(0, this.lastAnswer - this.firstCall) / 1000,
      latency_seconds: this.latency / 1000,
      longest_seconds: this.longest / 1000,
    });
  }

  reset(): void {
    this.keys = new KeySet(this.options.expect);
    this.pairs = new KeySet(this.options.repeat ? this.options.expect : 0);
    this.calls =
      this.evaluations =
      this.duplicates =
      this.connections =
        0;
    this.maxInFlight = this.inFlight;
    this.firstCall =
      this.lastAnswer =
      this.latency =
      this.longest =
        0;
  }

  /** Answers a call, after the latency that its first pair has for every contender. */
  async evaluate(body: string): Promise<string> {
    const call: Call = JSON.parse(body);
    if (!Array.isArray(call.evaluations)) throw new Error("evaluations: a list is expected");
    if (this.calls++ === 0) this.firstCall = performance.now();
    if (++this.inFlight > this.maxInFlight) this.maxInFlight = this.inFlight;
    let results = "";
    let isDuplicate = false;
    let seed = -1;
    for (const { user_id, scenario_types, idempotency_key_prefix } of call.evaluations) {
      for (const type of scenario_types) {
        // contenders have scopes of their own in their keys; user and type are the same for all of them
        const pair = hash53(`${user_id}:${type}`);
        if (seed < 0) seed = pair;
        if (!call.dry_run && !this.count(`${idempotency_key_prefix}:${type}`, pair)) isDuplicate = true;
        const outcome = (pair % 1000) < this.options.notable * 1000
          ? `"triggered","notification_id":"n-${pair}"`
          : `"not_triggered"`;
        results += `${results && ","}{"user_id":"${user_id}","scenario_type":"${type}","outcome":${outcome}}`;
      }
    }
    const latency = this.options.latencyOf(seed < 0 ? 0 : seed);
    this.latency += latency;
    if (latency > this.longest) this.longest = latency;
    if (latency > 0) await this.queue.after(latency);
    this.inFlight--;
    this.lastAnswer = performance.now();
    return isDuplicate
      ? respond("409 Conflict", `{"code":"duplicate_idempotency_key"}`)
      : respond("200 OK", `{"results":[${results}]}`);
  }

  private count(key: string, pair: number): boolean {
    this.evaluations++;
    if (this.options.countOnly) return true;
    const isNew = this.keys.add(hash53(key));
    // seen again is what a retry looks like; a new key for a pair that had one acts on somebody twice
    const isOnce = this.options.repeat ? !isNew || this.pairs.add(pair) : isNew;
    if (isOnce) return true;
    this.duplicates++;
    return false;
  }

  async answer(method: string, path: string, body: string): Promise<string> {
    if (method === "POST" && path === "/v1/evaluations") {
      try {
        return await this.evaluate(body);
      } catch (error) {
        return respond("400 Bad Request", JSON.stringify({ code: "bad_request", detail: String(error) }));
      }
    }
    if (method === "GET" && path === "/stats") return respond("200 OK", this.stats());
    if (method === "POST" && path === "/reset") {
      this.reset();
      return respond("200 OK", "{}");
    }
    return method === "GET" && path === "/" ? respond("200 OK", "{}") : respond("404 Not Found", "{}");
  }

  /** Serves one keep-alive connection until the client closes it. */
  async serve(connection: Deno.TcpConn): Promise<void> {
    this.connections++;
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
        const start = end + HEAD_END.length;
        const length = contentLength(head);
        if (length > MOST_BYTES) return;
        while (filled < start + length) if (!(await more())) return;
        const body = decoder.decode(buffer.subarray(start, start + length));
        buffer.copyWithin(0, start + length, filled);
        filled -= start + length;
        const [method, path] = head.slice(0, head.indexOf("\r\n")).split(" ", 2);
        const answer = encoder.encode(await this.answer(method, path, body));
        for (let sent = 0; sent < answer.length;) sent += await connection.write(answer.subarray(sent));
      }
    } catch {
      // the client went away; what it asked was counted
    } finally {
      connection.close();
    }
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

function contentLength(head: string): number {
  const found = /\r\ncontent-length: *(\d+)/i.exec(head);
  return found ? Number(found[1]) : 0;
}

if (import.meta.main) {
  const options = parseArgs(Deno.args);
  const engine = new Engine(options);
  const listener = Deno.listen({ hostname: "127.0.0.1", port: options.port });
  for await (const connection of listener) engine.serve(connection);
}
