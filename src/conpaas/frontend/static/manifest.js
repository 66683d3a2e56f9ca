// A mistake in a manifest leads to its place in the text.

const text = document.getElementById("manifest");

function offsetOf(value, line, column) {
  let offset = 0;
  for (let number = 1; number < line; number += 1) {
    const end = value.indexOf("\n", offset);
    if (end < 0) return value.length;
    offset = end + 1;
  }
  return Math.min(value.length, offset + column - 1);
}

for (const link of text ? document.querySelectorAll("a[data-line]") : []) {
  link.addEventListener("click", (event) => {
    if (!text.value.trim()) return;
    event.preventDefault();
    const line = Number(link.dataset.line);
    const offset = offsetOf(text.value, line, Number(link.dataset.column));
    const end = text.value.indexOf("\n", offset);
    text.focus();
    text.setSelectionRange(offset, end < 0 ? text.value.length : end);
    const height = text.scrollHeight / Math.max(1, text.value.split("\n").length);
    text.scrollTop = Math.max(0, (line - 4) * height);
    text.scrollIntoView({ block: "center" });
  });
}
