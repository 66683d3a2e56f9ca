// What every page does: local times, dialogs, busy buttons, copying, toasts; and it wakes up the modules that a page needs.
import { startDialogs } from "./confirm.js";
import { startLive } from "./live.js";
import { startTheme } from "./theme.js";

export const root = document.querySelector('meta[name="root"]').content;
export const csrf = document.querySelector('meta[name="csrf"]').content;

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const year = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

function words(at, now) {
  const seconds = (now - at) / 1000;
  if (seconds >= -5 && seconds < 50) return "just now";
  if (seconds >= 50 && seconds < 3570) return `${Math.round(seconds / 60)} min ago`;
  if (at.toDateString() === now.toDateString()) return clock.format(at);
  return Math.abs(seconds) < 250 * 86400 ? day.format(at) : year.format(at);
}

/** Shows all times below `where` in the local zone, with the exact time on hover. */
export function localTimes(where = document) {
  const now = new Date();
  for (const element of where.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.valueOf())) continue;
    const text = words(at, now);
    if (element.textContent !== text) element.textContent = text;
    element.title = exact.format(at);
  }
}

/** Says something in a corner for some seconds; screen readers read it, too. */
export function toast(text) {
  const element = document.createElement("div");
  element.className = "toast";
  element.textContent = text;
  document.querySelector("[data-toasts]").append(element);
  setTimeout(() => element.remove(), 6000 + 40 * text.length);
}

/** A POST from a script: fields as an object or FormData; what is wrong is thrown as an Error whose message is for people. */
export async function send(path, fields = {}) {
  const body = fields instanceof FormData ? fields : new URLSearchParams(fields);
  const reply = await fetch(path, { method: "POST", body, headers: { "X-CSRF-Token": csrf, Accept: "application/json" } });
  const answer = reply.status === 204 ? {} : await reply.json();
  if (answer.go && reply.status === 401) location.assign(answer.go);
  if (!reply.ok) throw Object.assign(new Error(answer.error ?? "The request failed."), { hint: answer.hint ?? "" });
  return answer;
}

function busyForms() {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("[data-busy]") || event.defaultPrevented) return;
    if (form.getAttribute("aria-busy") === "true") event.preventDefault();
    form.setAttribute("aria-busy", "true");
  });
  addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll('form[aria-busy="true"]')) form.removeAttribute("aria-busy");
  });
}

/** Shows what only works with scripts: copy buttons. */
export function copyButtons(where = document) {
  if (!navigator.clipboard) return;
  for (const button of where.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
}

function copying() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    toast("Copied.");
  });
}

localTimes();
setInterval(localTimes, 30000);
copyButtons();
copying();
busyForms();
startDialogs();
startTheme(root);
startLive();
