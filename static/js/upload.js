// The upload form with what was chosen, a progress bar, pause and errors in place. Without it the form posts by itself.

import { csrfToken } from "./shared/http.js";
import { size, Speed } from "./shared/sizes.js";
import { duration } from "./shared/times.js";
import { fingerprint, PartedUpload, Refused } from "./shared/tus.js";
import "./upload-paste.js";

const form = document.querySelector("form[data-upload]");
const part = (name) => form.querySelector(`[data-upload-${name}]`);
const input = form.querySelector("input[type=file]");
const text = form.querySelector("textarea[name=text]");
const submit = form.querySelector("button[type=submit]");
const bar = part("progress").querySelector("progress");
const { uploadBegin: begin, uploadLimit, uploadPart } = form.dataset;
const limit = Number(uploadLimit);
const partBytes = Number(uploadPart);
const speed = new Speed();
let running = null; // {total, before, current, request, cancelled}

const files = () => Array.from(input.files);
const begun = (file) => form.querySelector(`[data-fingerprint="${CSS.escape(fingerprint(file))}"]`);

function showFiles() {
  const chosen = files();
  part("name").textContent = chosen.map((file) => `${file.name} (${size(file.size)})`).join(", ");
  part("together").hidden = chosen.length < 2;
  for (const item of form.querySelectorAll("[data-unfinished]")) {
    const matches = chosen.some((file) => begun(file) === item);
    item.querySelector("[data-goes-on]").hidden = !matches;
    item.querySelector("[data-choose]").hidden = matches;
  }
}

function showErrors(texts) {
  const lines = texts.map((one) => Object.assign(document.createElement("p"), { textContent: one }));
  part("error-texts").replaceChildren(...lines);
  part("errors").hidden = texts.length === 0;
  if (texts.length) part("errors").scrollIntoView({ block: "nearest" });
}

function setBusy(busy) {
  part("progress").hidden = part("cancel").hidden = !busy;
  part("back").hidden = busy;
  part("pause").hidden = !(busy && running?.current);
  submit.disabled = busy;
  form.setAttribute("aria-busy", String(busy));
}

function showProgress(sent) {
  const { total } = running;
  speed.note(sent);
  const percent = Math.floor((100 * sent) / Math.max(total, 1));
  const rate = speed.perSecond;
  const pace = rate > 0 && percent < 100 ? ` · ${size(rate)}/s · ${duration((total - sent) / rate)} left` : "";
  bar.value = percent;
  part("percent").textContent = `${percent} % of ${size(total)}${pace}`;
  say(percent < 100 ? "Uploading" : "Storing");
}

function say(words) {
  if (part("said").textContent !== words) part("said").textContent = words;
}

function refusal(status, said) {
  const known = { 403: "You are logged out, or may no longer upload here.", 413: "The file is too large for this server." };
  return known[status] ?? (said && said.length < 300 && !said.startsWith("<") ? said : `The server answered ${status}.`);
}

/** Send a file in parts; returns the id of its upload, null when cancelled. */
async function sendInParts(file, before) {
  const place = begun(file)?.dataset.unfinished ?? "";
  const told = ({ sent, waiting }) => {
    if (waiting) { speed.reset(); say("The connection is lost. Trying again…"); } else showProgress(before + sent);
  };
  running.current = new PartedUpload(file, { begin, partBytes, place, told });
  setBusy(true);
  const whole = await running.current.run();
  return whole ? running.current.place.split("/").at(-2) : null;
}

/** Send the form itself, with the files in it or with the ids of those that were sent in parts. */
function sendForm(uploads) {
  const data = new FormData(form);
  if (uploads.length) data.delete(input.name);
  for (const id of uploads) data.append("upload", id);
  return new Promise((answer) => {
    const request = new XMLHttpRequest();
    running.request = request;
    request.open("POST", form.action || location.href);
    request.responseType = "json";
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("X-CSRFToken", csrfToken());
    if (!uploads.length) request.upload.addEventListener("progress", (event) => showProgress(event.loaded));
    request.addEventListener("loadend", () => answer(request));
    request.send(data);
  });
}

async function send() {
  const chosen = files();
  const total = chosen.reduce((sum, file) => sum + file.size, 0) || new Blob([text?.value ?? ""]).size;
  running = { total, current: null, cancelled: false };
  speed.reset();
  showProgress(0);
  setBusy(true);
  const uploads = [];
  if (total > partBytes || chosen.some(begun)) {
    let before = 0;
    for (const file of chosen.filter((one) => one.size)) {
      uploads.push(await sendInParts(file, before));
      if (running.cancelled) return;
      before += file.size;
    }
    running.current = null;
    setBusy(true);
    say("Storing");
  }
  finish(await sendForm(uploads));
}

function finish(request) {
  if (running.cancelled) return;
  if (request.status === 201 && request.response) {
    setBusy(false);
    running = null;
    location.assign(request.response.location);
  } else if (request.status === 0) {
    stop("The connection broke off. Try again: what is large goes on where it stood.");
  } else {
    const toLogin = request.responseURL && new URL(request.responseURL).pathname.startsWith("/accounts/login");
    stop(...(request.response?.errors ?? [`${refusal(toLogin ? 403 : request.status)} Nothing was stored.`]));
  }
}

function stop(...texts) {
  running = null;
  setBusy(false);
  showErrors(texts);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (running) return;
  const large = files().find((file) => file.size > limit);
  showErrors(large ? [`${large.name} is larger than ${size(limit)}. Split it, or raise MAX_UPLOAD_MB.`] : []);
  if (large) return;
  try {
    await send();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    stop(refusal(error.status, error.message));
  }
});

part("cancel").addEventListener("click", () => {
  running.cancelled = true;
  running.current?.cancel();
  running.request?.abort();
  stop();
});

part("pause").addEventListener("click", () => {
  const paused = part("pause").getAttribute("aria-pressed") === "true";
  running.current[paused ? "resume" : "pause"]();
  part("pause").setAttribute("aria-pressed", String(!paused));
  part("pause").textContent = paused ? "Pause" : "Go on";
  speed.reset();
  if (!paused) part("percent").textContent = part("percent").textContent.split(" · ")[0]; // no pace, no time left
  say(paused ? "Uploading" : "Paused. You can close this page and go on within a day.");
});

for (const button of form.querySelectorAll("[data-discard]")) {
  button.addEventListener("click", async () => {
    const item = button.closest("[data-unfinished]");
    const headers = { "Tus-Resumable": "1.0.0", "X-CSRFToken": csrfToken() };
    const answer = await fetch(item.dataset.unfinished, { method: "DELETE", headers });
    if (answer.ok || answer.status === 404) item.remove();
  });
}

input.addEventListener("change", showFiles);
addEventListener("beforeunload", (event) => { if (running) event.preventDefault(); });
showFiles();
