// Team and settings pages: questions before what cannot be undone, and roles that change as they are chosen.

import "./shared/confirm.js";

document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-send-on-change]");
  if (form) form.requestSubmit();
});

for (const form of document.querySelectorAll("form[data-send-on-change]")) {
  form.querySelector("button[type=submit]").hidden = true; // for browsers without scripts
}

document.addEventListener("focusin", (event) => {
  if (event.target.matches(".secret input")) event.target.select();
});
