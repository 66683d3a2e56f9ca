// Follows a log: asks for what was written since, keeps the end in sight, wraps and filters lines.

const PAUSE = 1500;
const KEEP = 2_000_000; // letters that stay on the page

const view = document.querySelector("[data-log]");
const follow = document.querySelector("[data-log-follow]");
const wrap = document.querySelector("[data-log-wrap]");
const filter = document.querySelector("[data-log-filter]");
const mark = document.querySelector("[data-log-state]");
let offset = view.dataset.offset;
let all = view.textContent;
let pause = PAUSE;
let timer = 0;

function shown(text) {
  const wanted = filter.value.toLowerCase();
  return wanted ? text.split("\n").filter((line) => line.toLowerCase().includes(wanted)).join("\n") : text;
}

function toEnd() {
  if (follow.checked) view.scrollTop = view.scrollHeight;
}

function add(text) {
  all += text;
  if (all.length > KEEP || filter.value) {
    if (all.length > KEEP) all = all.slice(all.indexOf("\n", all.length - KEEP) + 1);
    view.textContent = shown(all);
  } else view.append(text);
  toEnd();
}

function size(bytes) {
  let amount = bytes;
  for (const unit of ["B", "KB", "MB"]) {
    if (amount < 1024) return `${unit === "B" || amount >= 100 ? Math.round(amount) : amount.toFixed(1)} ${unit}`;
    amount /= 1024;
  }
  return `${amount.toFixed(1)} GB`;
}

function tell(good) {
  mark.classList.toggle("off", !good);
  mark.querySelector("span").textContent = good ? "followed live" : "reconnecting …";
}

async function ask() {
  timer = 0;
  try {
    const reply = await fetch(`${view.dataset.log}?offset=${offset}`, { headers: { Accept: "application/json" }, cache: "no-store" });
    if (reply.status === 401) return location.reload();
    if (!reply.ok) throw new Error(String(reply.status));
    const part = await reply.json();
    if (part.text) add(part.text);
    if (part.size !== null) document.querySelector("[data-log-size]").textContent = size(part.size);
    if (part.size !== null && part.size < Number(offset)) offset = "0";
    else if (part.next !== null) offset = String(part.next);
    pause = PAUSE;
    tell(true);
    if (part.text && part.size > Number(offset)) return ask();
  } catch {
    pause = Math.min(30000, pause * 2);
    tell(false);
  }
  if (!document.hidden) timer = setTimeout(ask, pause);
}

filter.addEventListener("input", () => {
  view.textContent = shown(all);
  toEnd();
});

function wrapLines() {
  view.classList.toggle("wrap", wrap.checked);
}

wrap.addEventListener("change", wrapLines);
if (matchMedia("(max-width: 640px)").matches) { // a phone shows a third of a line
  wrap.checked = true;
  wrapLines();
}
follow.addEventListener("change", toEnd);
view.addEventListener("wheel", () => {
  follow.checked = view.scrollTop + view.clientHeight >= view.scrollHeight - 40 && follow.checked;
});
document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  timer = 0;
  if (!document.hidden && offset) ask();
});
toEnd();
if (offset) timer = setTimeout(ask, PAUSE);
