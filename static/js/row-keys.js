// The keys of the row table. None of them does anything while somebody types.

const TYPING = 'input:not([type="checkbox"], [type="radio"]), textarea, select, [contenteditable]';

const current = (area) => document.activeElement?.closest("tr[data-number]") ?? area.querySelector("tr[aria-current]");

/** Make the next or previous row the current one; the first one when there is none. Returns it. */
export function moved(area, step) {
  const rows = [...area.querySelectorAll("tr[data-number]")];
  const place = rows.indexOf(current(area));
  const row = rows[place < 0 ? 0 : Math.min(Math.max(place + step, 0), rows.length - 1)];
  row?.querySelector("[data-open]").focus();
  return row;
}

function toggleCells(row) {
  const cells = [...row.querySelectorAll("details.cell")];
  const open = cells.some((cell) => !cell.open);
  for (const cell of cells) cell.open = open;
}

/** Listen to keys; `actions` has move(step) and close(). */
export function keys(area, { move, close }) {
  const press = (selector, inside = area) => inside?.querySelector(selector)?.click();
  const onRow = (run) => { const row = current(area); if (row) run(row); };
  const rate = (event) => press(`.row-rating [value="${event.key}"]`);
  const ACTIONS = {
    j: () => move(1),
    k: () => move(-1),
    o: () => onRow((row) => press("[data-open]", row)),
    x: () => onRow((row) => press("[data-choose]", row)),
    s: () => onRow((row) => press("[data-star]", row)),
    e: () => onRow(toggleCells),
    n: () => press("a[rel=next]"),
    p: () => press("a[rel=prev]"),
    "/": () => area.querySelector("[data-search]")?.focus(),
    "?": () => document.getElementById("row-keys")?.showModal(),
    Escape: () => close(),
    ...Object.fromEntries([..."012345"].map((digit) => [digit, rate])),
  };
  document.addEventListener("keydown", (event) => {
    if (!area || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.querySelector("dialog[open], details.menu[open]")) return;
    if (event.target.matches(TYPING)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const action = ACTIONS[event.key];
    if (!action) return;
    if (event.key !== "Escape") event.preventDefault();
    action(event);
  });
}
