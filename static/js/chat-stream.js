/* One turn while it is answered: reads its event stream and keeps all its columns up to date. */

import { Stream } from "./shared/stream.js";

const PAUSE_WORDS = {
  queued: (seconds) => (seconds < 10 ? "Waiting for the chat worker" : "Still waiting for the chat worker; is it running?"),
  loading: () => "Loading the model",
  reading: () => "Reading the question",
};

/** An answer's column. Text only grows, so a piece that is known already changes nothing. */
class Answer {
  constructor(element, painter) {
    this.element = element;
    this.painter = painter;
    this.text = element.querySelector("[data-text]").textContent;
    this.pause = element.dataset.status === "queued" ? "queued" : "reading";
    this.since = performance.now();
  }

  get isOpen() {
    return this.element.getAttribute("aria-busy") === "true";
  }

  add(at, piece) {
    if (at > this.text.length || at + piece.length <= this.text.length) return;
    this.text = this.text.slice(0, at) + piece;
    this.#part("state").textContent = "";
    this.#part("copy-answer").hidden = false;
    this.painter.paint(this.#part("text"), this.text);
  }

  wait(pause, seconds = 0) {
    this.pause = pause;
    this.since = performance.now() - seconds * 1000;
    this.tick();
  }

  tick() {
    if (!this.isOpen || this.text) return;
    const seconds = Math.floor((performance.now() - this.since) / 1000);
    const words = PAUSE_WORDS[this.pause](seconds);
    this.#part("state").textContent = seconds ? `${words}, ${seconds} s` : words;
  }

  end({ status, text, error, numbers, cut }) {
    this.text = text;
    this.element.dataset.status = status;
    this.element.setAttribute("aria-busy", "false");
    this.painter.paint(this.#part("text"), text);
    this.#part("numbers").textContent = numbers;
    this.#part("copy-answer").hidden = !text;
    const words = { stopped: "Stopped", finished: cut ? "Cut at the longest answer allowed in the settings" : "" };
    this.#part("state").textContent = words[status] ?? "";
    this.#part("error").textContent = error;
    this.#part("error").hidden = !error;
  }

  #part(name) {
    return this.element.querySelector(`[data-${name}]`);
  }
}

/** Follow a turn until all its answers have ended, then call `over`. */
export function followTurn(turn, painter, over) {
  const answers = new Map();
  for (const element of turn.querySelectorAll("[data-answer]")) {
    answers.set(element.dataset.answer, new Answer(element, painter));
  }
  const address = turn.dataset.stream;
  const stream = new Stream(() => address, {
    // Opened anew it begins at the first word, and what is known changes nothing.
    delta: ({ completion, at, text }) => answers.get(completion)?.add(at, text),
    loading: (data) => waiting("loading", data),
    reading: (data) => waiting("reading", data),
    end: (data) => answers.get(data.completion)?.end(data),
    done: close,
    gone: () => location.reload(),
  });
  const clock = setInterval(() => answers.forEach((answer) => answer.tick()), 1000);

  function close() {
    stream.close();
    clearInterval(clock);
    delete turn.dataset.stream;
    turn.querySelector("[data-stop-form]").hidden = true;
    turn.querySelector("[data-again]").hidden = false;
    turn.querySelector("[data-retry]").hidden = !turn.querySelector('[data-status="failed"]');
    over();
  }

  function waiting(pause, { completions, seconds }) {
    completions.forEach((key) => answers.get(key)?.wait(pause, seconds));
  }

  stream.open();
}
