// Short messages at the bottom left. The live region is in the page from the start, so that readers announce additions.

const STAY = 6000;

/** Show a message; `level` is success, info, warning or error. `action` adds a button: {label, run}. */
export function toast(text, { level = "info", action = null } = {}) {
  const item = document.createElement("div");
  item.className = `toast toast-${level}`;
  const words = document.createElement("span");
  words.textContent = text;
  item.append(words);
  if (action) item.append(button(action.label, "btn btn-small", () => { item.remove(); action.run(); }));
  item.append(button("×", "icon-btn", () => item.remove(), "Dismiss"));
  document.getElementById("toasts").append(item);
  expire(item);
}

function button(text, classes, run, label = text) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = classes;
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", run);
  return made;
}

/** Errors stay until dismissed; the rest goes, unless someone is reading it with the pointer or the keyboard on it. */
export function expire(item) {
  if (item.classList.contains("toast-error")) return;
  const leave = () => (item.matches(":hover, :focus-within") ? setTimeout(leave, 1500) : item.remove());
  setTimeout(leave, STAY);
}
