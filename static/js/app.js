// What every page has: the CSRF token for htmx, toasts, the theme, menus, file names, copying, dialogs, fresh times.

import { csrfToken } from "./shared/http.js";
import { setTheme, currentTheme } from "./shared/theme.js";
import { refreshTimes } from "./shared/times.js";
import { expire, toast } from "./shared/toasts.js";

document.addEventListener("htmx:config:request", (event) => {
  event.detail.ctx.request.headers["X-CSRFToken"] = csrfToken();
});
document.addEventListener("htmx:before:response", (event) => {
  // A session that ended answers a poll with the page to log in: show that as a page, not inside a fragment.
  const { raw } = event.detail.ctx.response;
  if (raw.redirected && new URL(raw.url).pathname.startsWith("/accounts/login")) {
    event.preventDefault();
    location.reload();
  } else if (raw.status >= 500) {
    event.preventDefault(); // its page tells nothing that belongs into this one
    failed(event);
  }
});
document.addEventListener("htmx:after:swap", () => refreshTimes());
document.addEventListener("htmx:error", failed);

const CLICKS = {
  "[data-dismiss]": (item) => item.closest("[data-toast]").remove(),
  "[data-copy]": copy,
  "[data-dialog]": (item) => document.getElementById(item.dataset.dialog).showModal(),
  "[data-close]": (item) => item.closest("dialog").close(),
  "[data-theme-choice]": (item) => { setTheme(item.dataset.themeChoice); showTheme(); },
};

document.addEventListener("click", (event) => {
  for (const [selector, run] of Object.entries(CLICKS)) {
    const item = event.target.closest(selector);
    if (item) run(item);
  }
  if (event.target.matches("dialog.dialog")) event.target.close(); // its backdrop
  closeMenus(event.target);
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const menu = document.activeElement?.closest("details.menu[open]");
  menu?.removeAttribute("open");
  menu?.querySelector("summary").focus();
});

document.addEventListener("change", (event) => {
  if (event.target.matches('.drop > input[type="file"]')) nameFiles(event.target);
  if (event.target.matches("[data-theme-select]")) setTheme(event.target.value);
});

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.target.closest?.(".drop")?.classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}

/** A poll that fails says so by standing still; what a person asked for says it in words. */
function failed(event) {
  if (event.detail.ctx?.sourceEvent?.isTrusted) toast("The server did not answer. Try again.", { level: "error" });
}

function closeMenus(target) {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(target)) menu.removeAttribute("open");
  }
}

async function copy(item) {
  const source = document.getElementById(item.dataset.copy);
  try {
    await navigator.clipboard.writeText(source ? (source.value ?? source.textContent) : item.dataset.copy);
    toast("Copied", { level: "success" });
  } catch {
    toast("This browser does not let pages copy here. Select the text and copy it.", { level: "warning" });
  }
}

function nameFiles(input) {
  const place = input.parentElement.querySelector(".drop-name");
  if (place) place.textContent = Array.from(input.files, (file) => file.name).join(", ");
}

/** Where a row of tabs does not fit, the one that is open is to be seen. */
function showTab(tab) {
  const row = tab.parentElement;
  const beyond = tab.getBoundingClientRect().right - row.getBoundingClientRect().right;
  if (beyond > 0) row.scrollLeft += beyond;
}

function showTheme() {
  const theme = currentTheme();
  for (const item of document.querySelectorAll("[data-theme-choice]")) {
    if (item.type === "radio") item.checked = item.dataset.themeChoice === theme;
    else item.setAttribute("aria-pressed", String(item.dataset.themeChoice === theme));
  }
  for (const item of document.querySelectorAll("[data-theme-select]")) item.value = theme;
}

document.querySelectorAll("[data-toast]").forEach(expire);
document.querySelectorAll("nav.tabs [aria-current]").forEach(showTab);
showTheme();
refreshTimes();
setInterval(refreshTimes, 30000);
