// Sends the upload form with a progress bar, a cancel button and errors in place. Without it the form posts by itself.

const form = document.querySelector("form[data-upload]");
const part = (name) => form.querySelector(`[data-upload-${name}]`);
const file = form.querySelector("input[type=file]");
const zone = file.closest(".drop");
const submit = form.querySelector("button[type=submit]");
const bar = part("progress").querySelector("progress");
let request = null;

function size(bytes) {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), 3);
  const digits = power && bytes / 1000 ** power < 10 ? 1 : 0;
  return `${(bytes / 1000 ** power).toFixed(digits)} ${["B", "kB", "MB", "GB"][power]}`;
}

function showName() {
  const chosen = file.files[0];
  part("name").textContent = chosen ? `${chosen.name} (${size(chosen.size)})` : "";
}

function showErrors(texts) {
  const lines = texts.map((text) => Object.assign(document.createElement("p"), { textContent: text }));
  part("error-texts").replaceChildren(...lines);
  part("errors").hidden = texts.length === 0;
  if (texts.length) part("errors").scrollIntoView({ block: "nearest" });
}

function setBusy(busy) {
  part("progress").hidden = part("cancel").hidden = !busy;
  part("back").hidden = busy;
  submit.disabled = busy;
  form.setAttribute("aria-busy", String(busy));
}

function showProgress(event) {
  if (!event.lengthComputable) return;
  const percent = Math.floor((100 * event.loaded) / event.total);
  bar.value = percent;
  part("percent").textContent = `${percent} % of ${size(event.total)}`;
  part("said").textContent = percent < 100 ? "Uploading" : "Storing the file";
}

function refusal() {
  const toLogin = request.responseURL && new URL(request.responseURL).pathname.startsWith("/accounts/login");
  if (toLogin || request.status === 403) return "You are logged out, or may no longer add datasets here.";
  return request.status === 413 ? "The file is too large for this server." : `The server answered ${request.status}.`;
}

function finish() {
  const answer = request.response;
  if (request.status === 201 && answer) {
    location.assign(answer.location);
    return;
  }
  setBusy(false);
  showErrors(answer?.errors ?? [`${refusal()} Nothing was stored.`]);
}

function fail(text) {
  setBusy(false);
  showErrors(text ? [text] : []);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const limit = Number(form.dataset.uploadLimit);
  if (file.files[0]?.size > limit) {
    showErrors([`The file is larger than ${size(limit)}. Split it, or raise MAX_UPLOAD_MB.`]);
    return;
  }
  showErrors([]);
  request = new XMLHttpRequest();
  request.open("POST", form.action || location.href);
  request.responseType = "json";
  request.setRequestHeader("Accept", "application/json");
  request.upload.addEventListener("progress", showProgress);
  request.addEventListener("load", finish);
  request.addEventListener("error", () => fail("The connection broke off. Nothing was stored; try again."));
  request.addEventListener("abort", () => fail(""));
  bar.value = 0;
  setBusy(true);
  request.send(new FormData(form));
});

part("cancel").addEventListener("click", () => request?.abort());
file.addEventListener("change", showName);
for (const name of ["dragenter", "dragover"]) zone.addEventListener(name, () => zone.classList.add("over"));
for (const name of ["dragleave", "drop"]) zone.addEventListener(name, () => zone.classList.remove("over"));
addEventListener("beforeunload", (event) => {
  if (form.getAttribute("aria-busy") === "true" && request?.readyState !== XMLHttpRequest.DONE) event.preventDefault();
});
showName();
