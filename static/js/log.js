// A log that follows its end while the reader is there, and waits while they look at something above.

const MOST_LINES = 2000;
const NEAR = 24; // pixels from the end that still count as being there

export class Log {
  #unseen = 0;

  constructor({ box, jump, count, empty }) {
    Object.assign(this, { box, jump, count, empty });
    jump.addEventListener("click", () => this.#toEnd());
    box.addEventListener("scroll", () => { if (this.#isAtEnd()) this.#seen(); }, { passive: true });
    this.#toEnd();
  }

  add({ text, level }) {
    const follows = this.#isAtEnd();
    const line = document.createElement("div");
    line.textContent = text;
    if (level === "error") line.className = "bad";
    if (level === "warning") line.className = "warn";
    this.box.append(line);
    while (this.box.childElementCount > MOST_LINES) this.box.firstElementChild.remove();
    this.empty.hidden = true;
    if (follows) this.#toEnd();
    else this.#show(this.#unseen + 1);
  }

  #isAtEnd() {
    return this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < NEAR;
  }

  #toEnd() {
    this.box.scrollTop = this.box.scrollHeight;
    this.#seen();
  }

  #seen() {
    this.#show(0);
  }

  #show(unseen) {
    this.#unseen = unseen;
    this.jump.hidden = unseen === 0;
    this.count.textContent = unseen ? String(unseen) : "";
  }
}
