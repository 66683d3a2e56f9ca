// The page of a service: panels that follow what happens, uploads with their progress, steppers, rows of forms, charts.
import { copyButtons, csrf, localTimes } from "./app.js";
import { prepareDialogs } from "./confirm.js";
import { startCharts } from "./chart.js";
import { morph } from "./morph.js";

const pulse = document.querySelector("[data-panels]");
let beat = pulse?.querySelector("[data-pulse]")?.dataset.pulse ?? "";
const waiting = new Set();

// -- panels

/** Whether somebody works in a panel: what is typed there, and a dialog that is open, must not go away. */
function inUse(panel) {
  if (panel.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) return true;
  if (panel.querySelector('dialog[open], form[aria-busy="true"]')) return true;
  return [...panel.querySelectorAll("form")].some((form) => form.dataset.touched === "yes");
}

function prepare(where) {
  localTimes(where);
  copyButtons(where);
  prepareDialogs(where);
  steppers(where);
  rows(where);
}

/** Which panels there are depends on the state of the service; the list of them follows. */
function reveal(panel, there) {
  panel.hidden = !there;
  const entry = document.querySelector(`.on-this-page a[href="#${CSS.escape(panel.id)}"]`)?.closest("li");
  if (entry) entry.hidden = !there;
  if (!there) panel.replaceChildren();
}

async function refresh(panel, force = false) {
  if (!force && inUse(panel)) {
    waiting.add(panel);
    return;
  }
  waiting.delete(panel);
  panel.setAttribute("aria-busy", "true");
  try {
    const reply = await fetch(pulse.dataset.panels + panel.dataset.panel, { cache: "no-store" });
    if (reply.status === 204) reveal(panel, false);
    const html = reply.status === 200 ? await reply.text() : "";
    if (html && (force || !inUse(panel))) {
      reveal(panel, true);
      morph(panel, html);
      prepare(panel);
      startCharts(panel);
      panel.removeAttribute("data-pending");
    }
  } catch {
    // the bar at the top tells that the connection is lost; the next beat tries again
  } finally {
    panel.removeAttribute("aria-busy");
  }
}

async function refreshAll() {
  for (const panel of document.querySelectorAll("[data-panel]")) await refresh(panel);
}

function followPanels() {
  if (!pulse) return;
  document.addEventListener("conpaas:live", () => {
    steppers();
    const { pulse: now, settled } = pulse.querySelector("[data-pulse]")?.dataset ?? {};
    // while the service changes its state, what it was just before stays
    if (now && now !== beat && settled === "yes") {
      beat = now;
      refreshAll();
    }
  });
  document.addEventListener("focusout", () => setTimeout(() => waiting.forEach((panel) => refresh(panel)), 300));
  document.addEventListener("input", (event) => {
    if (event.target.form) event.target.form.dataset.touched = "yes";
  });
  document.addEventListener("click", (event) => {
    const retry = event.target.closest("[data-retry]");
    if (!retry) return;
    event.preventDefault();
    refresh(document.querySelector(`[data-panel="${CSS.escape(retry.dataset.retry)}"]`), true);
  });
  for (const panel of document.querySelectorAll("[data-panel][data-pending]")) refresh(panel);
}

// -- steppers and rows

function steppers(where = document) {
  for (const button of where.querySelectorAll("[data-step]")) button.hidden = false;
}

function stepping() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-step]");
    if (!button) return;
    const input = button.parentElement.querySelector("input");
    const next = (Number.parseInt(input.value.replace("−", "-"), 10) || 0) + Number(button.dataset.step);
    input.value = next > 0 ? `+${next}` : String(next).replace("-", "−");
    input.dispatchEvent(new Event("input", { bubbles: true }));
  });
}

