// Ctrl+V anywhere on the upload page: files go to the file field, text to the field for pasted rows.

const input = document.querySelector("form[data-upload] input[type=file]");
const text = document.querySelector("form[data-upload] textarea[name=text]");

document.addEventListener("paste", (event) => {
  if (event.target.closest?.("input:not([type=file]), textarea")) return;
  const { files } = event.clipboardData;
  const words = event.clipboardData.getData("text/plain");
  if (files.length) {
    input.files = files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  } else if (text && words.trim()) {
    text.closest("details").open = true;
    text.value = words;
    text.focus();
  } else {
    return;
  }
  event.preventDefault();
});
