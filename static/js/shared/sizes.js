// Bytes and speed as people read them.

/** 1234567 is "1.2 MB"; the same words as the filter |bytes. */
export function size(bytes) {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), 3);
  const digits = power && bytes / 1000 ** power < 10 ? 1 : 0;
  return `${(bytes / 1000 ** power).toFixed(digits)} ${["B", "kB", "MB", "GB"][power]}`;
}

const WINDOW = 8000; // milliseconds over which a speed is measured

/** Bytes a second over the last seconds, however unevenly they came. */
export class Speed {
  #seen = [];

  note(bytes, now = performance.now()) {
    this.#seen.push([now, bytes]);
    while (this.#seen.length > 2 && now - this.#seen[0][0] > WINDOW) this.#seen.shift();
  }

  reset() {
    this.#seen = [];
  }

  get perSecond() {
    const [first, last] = [this.#seen[0], this.#seen.at(-1)];
    return first && last[0] > first[0] ? (1000 * (last[1] - first[1])) / (last[0] - first[0]) : 0;
  }
}
