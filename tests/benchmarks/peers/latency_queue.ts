// Waits for many calls with one timer: a timer for each call would cost as much as answering it.

const SLOTS = 2048;
// The runtime's timer turns every 2.2 ms or so although it is asked for every one (measured): whoever is due before half
// of the next turn goes with this one, so that the mean latency is what was asked for.
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
