// The editor of a row: its JSON as a chat. What is sent is always the JSON of the text field, so that it works without.
import { area, element, jsonArea, parsed } from "./row-fields.js";
import { messageCard } from "./row-message.js";
import { toast } from "./shared/toasts.js";

const form = document.querySelector("[data-row-edit]");
if (form) start(form);

function start(form) {
  const chat = form.querySelector("[data-row-chat]");
  const field = form.querySelector("[data-row-json]");
  const text = field.querySelector("textarea");
  const mode = form.querySelector("[data-row-mode]");
  const LISTS = { chat: ["messages"], preference: ["prompt", "chosen", "rejected"], labelled: ["prompt", "completion"] };
  const NAMES = { messages: "", prompt: "Prompt", chosen: "Chosen answer", rejected: "Rejected answer", completion: "Answer" };
  const lists = LISTS[form.dataset.kind] || [];
  let row = null;
  let dirty = false;

  function read() {
    try {
      const found = parsed(text.value);
      const whole = found && typeof found === "object" && !Array.isArray(found);
      const messages = lists.flatMap((name) => (Array.isArray(found?.[name]) ? found[name] : [null]));
      return whole && messages.every((one) => one && typeof one === "object") ? found : null;
    } catch {
      return null;
    }
  }

  function write() {
    text.value = JSON.stringify(row, null, 2);
    dirty = true;
  }

  function show(asChat) {
    row = asChat ? read() : null;
    chat.hidden = !row;
    field.hidden = Boolean(row);
    mode.textContent = row ? "As JSON" : "As chat";
    if (row) draw();
  }

  function draw(focus) {
    chat.replaceChildren(...lists.map(section), ...others());
    const cards = chat.querySelectorAll(`[data-list="${focus?.list}"] .message-card`);
    if (focus) cards[focus.at]?.querySelector("textarea")?.focus();
    mark();
  }

  function section(list) {
    const part = element("section", "stack-s row-list");
    part.dataset.list = list;
    if (NAMES[list]) part.append(element("h2", "", NAMES[list]));
    const change = (focus) => {
      write();
      if (focus !== undefined) draw({ list, at: focus });
    };
    row[list].forEach((message, at) => part.append(messageCard({ messages: row[list], at, list, change })));
    const add = element("button", "btn btn-small", "Add a message");
    add.type = "button";
    add.addEventListener("click", () => {
      const last = row[list].at(-1)?.role;
      row[list].push({ role: last === "user" || last === "tool" || !["messages", "prompt"].includes(list) ? "assistant" : "user", content: "" });
      change(row[list].length - 1);
    });
    part.append(add);
    return part;
  }

  function others() {
    const found = [];
    if (form.dataset.kind === "text") found.push(area("Text", row.text ?? "", (value) => { row.text = value; write(); }, "text"));
    if (form.dataset.kind === "labelled") found.push(label());
    if (lists.length) found.push(tools());
    return found;
  }

  function label() {
    const box = element("label", "check");
    const input = Object.assign(document.createElement("input"), { type: "checkbox", checked: row.label === true });
    input.addEventListener("change", () => { row.label = input.checked; write(); });
    box.append(input, element("span", "", "This is a good answer"));
    return box;
  }

  function tools() {
    const fold = element("details", "fold");
    fold.append(element("summary", "", row.tools?.length ? `Tools (${row.tools.length})` : "Tools"));
    fold.append(jsonArea("Definitions, as a JSON list", row.tools, (value) => {
      if (value === undefined) delete row.tools;
      else row.tools = value;
      write();
    }, "tools"));
    return fold;
  }

  // Shows the problem beside the field it is about.
  function mark() {
    const path = form.querySelector("[data-problem]")?.dataset.problem;
    if (!path) return;
    const cards = [...chat.querySelectorAll("[data-path]")].filter((one) => path.startsWith(one.dataset.path));
    cards.at(-1)?.classList.add("has-problem");
  }

  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  form.addEventListener("submit", (event) => {
    const broken = chat.hidden ? null : chat.querySelector("textarea:invalid");
    if (broken) {
      event.preventDefault();
      broken.closest("details")?.setAttribute("open", "");
      broken.reportValidity();
      return;
    }
    dirty = false;
  });
  addEventListener("beforeunload", (event) => { if (dirty) event.preventDefault(); });
  mode.addEventListener("click", () => {
    const asked = chat.hidden;
    show(asked);
    if (asked && chat.hidden) toast("This JSON cannot be shown as a chat. It can be kept as it is, if it is a row.", { level: "warning" });
  });
  for (const one of form.querySelectorAll("[data-row-mode], [data-row-keys]")) one.hidden = false;
  show(true);
}