/** A table of fields always has an empty row at its end. */
function rows(where = document) {
  for (const table of where.querySelectorAll("[data-rows]")) {
    table.addEventListener("input", () => {
      const last = [...table.querySelectorAll(".row-fields")].at(-1);
      if (![...last.querySelectorAll("input")].some((input) => input.value)) return;
      const more = last.cloneNode(true);
      for (const input of more.querySelectorAll("input")) {
        input.value = "";
        input.name = input.name.replace(/\.(\d+)\.(?=[^.]*$)/, (_, number) => `.${Number(number) + 1}.`);
      }
      for (const label of more.querySelectorAll("span")) label.className = "unseen";
      last.after(more);
    });
  }
}

// -- uploads

const sizes = ["B", "KB", "MB", "GB"];

function size(bytes) {
  const power = Math.min(sizes.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${(bytes / 1024 ** power).toFixed(power ? 1 : 0)} ${sizes[power]}`;
}

function tell(form, text, wrong = false) {
  const place = form.querySelector(".upload-text");
  place.hidden = !text;
  place.textContent = text;
  place.classList.toggle("field-problem", wrong);
  if (wrong) place.setAttribute("role", "alert");
}

function tooLarge(form) {
  for (const input of form.querySelectorAll("input[type=file][data-maximum]")) {
    const file = input.files[0];
    if (file && file.size > Number(input.dataset.maximum)) return `${file.name} has ${size(file.size)}; at most ${size(Number(input.dataset.maximum))} are taken.`;
  }
  return "";
}

function showProblems(form, answer) {
  const fields = Object.values(answer.fields ?? {});
  tell(form, [answer.error, ...fields, answer.hint].filter(Boolean).join(" "), true);
}

function upload(form) {
  const bar = form.querySelector(".upload-progress");
  const request = new XMLHttpRequest();
  const began = performance.now();
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "application/json");
  request.setRequestHeader("X-CSRF-Token", csrf);
  request.upload.addEventListener("progress", (event) => {
    if (!event.lengthComputable) return;
    bar.value = (100 * event.loaded) / event.total;
    const speed = event.loaded / Math.max(0.2, (performance.now() - began) / 1000);
    const sent = event.loaded >= event.total;
    tell(form, sent ? "Sent; the service works on it …" : `${size(event.loaded)} of ${size(event.total)}, ${size(speed)}/s`);
    if (sent) bar.removeAttribute("value");
  });
  request.addEventListener("load", () => done(form, bar, request));
  request.addEventListener("error", () => failed(form, bar, "The connection was lost before all was sent; nothing was done."));
  request.addEventListener("abort", () => failed(form, bar, "Not sent."));
  bar.hidden = false;
  request.send(new FormData(form));
}

function failed(form, bar, text) {
  bar.hidden = true;
  form.removeAttribute("aria-busy");
  tell(form, text, true);
}

function done(form, bar, request) {
  let answer = {};
  try {
    answer = JSON.parse(request.responseText);
  } catch {
    return failed(form, bar, `The front-end answered ${request.status}.`);
  }
  if (answer.go) {
    const target = new URL(answer.go, location.href);
    location.assign(target);
    if (target.pathname === location.pathname && target.hash) location.reload();
    return undefined;
  }
  failed(form, bar, "");
  return showProblems(form, answer);
}

function uploads() {
  document.addEventListener(
    "submit",
    (event) => {
      const form = event.target;
      if (!form.matches("[data-upload]")) return;
      event.preventDefault();
      if (form.getAttribute("aria-busy") === "true") return;
      const wrong = tooLarge(form);
      if (wrong) return tell(form, wrong, true);
      form.setAttribute("aria-busy", "true");
      upload(form);
    },
    true,
  );
}

document.querySelector(".form-part .notice.error, .field.wrong")?.scrollIntoView({ block: "center" });
// the page of a form that was refused has the address of the form, which is none to come back to
if (pulse && location.pathname !== pulse.dataset.here) history.replaceState(null, "", pulse.dataset.here);
steppers();
stepping();
rows();
uploads();
followPanels();
startCharts();
