// The row table: rows open beside it, marks change in place, and everything has a key. Without it links and forms do.

import { keys, moved } from "./row-keys.js";
import { csrfToken } from "./shared/http.js";
import { toast } from "./shared/toasts.js";

const FRAGMENT = { "HX-Request": "true" };
const area = document.querySelector("[data-rows]");
const said = document.querySelector("[data-rows-said]");
let asked = 0; // the newest question; answers to older ones come too late

const line = (number) => area?.querySelector(`tr[data-number="${number}"]`);
const panel = () => area?.querySelector("[data-panel]");
const chosen = () => [...area.querySelectorAll("[data-choose]:checked")];

/** The fragment at an address, null when it did not come or something newer was asked for. */
async function fragment(address) {
  const mine = ++asked;
  try {
    const answer = await fetch(address, { headers: FRAGMENT });
    if (answer.redirected) location.reload(); // to the page to log in
    if (!answer.ok) throw new Error(String(answer.status));
    const text = await answer.text();
    return mine === asked ? text : null;
  } catch {
    toast("The server did not answer. Try again.", { level: "error" });
    return null;
  }
}

/** Show another part of the table; `at` is the row that is current then. */
async function turn(address, { push = true, at = "first" } = {}) {
  area.setAttribute("aria-busy", "true");
  const text = await fragment(address);
  area.removeAttribute("aria-busy");
  if (text === null) return;
  const open = new Set(chosen().map((box) => box.value));
  area.innerHTML = text;
  for (const box of area.querySelectorAll("[data-choose]")) box.checked = open.has(box.value);
  countChosen();
  if (push) history.pushState(null, "", address);
  said.textContent = area.querySelector("[data-count]")?.textContent ?? "";
  if (at === "first") { area.querySelector("[data-open]")?.focus(); area.scrollIntoView({ block: "nearest" }); }
  else if (at) line(at)?.querySelector("[data-open]").focus();
}

/** Open a row beside the table; its address is the page's with row=number. */
async function openRow(address, number) {
  const text = await fragment(`${address}${location.search}`);
  if (text === null) return;
  const here = new URL(location.href);
  here.searchParams.set("row", number);
  history.replaceState(null, "", here);
  panel().innerHTML = text;
  panel().parentElement.classList.add("has-row");
  for (const row of area.querySelectorAll("tr[aria-current]")) row.removeAttribute("aria-current");
  line(number)?.setAttribute("aria-current", "true");
  said.textContent = `Row ${number} is open`;
}

function closeRow() {
  if (!panel()?.firstElementChild) return false;
  const here = new URL(location.href);
  here.searchParams.delete("row");
  history.replaceState(null, "", here);
  panel().replaceChildren();
  panel().parentElement.classList.remove("has-row");
  const row = area.querySelector("tr[aria-current]");
  row?.removeAttribute("aria-current");
  row?.querySelector("[data-open]").focus();
  return true;
}

function countChosen() {
  const count = chosen().length;
  const place = area.querySelector("[data-chosen]");
  if (place) place.textContent = count === 1 ? "1 row chosen" : `${count} rows chosen`;
}

/** Send a form of marks and show the rows as they are then. */
async function mark(form, submitter) {
  const body = new FormData(form, submitter);
  const answer = await fetch(form.action, { method: "POST", body, headers: { ...FRAGMENT, "X-CSRFToken": csrfToken() } });
  if (!answer.ok) {
    toast(answer.status === 422 ? "Choose some rows first." : "The marks were not changed. Try again.", { level: "error" });
    return;
  }
  const at = document.activeElement?.closest("tr[data-number]")?.dataset.number ?? "";
  await turn(location.href, { push: false, at });
}

const CLICKS = [
  ["a[data-turn]", (link) => turn(link.href)],
  ["a[data-open]", (link) => openRow(link.dataset.open, link.closest("tr").dataset.number)],
  ["a[data-beside]", (link) => openRow(link.dataset.beside, link.dataset.beside.match(/(\d+)\/$/)[1])],
  ["a[data-close-row]", closeRow],
];

area?.addEventListener("click", (event) => {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return; // into a tab of its own
  for (const [selector, run] of CLICKS) {
    const item = event.target.closest(selector);
    if (!item) continue;
    event.preventDefault();
    run(item);
    return;
  }
});

area?.addEventListener("change", (event) => {
  if (event.target.matches("[data-choose-all]")) {
    for (const box of area.querySelectorAll("[data-choose]")) box.checked = event.target.checked;
  }
  countChosen();
});

area?.addEventListener("reset", () => setTimeout(countChosen));

area?.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.submitter?.hasAttribute("formaction")) return; // to a page of its own
  if (form.matches("[data-marks]")) {
    event.preventDefault();
    mark(form, event.submitter);
  } else if (form.matches("[data-rows-form]")) {
    event.preventDefault();
    const said = [...new FormData(form)].filter(([, value]) => value !== "");
    turn(`${form.action}?${new URLSearchParams(said)}`, { at: form.contains(document.activeElement) ? "first" : "" });
  }
});

addEventListener("popstate", () => area && turn(location.href, { push: false, at: "" }));

keys(area, {
  move: (step) => {
    const row = moved(area, step);
    if (row && panel().firstElementChild) openRow(row.querySelector("[data-open]").dataset.open, row.dataset.number);
  },
  close: closeRow,
});

// Until the survey is over the page asks for it now and then; then the search field is there.
if (area?.querySelector("[data-rows-waiting]")) {
  const waiting = setInterval(async () => {
    if (document.hidden || area.contains(document.activeElement)) return;
    await turn(location.href, { push: false, at: "" });
    if (!area.querySelector("[data-rows-waiting]")) clearInterval(waiting);
  }, 3000);
}
