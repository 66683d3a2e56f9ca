// Charts of numbers over time, drawn here as SVG while the page is open; the numbers stand in the table beside each.

const PAUSE = 3000;
const KEPT = 200; // ten minutes
const WIDTH = 600;
const HEIGHT = 160;
const LEFT = 8;
const TOP = 12;
const NS = "http://www.w3.org/2000/svg";
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

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

function path(points, index, from, to, top) {
  let drawn = "";
  let pen = "M";
  for (const point of points) {
    const value = point.values[index];
    if (value === null || value === undefined) {
      pen = "M";
      continue;
    }
    const x = LEFT + ((WIDTH - 2 * LEFT) * (point.at - from)) / Math.max(1, to - from);
    const y = TOP + (HEIGHT - TOP - 20) * (1 - value / top);
    drawn += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
  }
  return drawn;
}

function draw(place, points, count, unit, title) {
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}, drawn over time; the numbers are in the table` });
  const to = points.at(-1).at;
  const from = Math.min(points[0].at, to - 30000);
  const top = ceiling(Math.max(0, ...points.flatMap((point) => point.values.filter((value) => value !== null))));
  const base = HEIGHT - 20;
  for (const part of [0, 0.5, 1]) {
    const y = TOP + (base - TOP) * (1 - part);
    svg.append(shape("line", { x1: LEFT, x2: WIDTH - LEFT, y1: y, y2: y, class: "chart-line" }));
    if (part) svg.append(shape("text", { x: LEFT, y: y - 3, class: "chart-text" }, `${figure(top * part)} ${unit}`));
  }
  svg.append(shape("text", { x: LEFT, y: HEIGHT - 5, class: "chart-text" }, clock.format(new Date(from))));
  svg.append(shape("text", { x: WIDTH - LEFT, y: HEIGHT - 5, class: "chart-text chart-end" }, clock.format(new Date(to))));
  for (let index = 0; index < count; index += 1) {
    svg.append(shape("path", { d: path(points, index, from, to, top), class: `chart-series key-${index}` }));
  }
  place.replaceChildren(svg);
}

function numbers(figureElement, points, count) {
  for (const cell of figureElement.querySelectorAll(".chart-more")) cell.hidden = false;
  for (let index = 0; index < count; index += 1) {
    const row = figureElement.querySelector(`[data-series="${index}"]`);
    const known = points.map((point) => point.values[index]).filter((value) => value !== null && value !== undefined);
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
    const put = (name, value) => {
      row.querySelector(`[data-${name}]`).textContent = figure(value);
    };
    put("now", points.at(-1).values[index]);
    put("least", known.length ? Math.min(...known) : null);
    put("most", known.length ? Math.max(...known) : null);
    put("mean", known.length ? mean : null);
  }
}

function isSeen(element) {
  const box = element.getBoundingClientRect();
  return !document.hidden && box.bottom > 0 && box.top < innerHeight;
}

const measured = new Map();

function start(element) {
  const address = element.dataset.chart;
  const points = measured.get(address) ?? [];
  measured.set(address, points);
  const place = element.querySelector(".chart-drawing");
  const count = element.querySelectorAll("[data-series]").length;
  const unit = element.querySelector("thead th").textContent;
  const title = element.querySelector("caption").textContent;
  let pause = PAUSE;

  const show = () => {
    if (!points.length) return;
    place.hidden = false;
    draw(place, points, count, unit, title);
    numbers(element, points, count);
  };

  const ask = async () => {
    if (!element.isConnected) return;
    if (isSeen(element)) {
      try {
        const reply = await fetch(address, { headers: { Accept: "application/json" }, cache: "no-store" });
        if (!reply.ok) throw new Error(String(reply.status));
        points.push({ at: Date.now(), values: (await reply.json()).values });
        pause = PAUSE;
      } catch {
        if (points.length) points.push({ at: Date.now(), values: Array(count).fill(null) });
        pause = Math.min(60000, pause * 2);
      }
      points.splice(0, Math.max(0, points.length - KEPT));
      show();
    }
    setTimeout(ask, pause);
  };

  show();
  ask();
}

/** Starts the charts below `where` that have not begun yet. */
export function startCharts(where = document) {
  for (const element of where.querySelectorAll("[data-chart]")) {
    if (element.dataset.begun) continue;
    element.dataset.begun = "yes";
    start(element);
  }
}
