// Changes a part of the page into what the server sent, touching only what differs: focus, open details and typed text stay.

const KEPT = new Set(["open", "aria-busy", "hidden"]);

function sameNode(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName && (one.id || "") === (other.id || "");
}

function attributes(from, to) {
  for (const { name, value } of [...to.attributes]) {
    if (name === "value" && from === document.activeElement) continue;
    if (from.tagName === "TIME" && name === "title") continue;
    if (!KEPT.has(name) && from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  for (const { name } of [...from.attributes]) {
    if (!KEPT.has(name) && !to.hasAttribute(name)) from.removeAttribute(name);
  }
}

function change(from, to) {
  if (from.nodeType === Node.TEXT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  if (from.nodeType !== Node.ELEMENT_NODE || from.isEqualNode(to)) return;
  if (from.tagName === "TIME" && from.dateTime === to.dateTime) return;
  attributes(from, to);
  children(from, to);
}

function children(from, to) {
  const waiting = new Map();
  for (const child of from.children) if (child.id) waiting.set(child.id, child);
  let place = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    const known = wanted.id ? waiting.get(wanted.id) : undefined;
    if (known && sameNode(known, wanted)) {
      if (known === place) place = place.nextSibling;
      else from.insertBefore(known, place);
      change(known, wanted);
    } else if (place && !place.id && sameNode(place, wanted)) {
      const following = place.nextSibling;
      change(place, wanted);
      place = following;
    } else {
      from.insertBefore(document.importNode(wanted, true), place);
    }
  }
  while (place) {
    const following = place.nextSibling;
    place.remove();
    place = following;
  }
}

/** Makes the content of `element` equal to `html`, which comes from our own server. */
export function morph(element, html) {
  const parsed = new DOMParser().parseFromString(`<body>${html}</body>`, "text/html");
  children(element, parsed.body);
}
