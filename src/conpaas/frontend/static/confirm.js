// Dialogs: opened by links to them, closed by Escape and their buttons; a button that loses something waits until the name is typed.

function open(dialog) {
  if (dialog.open) return;
  dialog.showModal();
  const first = dialog.querySelector("[data-typed], input:not([type=hidden]):not([type=radio]), select, input[type=radio]");
  first?.focus();
  if (first?.type === "text" && first.value && !first.dataset.typed) first.select();
}

function check(input) {
  const right = input.value.trim() === input.dataset.typed;
  for (const button of input.form.querySelectorAll(".button.danger")) button.disabled = !right;
}

/** Prepares the dialogs below `where`, which may have been put there later. */
export function prepareDialogs(where = document) {
  for (const input of where.querySelectorAll("[data-typed]")) check(input);
}

export function startDialogs() {
  let pressed = null; // who marks text and lets go beside the dialog does not want to close it
  document.addEventListener("pointerdown", (event) => {
    pressed = event.target;
  });
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) {
      const dialog = document.getElementById(opener.dataset.opens);
      if (dialog) {
        event.preventDefault();
        open(dialog);
      }
      return;
    }
    if (event.target.closest("[data-closes]")) event.target.closest("dialog").close();
    else if (event.target instanceof HTMLDialogElement && event.target === pressed) event.target.close();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === " " && event.target.matches?.("a[role=button]")) {
      event.preventDefault();
      event.target.click();
    }
  });
  document.addEventListener("input", (event) => {
    if (event.target.matches?.("[data-typed]")) check(event.target);
  });
  prepareDialogs();
  for (const dialog of document.querySelectorAll("dialog[data-open]")) open(dialog);
  const named = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
  if (named instanceof HTMLDialogElement) {
    history.replaceState(null, "", location.pathname + location.search);
    open(named);
  }
}
