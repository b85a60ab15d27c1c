// One message of a row in its editor: role, text, whether it is learned, tool calls; moved by buttons and keys.
import { area, element, jsonArea } from "./row-fields.js";

const ROLES = ["system", "user", "assistant", "tool"];
// What a message may hold beside role and text, by the role that has it.
const EXTRA = { assistant: { reasoning_content: "Reasoning" }, tool: { tool_call_id: "Id of the call", name: "Name" } };

export function messageCard({ messages, at, list, change }) {
  const message = messages[at];
  const path = `${list}[${at}]`;
  const card = element("article", `message-card message-${message.role}`);
  card.dataset.path = path;
  card.setAttribute("aria-label", `Message ${at + 1}`);
  card.append(head({ messages, at, change }));
  card.append(area("Text", message.content ?? "", (value) => {
    message.content = value === "" && message.tool_calls ? null : value;
    change();
  }, `${path}.content`));
  for (const [name, label] of Object.entries(EXTRA[message.role] || {})) {
    if (message[name] === undefined && name === "reasoning_content") continue;
    card.append(area(label, message[name] ?? "", (value) => {
      if (value) message[name] = value;
      else delete message[name];
      change();
    }, `${path}.${name}`));
  }
  if (message.role === "assistant") card.append(assistant(message, path, list, change));
  card.addEventListener("keydown", (event) => {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!by || !event.altKey) return;
    event.preventDefault();
    move(messages, at, by, change);
  });
  return card;
}

function head({ messages, at, change }) {
  const row = element("div", "row between message-head");
  const role = document.createElement("select");
  role.setAttribute("aria-label", "Role");
  for (const name of ROLES) role.append(new Option(name[0].toUpperCase() + name.slice(1), name, false, name === messages[at].role));
  role.addEventListener("change", () => {
    messages[at].role = role.value;
    if (role.value !== "assistant") for (const name of ["weight", "tool_calls"]) delete messages[at][name];
    change(at);
  });
  const acts = element("span", "row");
  acts.append(
    button("arrow-up", "Move up", at > 0, () => move(messages, at, -1, change)),
    button("arrow-down", "Move down", at < messages.length - 1, () => move(messages, at, 1, change)),
    button("trash-2", "Remove the message", messages.length > 1, () => {
      messages.splice(at, 1);
      change(Math.max(0, at - 1));
    }),
  );
  row.append(role, acts);
  return row;
}

function assistant(message, path, list, change) {
  const box = element("div", "stack-s");
  if (list === "messages") {
    const label = element("label", "check small");
    const input = Object.assign(document.createElement("input"), { type: "checkbox", checked: message.weight !== 0 });
    input.addEventListener("change", () => {
      if (input.checked) delete message.weight;
      else message.weight = 0;
      change();
    });
    label.append(input, element("span", "", "Learn this answer"));
    box.append(label);
  }
  const fold = element("details", "fold small");
  fold.open = Boolean(message.tool_calls);
  fold.append(element("summary", "", "Tool calls"));
  fold.append(jsonArea("As a JSON list", message.tool_calls, (value) => {
    if (value === undefined) delete message.tool_calls;
    else message.tool_calls = value;
    change();
  }, `${path}.tool_calls`));
  box.append(fold);
  return box;
}

function move(messages, at, by, change) {
  const to = at + by;
  if (to < 0 || to >= messages.length) return;
  [messages[at], messages[to]] = [messages[to], messages[at]];
  change(to);
}

function button(icon, label, enabled, act) {
  const made = element("button", "icon-btn");
  made.type = "button";
  made.disabled = !enabled;
  made.setAttribute("aria-label", label);
  made.title = label;
  const picture = document.querySelector(`[data-icons] [data-icon="${icon}"]`);
  if (picture) made.append(picture.content.cloneNode(true));
  else made.textContent = label[0];
  made.addEventListener("click", act);
  return made;
}
