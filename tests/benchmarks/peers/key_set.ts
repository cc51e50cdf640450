// Which idempotency keys were seen. Three million strings take half a gigabyte; their hashes take 64 MB.

/** 53 bits, so that three million keys meet by chance once in two thousand runs. */
export function hash53(text: string): number {
  let high = 0xdeadbeef;
  let low = 0x41c6ce57;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    high = Math.imul(high ^ code, 2654435761);
    low = Math.imul(low ^ code, 1597334677);
  }
  high = Math.imul(high ^ (high >>> 16), 2246822507) ^ Math.imul(low ^ (low >>> 13), 3266489909);
  low = Math.imul(low ^ (low >>> 16), 2246822507) ^ Math.imul(high ^ (high >>> 13), 3266489909);
  return 4294967296 * (2097151 & low) + (high >>> 0);
}

/** A set of positive integers: open addressing in one array, at most half full. */
export class KeySet {
  size = 0;
  private slots: Float64Array;

  constructor(expected: number) {
    this.slots = new Float64Array(2 ** Math.ceil(Math.log2(Math.max(expected, 512) * 2)));
  }

  /** Whether it is new. */
  add(key: number): boolean {
    if (this.size * 2 >= this.slots.length) this.grow();
    // zero marks a free slot
    if (!this.put(key || 1)) return false;
    this.size++;
    return true;
  }

  private put(key: number): boolean {
    const mask = this.slots.length - 1;
    let at = key & mask;
    for (let found = this.slots[at]; found !== 0; found = this.slots[at]) {
      if (found === key) return false;
      at = (at + 1) & mask;
    }
    this.slots[at] = key;
    return true;
  }

  private grow(): void {
    const old = this.slots;
    this.slots = new Float64Array(old.length * 2);
    for (const key of old) if (key !== 0) this.put(key);
  }
}
