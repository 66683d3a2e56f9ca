// Follows what happens on the server: parts of the page change as they are sent. A lost connection is shown and heals by itself; a hidden
// page closes its stream and catches up when it is seen again; pages beyond the few that may have a stream ask now and then.
import { copyButtons, localTimes, toast } from "./app.js";
import { prepareDialogs } from "./confirm.js";
import { morph } from "./morph.js";

const HIDDEN_GRACE = 5000;
const POLL = 5000;
const SLOTS = 4; // browsers open six connections to a host; the others are for pages
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

const bar = document.querySelector("[data-live-status]");
let address = "";
let source = null;
let release = null;
let timer = 0;
let failing = 0;
let fresh = Date.now();
let seen = "";
let ended = false;
let named;

function show(text) {
  document.body.classList.toggle("stale", Boolean(text));
  bar.hidden = !text;
  const place = bar.querySelector("[data-live-text]");
  if (place.textContent !== text) place.textContent = text;
}

function since() {
  return clock.format(new Date(fresh));
}

function apply(message) {
  for (const [name, html] of Object.entries(message.parts ?? {})) {
    const element = document.querySelector(`[data-live="${CSS.escape(name)}"]`);
    if (!element) continue;
    morph(element, html);
    localTimes(element);
    copyButtons(element);
    prepareDialogs(element);
  }
  if (message.news?.length) {
    document.querySelector("[data-news]").textContent = message.news.join(" ");
    for (const text of message.news.slice(-2)) toast(text);
  }
  failing = 0;
  if (message.trouble) show(`${message.trouble} What you see is of ${since()}; it is tried again.`);
  else {
    fresh = Date.now();
    show("");
  }
  document.dispatchEvent(new CustomEvent("conpaas:live", { detail: message }));
  if (name() !== named && !typing()) location.reload(); // the name stands in the title and in what must be typed, too
}

function name() {
  return document.querySelector("[data-live] [data-name]")?.dataset.name;
}

function typing() {
  return document.querySelector("dialog[open]") || document.activeElement?.matches("input, textarea, select");
}

function lost() {
  failing += 1;
  if (failing > 1) show(`Reconnecting … What you see is of ${since()}.`);
}

function over(reason) {
  ended = true;
  close();
  if (document.querySelector('form[aria-busy="true"]')) return; // this page is about to be left
  if (reason === "gone") show(`This was deleted. What you see is of ${since()}.`);
  else location.reload();
}

function close() {
  clearTimeout(timer);
  timer = 0;
  source?.close();
  source = null;
  release?.();
  release = null;
}

function openSource() {
  source = new EventSource(address);
  source.addEventListener("update", (event) => {
    apply(JSON.parse(event.data));
  });
  source.addEventListener("end", (event) => over(event.data));
  source.addEventListener("error", () => {
    lost();
    if (source?.readyState !== EventSource.CLOSED) return;
    // Refused, not cut: the browser gives up, so we look now and then until a stream is to be had.
    source.close();
    source = null;
    timer = setTimeout(poll, Math.min(30000, 1000 * 2 ** failing));
  });
}

async function poll() {
  timer = 0;
  try {
    const reply = await fetch(`${address}?seen=${seen}`, { headers: { Accept: "application/json" }, cache: "no-store" });
    if (reply.status === 401) return over("session");
    if (reply.status === 404) return over("gone");
    if (reply.status === 200) {
      const message = await reply.json();
      seen = message.version;
      apply(message);
    } else if (reply.status === 204) apply({});
    else lost();
  } catch {
    lost();
  }
  if (!source && !document.hidden && !ended) timer = setTimeout(poll, failing ? Math.min(30000, 1000 * 2 ** failing) : POLL);
}

/** Takes one of the few places that pages of this browser have for streams; resolves to false if all are taken. */
function slot(number) {
  return new Promise((resolve) => {
    navigator.locks.request(`conpaas-live-${number}`, { ifAvailable: true }, (lock) => {
      if (!lock) return resolve(false);
      return new Promise((free) => {
        release = free;
        resolve(true);
      });
    });
  });
}

async function open() {
  close();
  if (ended) return;
  if (!navigator.locks) return openSource();
  for (let number = 0; number < SLOTS; number += 1) {
    if (await slot(number)) {
      if (document.hidden) close();
      else openSource();
      return;
    }
  }
  poll();
}

export function startLive() {
  const element = document.querySelector("[data-live-from]");
  if (!element) return;
  address = element.dataset.liveFrom;
  named = name();
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(close, HIDDEN_GRACE);
    else if (!source) open();
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
  addEventListener("online", () => !source && !document.hidden && open());
  addEventListener("offline", () => show(`You are offline. What you see is of ${since()}.`));
  if (!document.hidden) open();
}
