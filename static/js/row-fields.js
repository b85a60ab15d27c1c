// What the editor of a row is made of: elements, text fields that grow, JSON that is kept once it can be read.
export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

// A field that grows with its text; `path` is what a problem calls it.
export function area(name, value, changed, path) {
  const box = element("label", "field message-field");
  const input = Object.assign(document.createElement("textarea"), { value, rows: 1 });
  const grow = () => {
    input.style.height = "auto";
    input.style.height = `${input.scrollHeight + 2}px`;
  };
  if (path) box.dataset.path = path;
  input.addEventListener("input", () => { changed(input.value); grow(); });
  requestAnimationFrame(grow);
  box.append(element("span", "message-label", name), input);
  return box;
}

// JSON that is kept once it can be read; empty text is nothing at all.
export function jsonArea(name, value, changed, path) {
  const box = area(name, value === undefined || value === null ? "" : JSON.stringify(value, null, 2), () => {}, path);
  const input = box.querySelector("textarea");
  input.classList.add("mono");
  input.spellcheck = false;
  input.addEventListener("input", () => {
    try {
      changed(input.value.trim() ? JSON.parse(input.value) : undefined);
      input.setCustomValidity("");
    } catch {
      input.setCustomValidity("This is not valid JSON.");
    }
  });
  return box;
}
