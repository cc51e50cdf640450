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
    this.slots = new Float64Array(2 ** Math.ceil(Math.log2(expected * 2)));
  }

  /** Whether it is new. */
  add(key: number): boolean {
    const mask = this.slots.length - 1;
    let at = key & mask;
    // zero marks a free slot
    for (let found = this.slots[at]; found !== 0; found = this.slots[at]) {
      if (found === key) return false;
      at = (at + 1) & mask;
    }
    if (++this.size * 2 > this.slots.length) throw new Error("more keys than were expected");
    this.slots[at] = key || 1;
    return true;
  }
}
