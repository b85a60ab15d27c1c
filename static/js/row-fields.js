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

// The value of JSON text, each number as it is written: 1.0 and 9007199254740993 stay what they are.
// Throws where that cannot be held, as with JSON.parse: names that are numbers would change their order.
export function parsed(text) {
  return JSON.parse(text, function (name, value, { source }) {
    if (/^\d+$/.test(name) && !Array.isArray(this)) throw new RangeError(name);
    return typeof value === "number" && String(value) !== source ? JSON.rawJSON(source) : value;
  });
}

// JSON that is kept once it can be read; empty text is nothing at all.
export function jsonArea(name, value, changed, path) {
  const box = area(name, value === undefined || value === null ? "" : JSON.stringify(value, null, 2), () => {}, path);
  const input = box.querySelector("textarea");
  input.classList.add("mono");
  input.spellcheck = false;
  input.addEventListener("input", () => {
    try {
      changed(input.value.trim() ? parsed(input.value) : undefined);
      input.setCustomValidity("");
    } catch (error) {
      const named = error instanceof RangeError;
      input.setCustomValidity(named ? `“${error.message}” as a name can only be written in the JSON of the whole row.` : "This is not valid JSON.");
    }
  });
  return box;
}
