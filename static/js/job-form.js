// The form of a new job: presets fill in values; leaving them again shows that none is chosen.
// The method follows the chosen dataset.

const form = document.getElementById("job-form");
const presets = form ? JSON.parse(document.getElementById("presets").textContent) : {};
const methods = form ? JSON.parse(document.getElementById("methods").textContent) : {};
const buttons = [...document.querySelectorAll("[data-preset]")];

function valueOf(field) {
  return field.type === "checkbox" ? field.checked : field.value;
}

function same(field, wanted) {
  const value = valueOf(field);
  return typeof wanted === "number" ? Number(value) === wanted : value === wanted;
}

function fill(values) {
  for (const [name, value] of Object.entries(values)) {
    const field = form.elements[name];
    if (!field || same(field, value)) continue;
    if (field.type === "checkbox") field.checked = value;
    else field.value = value;
  }
  form.elements.name.dispatchEvent(new Event("input", { bubbles: true })); // the estimate follows
}

function mark() {
  for (const button of buttons) {
    const values = Object.entries(presets[button.dataset.preset]);
    const chosen = values.every(([name, value]) => !form.elements[name] || same(form.elements[name], value));
    button.setAttribute("aria-current", String(chosen));
  }
}

for (const button of buttons) {
  button.setAttribute("role", "button");
  button.addEventListener("click", (event) => {
    event.preventDefault();
    fill(presets[button.dataset.preset]);
    mark();
  });
}

function followDataset() {
  const method = methods[form.elements.dataset_version.value]; // "" while its rows are still being checked
  if (method) form.elements.data_method.value = method;
}

if (form) {
  form.elements.dataset_version.addEventListener("change", followDataset);
  form.addEventListener("input", mark);
  form.addEventListener("submit", () => form.querySelector(".job-submit").setAttribute("aria-busy", "true"));
  mark();
}
