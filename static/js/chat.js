/* The chat pages: asking, stopping, asking again, copying, dialogs, and the draft that survives a reload. */

import { startPickers } from "./chat-picker.js";
import { followTurn } from "./chat-stream.js";
import { Painter, render, sources } from "./markdown.js";
import { toast } from "./shared/toasts.js";

const page = document.querySelector("[data-chat]");
const turns = document.querySelector("[data-turns]");
const composer = document.querySelector("[data-ask], [data-new-chat]");
const field = composer?.querySelector("textarea[name=message]");
const draftKey = composer ? `draft:${composer.dataset.draft}` : "";

// Text that arrives keeps the end in view, unless the reader has scrolled away from it.
let atEnd = true;
const isAtEnd = () => window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 96;
const toEnd = () => atEnd && window.scrollTo({ top: document.documentElement.scrollHeight });
const painter = new Painter(toEnd);

function running() {
  return turns?.querySelector("[data-stream]") ?? null;
}

function showRunning() {
  const turn = running();
  turns?.setAttribute("aria-busy", String(Boolean(turn)));
  composer?.querySelector("[data-send]")?.toggleAttribute("hidden", Boolean(turn));
  const stop = composer?.querySelector("[data-stop]");
  if (stop) {
    stop.hidden = !turn;
    stop.disabled = false;
  }
}

function follow(turn) {
  followTurn(turn, painter, showRunning);
  showRunning();
}

function showError(html, text = "") {
  const place = composer.querySelector("[data-errors]");
  place.innerHTML = html; // from our own server's template
  if (text) {
    const note = document.createElement("p");
    note.className = "notice notice-bad";
    note.textContent = text;
    place.replaceChildren(note);
  }
}

/** Post a form; the fragment that comes back, or null after showing what went wrong. */
async function post(form, submitter) {
  const body = new FormData(form, submitter);
  try {
    const answer = await fetch(form.action, { method: "POST", body, headers: { "HX-Request": "true" } });
    if (answer.redirected) location.reload(); // logged out meanwhile
    if (answer.status >= 500) throw new Error(answer.statusText);
    const html = await answer.text();
    showError(answer.ok ? "" : html);
    return answer.ok ? html : null;
  } catch {
    showError("", "The server did not answer. What you wrote is kept; try again.");
    return null;
  }
}

function asTurn(html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  return holder.content.querySelector("[data-turn]");
}

async function ask(event) {
  event.preventDefault();
  if (running() || composer.ariaBusy === "true" || !field.value.trim()) return;
  composer.ariaBusy = "true";
  const html = await post(composer);
  composer.ariaBusy = "false";
  if (html === null) return;
  field.value = "";
  sessionStorage.removeItem(draftKey);
  atEnd = true;
  turns.append(asTurn(html));
  follow(turns.lastElementChild);
  toEnd();
  field.focus();
}

async function askAgain(event) {
  event.preventDefault();
  const old = event.target.closest("[data-turn]");
  const html = await post(event.target, event.submitter);
  if (html === null) return;
  const turn = asTurn(html);
  old.replaceWith(turn);
  turn.querySelectorAll("[data-answer]").forEach(finishText);
  follow(turn);
}

async function stop() {
  const turn = running();
  if (!turn) return;
  composer.querySelector("[data-stop]").disabled = true;
  if ((await post(turn.querySelector("[data-stop-form]"))) === null) showRunning();
}

async function copy(button) {
  const place = button.closest("[data-answer]").querySelector("[data-text]");
  try {
    await navigator.clipboard.writeText(sources.get(place) ?? place.textContent);
    toast("Copied", { level: "success" });
  } catch {
    getSelection().selectAllChildren(place); // without https a page may not copy
    toast("This browser does not let pages copy here. The answer is selected; copy it.", { level: "warning" });
  }
}

function finishText(answer) {
  const place = answer.querySelector("[data-text]");
  if (answer.getAttribute("aria-busy") === "false" && place.textContent) render(place, place.textContent);
}

function onKey(event) {
  if (event.key === "Escape" && !document.querySelector("dialog[open]") && running()) stop();
  if (event.target !== field || event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (composer.matches("[data-new-chat]")) {
    if (field.value.trim()) composer.requestSubmit();
  } else {
    ask(event);
  }
}

function onClick(event) {
  const button = event.target.closest("button");
  if (!button) return;
  if ("copyAnswer" in button.dataset) copy(button);
  if ("stop" in button.dataset) stop();
  if ("toggleList" in button.dataset) {
    button.setAttribute("aria-expanded", String(page.classList.toggle("list-open")));
  }
}

function startComposer() {
  field.value ||= sessionStorage.getItem(draftKey) ?? "";
  field.addEventListener("input", () => sessionStorage.setItem(draftKey, field.value));
  if (composer.matches("[data-ask]")) composer.addEventListener("submit", ask);
  else composer.addEventListener("submit", () => sessionStorage.removeItem(draftKey));
}

document.addEventListener("keydown", onKey);
document.addEventListener("click", onClick);
document.addEventListener("submit", (event) => {
  if (event.target.matches("[data-again]")) askAgain(event);
  if (event.target.matches("[data-stop-form]")) {
    event.preventDefault();
    stop();
  }
});
window.addEventListener("scroll", () => { atEnd = isAtEnd(); }, { passive: true });
document.querySelector("dialog[data-open]")?.showModal();
startPickers();
if (composer) startComposer();
turns?.querySelectorAll("[data-answer]").forEach(finishText);
turns?.querySelectorAll("[data-stream]").forEach(follow);
if (turns) toEnd();
