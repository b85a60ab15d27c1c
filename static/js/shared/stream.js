// An event stream that comes back. The browser reconnects by itself unless it was answered with something else than a
// stream: by a proxy whose server restarts, after logging out, or by a server that no longer lets this person look.

const AGAIN = 3000;
const RELOADS_APART = 60000;

export class Stream {
  #address;
  #handlers;
  #told;
  #source = null;
  #waiting = null;
  #refusals = 0;

  /** `address()` is asked at each opening, `handlers` are by event, `told(connected)` hears when it is away and back. */
  constructor(address, handlers, told = () => {}) {
    this.#address = address;
    this.#handlers = handlers;
    this.#told = told;
  }

  get isOpen() {
    return this.#source !== null || this.#waiting !== null;
  }

  open() {
    if (this.isOpen) return;
    const source = new EventSource(this.#address());
    this.#source = source;
    for (const [name, handle] of Object.entries(this.#handlers)) {
      source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
    }
    source.addEventListener("open", () => { this.#refusals = 0; this.#told(true); });
    source.addEventListener("error", () => {
      this.#told(false);
      if (source.readyState === EventSource.CLOSED) this.#refused();
    });
  }

  close() {
    this.#source?.close();
    clearTimeout(this.#waiting);
    this.#source = this.#waiting = null;
    this.#told(true);
  }

  async #refused() {
    this.#source = null;
    this.#refusals += 1;
    this.#waiting = setTimeout(() => { this.#waiting = null; this.open(); }, AGAIN);
    if (this.#refusals > 1 && (await serverAnswers()) && this.#waiting !== null) reload();
  }
}

/** Whether the server itself has an answer for this page, if only that one has to log in; a proxy's 502 is none. */
async function serverAnswers() {
  try {
    return (await fetch(location.href, { method: "HEAD", cache: "no-store" })).status < 500;
  } catch {
    return false;
  }
}

/** The page as it is now shows why; not again and again, should it show the same. */
function reload() {
  const key = `reloaded:${location.pathname}`;
  if (Date.now() - Number(sessionStorage.getItem(key)) < RELOADS_APART) return;
  sessionStorage.setItem(key, String(Date.now()));
  location.reload();
}
