/* The picker of models: at most four, all on one base model, found by name. */

function boxesIn(element) {
  return [...element.querySelectorAll('input[name="target"]')];
}

/** Choosing on one base model clears the others; a full choice disables the rest and says why. */
function keepToRules(picker, changed) {
  const limit = Number(picker.dataset.limit);
  const own = changed?.closest("[data-base]");
  if (changed?.checked) {
    for (const group of picker.querySelectorAll("[data-base]")) {
      if (group !== own) boxesIn(group).forEach((box) => { box.checked = false; });
    }
  }
  const boxes = boxesIn(picker);
  const chosen = boxes.filter((box) => box.checked).length;
  for (const box of boxes) {
    const group = boxesIn(box.closest("[data-base]"));
    box.disabled = chosen >= limit && !box.checked && group.some((one) => one.checked);
  }
  const hint = picker.querySelector("[data-target-hint]");
  if (chosen >= limit) hint.textContent = `${limit} models are chosen; that is as many as fit side by side.`;
  else if (chosen > 1) hint.textContent = `${chosen} chosen. All answer the same question side by side.`;
  else hint.textContent = chosen ? "1 chosen. Add others to have them answer side by side." : "Choose one to four on the same base model.";
}

function search(picker, words) {
  const wanted = words.trim().toLowerCase();
  for (const row of picker.querySelectorAll("[data-name]")) {
    row.hidden = !row.dataset.name.includes(wanted) && !row.querySelector("input").checked;
  }
}

export function startPickers() {
  for (const picker of document.querySelectorAll("[data-targets]")) {
    picker.addEventListener("change", (event) => {
      if (event.target.name === "target") keepToRules(picker, event.target);
    });
    picker.querySelector("[data-target-search]")?.addEventListener("input", (event) => search(picker, event.target.value));
    keepToRules(picker, null);
  }
}
