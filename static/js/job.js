// The page of one job: follows its events, moves tiles, bar, chart, log and title; asks the server for the rest.

import { Chart, Curves } from "./chart.js";
import { Log } from "./log.js";
import "./shared/confirm.js";
import { Stream } from "./shared/stream.js";
import { duration, refreshTimes } from "./shared/times.js";

const page = document.getElementById("job");
const byId = (id) => document.getElementById(id);
const REGIONS = ["job-head", "job-top", "job-tiles", "job-side", "job-evaluations", "job-log-link"];
const KINDS = ["phase", "progress", "evaluated", "sample", "checkpoint", "log", "status", "wish"];
const CONNECTION_PATIENCE = 3000;
const QUIET = 10000; // without news, after which only the server knows what is behind it: a line, a silent worker

const curves = new Curves(JSON.parse(byId("chart-data").textContent));
const chart = new Chart(curves, {
  main: byId("chart"), second: byId("chart-second"), smoothing: byId("chart-smoothing"),
  more: byId("chart-more"), empty: byId("chart-empty"), controls: byId("chart-controls"),
});
const log = new Log({ box: byId("log"), jump: byId("log-jump"), count: byId("log-new"), empty: byId("log-empty") });

let seq = Number(page.dataset.seq);
let ended = "ended" in page.dataset;
let refreshing = null;
let complaint = null;
let heard = performance.now();

const HANDLERS = {
  progress: (event) => { curves.addProgress(event); chart.update(); showProgress(event); },
  evaluated: (event) => { curves.addEvaluation(event); chart.update(); refreshSoon(); },
  log: (event) => log.add(event),
  sample: () => refreshSoon(),
  checkpoint: () => refreshSoon(),
  phase: () => refreshSoon(),
  status: () => refreshSoon(),
  wish: () => refreshSoon(),
};

const stream = new Stream(
  () => `${page.dataset.events}?after=${seq}`,
  {
    ...Object.fromEntries(KINDS.map((kind) => [kind, (event) => receive(kind, event)])),
    end: () => { ended = true; stream.close(); refresh(); },
  },
  connected,
);

function open() {
  if (!ended && !document.hidden) stream.open();
}

function receive(kind, event) {
  if (event.seq <= seq) return;
  seq = event.seq;
  heard = performance.now();
  HANDLERS[kind](event);
}

/** Say that the stream is away, unless it is back before anybody would wonder: it ends by itself every few minutes. */
function connected(yes) {
  const show = (away) => byId("job-connection")?.toggleAttribute("hidden", !away);
  if (!yes) {
    complaint ??= setTimeout(() => show(true), CONNECTION_PATIENCE);
    return;
  }
  clearTimeout(complaint);
  complaint = null;
  show(false);
}

function tell(name, text) {
  const place = document.querySelector(`[data-tile="${name}"]`);
  if (place) place.textContent = text;
}

function showProgress(event) {
  byId("job-tiles").hidden = false;
  tell("loss", event.loss.toFixed(4));
  tell("speed", figure(event.tokens_per_second));
  tell("tokens", figure(event.trained_tokens));
  tell("left", duration(event.seconds_left));
  tell("step", figure(event.step));
  tell("steps", figure(event.of));
  tell("memory", bytes(event.memory_bytes));
  const percent = Math.floor((100 * event.step) / event.of);
  const bar = byId("job-bar");
  if (bar) bar.value = percent;
  const sentence = byId("job-sentence");
  sentence.textContent = sentence.textContent.replace(/^(Training[^:.]*)(: step \d+ of \d+)?\..*$/, `$1: step ${event.step} of ${event.of}.`);
  document.title = `${percent}% · ${page.dataset.name} · Lowrank`;
}

function figure(value) {
  return value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 });
}

function bytes(value) {
  const power = Math.min(4, Math.floor(Math.log10(Math.max(1, value)) / 3));
  const size = value / 1000 ** power;
  return `${size.toFixed(power && size < 9.95 ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

function refreshSoon() {
  refreshing ??= setTimeout(refresh, 400);
}

/** Take what the server says now for every part that it words itself; open folds stay open. */
async function refresh() {
  clearTimeout(refreshing);
  refreshing = null;
  let fresh;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (!answer.ok) return;
    fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return; // the next event asks again
  }
  for (const id of REGIONS) replace(byId(id), fresh.getElementById(id));
  byId("chart-empty").textContent = fresh.getElementById("chart-empty")?.textContent;
  document.title = fresh.title;
  refreshTimes();
}

function replace(old, fresh) {
  if (!old || !fresh || old.contains(document.activeElement)) return;
  if (old.textContent === fresh.textContent && !old.querySelector("progress")) return; // read aloud once
  old.querySelectorAll("details").forEach((fold, index) => {
    const same = fresh.querySelectorAll("details")[index];
    if (same) same.open = fold.open;
  });
  old.replaceWith(document.adoptNode(fresh));
}

document.addEventListener("visibilitychange", () => (document.hidden ? stream.close() : open()));
setInterval(() => { if (!ended && !document.hidden && performance.now() - heard > QUIET) refresh(); }, QUIET / 2);
addEventListener("pagehide", () => stream.close());
addEventListener("pageshow", open);
open();
