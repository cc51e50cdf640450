// What the engine's command line says.

export interface Options {
  port: number;
  /** Share of pairs that are `triggered`; the others are `not_triggered`. */
  notable: number;
  /** Do not look for duplicates. */
  countOnly: boolean;
  /** Answer a key that was seen before as the first time, as a real engine does; else such a call is refused. */
  repeat: boolean;
  /** Keys for which there is room from the start. */
  expect: number;
  /** Milliseconds for the call whose first pair has this hash. */
  latencyOf: (hash: number) => number;
}

const P50 = 20;
const P99 = 400;
// The 99th percentile of the normal distribution.
const Z99 = 2.3263478740408408;
const SIGMA = Math.log(P99 / P50) / Z99;
// A quantile that is met once in ten thousand calls ends the tail: one call must not decide a run.
const LONGEST = 1500;

export function parseArgs(args: string[]): Options {
  const port = Number(args[0]);
  if (!Number.isInteger(port) || port <= 0) throw new Error(`a port is expected first, found ${args[0]}`);
  const named = new Map(
    args.slice(1).map((arg) => {
      const [name, value = "true"] = arg.replace(/^--/, "").split("=", 2);
      return [name, value];
    }),
  );
  const number = (name: string, otherwise: number) => {
    const value = Number(named.get(name) ?? otherwise);
    if (Number.isNaN(value)) throw new Error(`--${name}: a number is expected, found ${named.get(name)}`);
    return value;
  };
  const latency = number("latency", 20);
  return {
    port,
    notable: number("notable", 0.1),
    countOnly: named.has("count-only"),
    repeat: named.has("repeat"),
    expect: number("expect", 100_000),
    latencyOf: named.has("tail") ? tailLatency : () => latency,
  };
}

/** Log-normal, p50 20 ms, p99 400 ms. */
export function tailLatency(hash: number): number {
  // two independent draws in (0, 1) of one 53-bit hash, and Box and Muller's way from them to a normal one
  const first = ((hash % 0x4000000) + 0.5) / 0x4000000;
  const second = (Math.floor(hash / 0x4000000) + 0.5) / 0x8000000;
  const normal = Math.sqrt(-2 * Math.log(first)) * Math.cos(2 * Math.PI * second);
  return Math.min(P50 * Math.exp(SIGMA * normal), LONGEST);
}
