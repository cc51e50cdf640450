// Waits for many calls with one timer: a timer for each call would cost as much as answering it.

const SLOTS = 2048;
// The runtime's timer turns every 2.2 ms or so although it is asked for every one (measured): what is due before half of
// the next turn goes with this one, so that the mean latency is what was asked for.
const AHEAD = 1.2;

/** Resolves promises after a delay of up to two seconds, in steps of a millisecond. */
export class LatencyQueue {
  private wheel: (() => void)[][] = Array.from({ length: SLOTS }, () => []);
  private waiting = 0;
  private reached = 0;
  private timer: ReturnType<typeof setInterval> | undefined;

  after(milliseconds: number): Promise<void> {
    const now = performance.now();
    if (this.waiting++ === 0) {
      this.reached = Math.floor(now);
      this.timer = setInterval(() => this.turn(), 1);
    }
    const ticks = Math.min(Math.round(now + milliseconds), Math.floor(now) + SLOTS - 1);
    const due = Math.max(ticks, this.reached + 1);
    return new Promise((resolve) => this.wheel[due % SLOTS].push(resolve));
  }

  private turn(): void {
    const now = Math.floor(performance.now() + AHEAD);
    while (this.reached < now) {
      const slot = this.wheel[++this.reached % SLOTS];
      if (slot.length === 0) continue;
      this.waiting -= slot.length;
      for (const resolve of slot.splice(0)) resolve();
    }
    if (this.waiting === 0) clearInterval(this.timer);
  }
}

const P50 = 20;
const P99 = 400;
// By the 99th percentile of the normal distribution.
const SIGMA = Math.log(P99 / P50) / 2.3263478740408408;
// A quantile that is met once in ten thousand calls ends the tail: one call must not decide a run.
const LONGEST = 1500;

/** Log-normal milliseconds for the call whose first pair has this hash. */
export function tailLatency(hash: number): number {
  // two independent draws in (0, 1) of one 53-bit hash, and Box and Muller's way from them to a normal one
  const first = ((hash % 0x4000000) + 0.5) / 0x4000000;
  const second = (Math.floor(hash / 0x4000000) + 0.5) / 0x8000000;
  const normal = Math.sqrt(-2 * Math.log(first)) * Math.cos(2 * Math.PI * second);
  return Math.min(P50 * Math.exp(SIGMA * normal), LONGEST);
}
