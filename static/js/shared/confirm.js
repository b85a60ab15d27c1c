// Asks before a form with data-confirm="question" is sent. Without scripts the form is sent as it is.

function ask(question, verb) {
  const dialog = document.createElement("dialog");
  dialog.className = "dialog";
  const text = document.createElement("p");
  text.textContent = question;
  const foot = document.createElement("form");
  foot.method = "dialog";
  foot.className = "dialog-foot";
  for (const [value, label, classes] of [["no", "Go back", "btn"], ["yes", verb, "btn btn-danger"]]) {
    const button = document.createElement("button");
    button.value = value;
    button.className = classes;
    button.textContent = label;
    foot.append(button);
  }
  dialog.append(text, foot);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => { dialog.remove(); answer(dialog.returnValue === "yes"); });
  });
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset.confirm || form.dataset.confirmed) return;
  event.preventDefault();
  if (!(await ask(form.dataset.confirm, event.submitter?.textContent.trim() || "Go on"))) return;
  form.dataset.confirmed = "yes";
  form.requestSubmit(event.submitter);
});
