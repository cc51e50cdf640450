// Polling: fast while a run is open, slow otherwise, not at all while the page is hidden.

const FIRST_RETRY_MS = 2_000;
const LONGEST_RETRY_MS = 30_000;

export class Poll {
  #look;
  #failed;
  #failures = 0;
  #timer;
  #asking;
  #stopped = true;
  #ended = false;

  /**
   * @param {function(AbortSignal): Promise<number|null>} look requests and shows; returns after how many milliseconds to poll
   *   again, null: never.
   * @param {function(Error|null, number): void} failed is called with an error and the milliseconds until the next try,
   *   and of null when all is well again.
   */
  constructor(look, failed) {
    this.#look = look;
    this.#failed = failed;
  }

  /** Begins, or continues where it was stopped. */
  start() {
    this.#stopped = false;
    document.addEventListener("visibilitychange", this.#visibilityChanged);
    this.now();
  }

  /** Polls now, whatever was planned. */
  async now() {
    if (this.#stopped) return;
    clearTimeout(this.#timer);
    this.#asking?.abort();
    const asking = (this.#asking = new AbortController());
    let pause;
    try {
      pause = await this.#look(asking.signal);
      if (asking.signal.aborted) return;
      if (this.#failures > 0) this.#failed(null, 0);
      this.#failures = 0;
    } catch (error) {
      if (asking.signal.aborted) return;
      // A defect of this page is for its developers as well.
      if (error.status === undefined) console.error(error);
      pause = this.#pauseAfter(error);
      this.#failed(error, pause);
    }
    this.#asking = undefined;
    this.#ended = pause === null;
    this.#plan(pause);
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#asking?.abort();
    document.removeEventListener("visibilitychange", this.#visibilityChanged);
  }

  #pauseAfter(error) {
    this.#failures += 1;
    const backoff = Math.min(FIRST_RETRY_MS * 2 ** (this.#failures - 1), LONGEST_RETRY_MS);
    return Math.max(backoff, (error.retryAfterSeconds ?? 0) * 1000);
  }

  #plan(pause) {
    if (this.#stopped || this.#ended || document.hidden) return;
    this.#timer = setTimeout(() => this.now(), pause);
  }

  #visibilityChanged = () => {
    clearTimeout(this.#timer);
    if (!document.hidden && !this.#ended && !this.#asking) this.now();
  };
}
