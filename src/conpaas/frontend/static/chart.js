// Charts of numbers over time, drawn here as SVG: what the manager measured before, then what is measured while the page is open. The numbers
// of the time that is shown stand in the table beside each.

const PAUSE = 3000;
const KEPT = 200; // ten minutes
const AGAIN = 60000; // the manager has a new row every minute
const CHOSEN = "conpaas-chart-minutes";
const NARROWEST = 240;
const HEIGHT = 160;
const LEFT = 8;
const TOP = 12;
const NS = "http://www.w3.org/2000/svg";
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "2-digit", minute: "2-digit" });

function figure(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value !== 0 && Math.abs(value) < 10) return value.toLocaleString(undefined, { maximumFractionDigits: 2 });
  return value.toLocaleString(undefined, { maximumFractionDigits: value < 100 ? 1 : 0 });
}

function shape(name, attributes, text) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= value);
}

function path(points, index, from, to, top, width) {
  let drawn = "";
  let pen = "M";
  for (const point of points) {
    const value = point.values[index];
    if (value === null || value === undefined) {
      pen = "M";
      continue;
    }
    const x = LEFT + ((width - 2 * LEFT) * (point.at - from)) / Math.max(1, to - from);
    const y = TOP + (HEIGHT - TOP - 20) * (1 - value / top);
    drawn += `${pen}${x.toFixed(1)} ${y.toFixed(1)}${pen === "M" ? "l0 0" : ""}`; // one number alone is a dot
    pen = "L";
  }
  return drawn;
}

function draw(place, points, count, unit, title) {
  const width = Math.max(NARROWEST, place.clientWidth); // drawn as wide as it is shown, so that its letters have their size
  const svg = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `${title}, drawn over time; the numbers are in the table` });
  const to = points.at(-1).at;
  const from = Math.min(points[0].at, to - 30000);
  const top = ceiling(Math.max(0, ...points.flatMap((point) => point.values.filter((value) => value !== null))));
  const base = HEIGHT - 20;
  for (const part of [0, 0.5, 1]) {
    const y = TOP + (base - TOP) * (1 - part);
    svg.append(shape("line", { x1: LEFT, x2: width - LEFT, y1: y, y2: y, class: "chart-line" }));
    if (part) svg.append(shape("text", { x: LEFT, y: y - 3, class: "chart-text" }, `${figure(top * part)} ${unit}`));
  }
  const label = to - from > 7200000 ? day : clock;
  svg.append(shape("text", { x: LEFT, y: HEIGHT - 5, class: "chart-text" }, label.format(new Date(from))));
  svg.append(shape("text", { x: width - LEFT, y: HEIGHT - 5, class: "chart-text chart-end" }, label.format(new Date(to))));
  for (let index = 0; index < count; index += 1) {
    svg.append(shape("path", { d: path(points, index, from, to, top, width), class: `chart-series key-${index}` }));
  }
  place.replaceChildren(svg);
}

/** The mean over time: a number counts as long as it was the latest, but no longer than the pause between two rows of a day. */
function mean(points, index) {
  let sum = 0;
  let whole = 0;
  points.forEach((point, place) => {
    const value = point.values[index];
    if (value === null || value === undefined) return;
    const weight = place ? Math.min(point.at - points[place - 1].at, 450000) : PAUSE;
    sum += value * weight;
    whole += weight;
  });
  return whole ? sum / whole : null;
}

function numbers(figureElement, points, count) {
  for (const cell of figureElement.querySelectorAll(".chart-more")) cell.hidden = false;
  for (let index = 0; index < count; index += 1) {
    const row = figureElement.querySelector(`[data-series="${index}"]`);
    const known = points.map((point) => point.values[index]).filter((value) => value !== null && value !== undefined);
    const put = (name, value) => {
      row.querySelector(`[data-${name}]`).textContent = figure(value);
    };
    put("now", points.at(-1).values[index]);
    put("least", known.length ? Math.min(...known) : null);
    put("most", known.length ? Math.max(...known) : null);
    put("mean", mean(points, index));
  }
}

function isSeen(element) {
  const box = element.getBoundingClientRect();
  return !document.hidden && box.bottom > 0 && box.top < innerHeight;
}

function remembered() {
  try {
    return Number(localStorage.getItem(CHOSEN)) || 60;
  } catch {
    return 60;
  }
}

let minutes = remembered();
const measured = new Map(); // by address: what was measured since the page is open, and before
const drawn = new Map(); // what goes on, by its element: a panel that is read anew keeps its elements

/** All points of the time that is shown, oldest first. */
function points(chart) {
  const since = Date.now() - 60000 * minutes;
  const first = chart.now.length ? chart.now[0].at : Infinity;
  return [...chart.before.filter((point) => point.at < first), ...chart.now].filter((point) => point.at >= since);
}

function start(element) {
  const address = element.dataset.chart;
  const chart = measured.get(address) ?? { now: [], before: [], asked: 0 };
  measured.set(address, chart);
  const place = element.querySelector(".chart-drawing");
  const count = element.querySelectorAll("[data-series]").length;
  const unit = element.querySelector("thead th").textContent;
  const title = element.querySelector("caption").textContent;
  let pause = PAUSE;

  const read = async (path) => {
    const reply = await fetch(path, { headers: { Accept: "application/json" }, cache: "no-store" });
    if (!reply.ok) throw new Error(String(reply.status));
    return reply.json();
  };

  const show = () => {
    const found = points(chart);
    if (!found.length) return;
    place.hidden = false;
    draw(place, found, count, unit, title);
    numbers(element, found, count);
  };

  const before = async () => {
    const wanted = minutes;
    chart.asked = Date.now();
    try {
      const { rows } = await read(`${address}/before?minutes=${wanted}`);
      if (wanted !== minutes) return;
      chart.before = rows.map(([at, ...values]) => ({ at: 1000 * at, values }));
      show();
    } catch {
      // What was before is an extra: the chart goes on from now, and asks again in a minute.
    }
  };

  const ask = async () => {
    if (drawn.get(element) !== going) return;
    if (!element.isConnected) {
      drawn.delete(element);
      return;
    }
    if (isSeen(element)) {
      if (Date.now() - chart.asked >= AGAIN) before();
      try {
        const { values } = await read(address);
        chart.now.push({ at: Date.now(), values });
        pause = PAUSE;
      } catch {
        if (chart.now.length) chart.now.push({ at: Date.now(), values: Array(count).fill(null) });
        pause = Math.min(60000, pause * 2);
      }
      chart.now.splice(0, Math.max(0, chart.now.length - KEPT));
      show();
    }
    setTimeout(ask, pause);
  };

  const going = { address, show, before };
  drawn.set(element, going);
  show();
  ask();
}

function markRanges(where) {
  for (const group of where.querySelectorAll("[data-ranges]")) {
    group.hidden = false;
    for (const button of group.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.minutes) === minutes));
    }
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-ranges] button");
  if (!button) return;
  minutes = Number(button.dataset.minutes);
  try {
    localStorage.setItem(CHOSEN, minutes);
  } catch {
    // It counts for this page then.
  }
  markRanges(document);
  for (const going of drawn.values()) {
    going.show();
    going.before();
  }
});

/** Starts the charts below `where` that have not begun yet, and draws the others again. */
export function startCharts(where = document) {
  markRanges(where);
  for (const element of where.querySelectorAll("[data-chart]")) {
    const going = drawn.get(element);
    if (going?.address === element.dataset.chart) going.show();
    else start(element);
  }
}
