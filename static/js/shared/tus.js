// Sends a file in parts by tus 1.0 (https://tus.io/protocols/resumable-upload): what breaks off goes on where it stood.

import { csrfToken } from "./http.js";

const WAITS = [500, 1000, 2000, 4000, 8000];
const AGAIN = new Set([0, 409, 423, 460, 500, 502, 503, 504]); // answers after which asking anew can help

/** The server said no; `status` tells why, `text` is what it said. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** By which the same file is known again after a reload. */
export function fingerprint(file) {
  return `${file.size}:${file.lastModified}:${encodeURIComponent(file.name)}`.slice(0, 100);
}

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}

/** One request; resolves to its XMLHttpRequest, with status 0 when the connection broke or it was aborted. */
function ask(method, url, { headers = {}, body = null, progress = null, started = null } = {}) {
  return new Promise((answer) => {
    const request = new XMLHttpRequest();
    request.open(method, url);
    const all = { "Tus-Resumable": "1.0.0", "X-CSRFToken": csrfToken(), ...headers };
    for (const [name, value] of Object.entries(all)) request.setRequestHeader(name, value);
    if (progress) request.upload.addEventListener("progress", (event) => progress(event.loaded));
    request.addEventListener("loadend", () => answer(request));
    started?.(request);
    request.send(body);
  });
}

export class PartedUpload {
  #begin;
  #partBytes;
  #told;
  #offset = null; // null: to be asked
  #request = null;
  #paused = null;
  #goOn = null;
  #cancelled = false;

  /** `begin` is the address for new uploads, `place` that of one begun before; `told({sent, waiting})` hears of it. */
  constructor(file, { begin, partBytes, place = "", told = () => {} }) {
    this.file = file;
    this.place = place;
    this.#begin = begin;
    this.#partBytes = partBytes;
    this.#told = told;
  }

  /** Resolves when all of the file is at the server; false when it was cancelled. Throws Refused. */
  async run() {
    let failures = 0;
    while (!this.#cancelled) {
      await this.#paused;
      if (this.#cancelled) break;
      const request = await this.#step();
      if (request === null) return true;
      // A session that ended is answered with the page to log in, which is no answer to this.
      if (request.responseURL.includes("/accounts/login")) throw new Refused(403, "");
      if (request.status >= 200 && request.status < 300) {
        failures = 0;
      } else if (!this.#paused && !this.#cancelled) {
        await this.#recover(request, failures);
        failures += 1;
      } else {
        this.#offset = null;
      }
    }
    return false;
  }

  pause() {
    this.#paused ??= new Promise((goOn) => { this.#goOn = goOn; });
    this.#request?.abort();
  }

  resume() {
    this.#paused = null;
    this.#goOn?.();
  }

  /** Stop, and have the server forget what it has. */
  async cancel() {
    this.#cancelled = true;
    this.pause();
    this.resume();
    if (this.place) await ask("DELETE", this.place);
  }

  /** The next request that is needed, answered; null when there is nothing left to do. */
  async #step() {
    const started = (request) => { this.#request = request; };
    if (!this.place) {
      const pairs = { filename: this.file.name, fingerprint: fingerprint(this.file) };
      const metadata = Object.entries(pairs).map(([name, value]) => `${name} ${base64(value)}`).join(",");
      const headers = { "Upload-Length": this.file.size, "Upload-Metadata": metadata };
      const request = await ask("POST", this.#begin, { headers, started });
      if (request.status === 201) [this.place, this.#offset] = [request.getResponseHeader("Location"), 0];
      return request;
    }
    if (this.#offset === null) {
      const request = await ask("HEAD", this.place, { started });
      if (request.status === 200) this.#stand(request);
      return request;
    }
    if (this.#offset >= this.file.size) return null;
    const from = this.#offset;
    const headers = { "Upload-Offset": from, "Content-Type": "application/offset+octet-stream" };
    const body = this.file.slice(from, from + this.#partBytes);
    const progress = (loaded) => this.#told({ sent: from + loaded, waiting: false });
    const request = await ask("PATCH", this.place, { headers, body, progress, started });
    if (request.status === 204) this.#stand(request);
    return request;
  }

  #stand(request) {
    this.#offset = Number(request.getResponseHeader("Upload-Offset"));
    this.#told({ sent: this.#offset, waiting: false });
  }

  /** After an answer that is none: wait and ask where it stands, or begin anew when the server has forgotten it. */
  async #recover(request, failures) {
    const gone = request.status === 404 || request.status === 410;
    if (gone && this.place && failures < WAITS.length) {
      this.place = "";
      this.#offset = null;
      return;
    }
    if (!AGAIN.has(request.status)) throw new Refused(request.status, request.responseText.trim());
    this.#offset = null;
    this.#told({ waiting: true });
    await new Promise((again) => {
      const timer = setTimeout(again, WAITS[Math.min(failures, WAITS.length - 1)]);
      addEventListener("online", () => { clearTimeout(timer); again(); }, { once: true });
    });
  }
}
