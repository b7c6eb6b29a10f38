// Builds elements. Texts become text nodes and never markup, whatever they hold.

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, any>} [traits] Attributes; null and false are left out, functions listen: `onclick`.
 * @param {...(Child | Child[])} children
 * @returns {any}
 */
export function h(tag, traits = {}, ...children) {
  const element = document.createElement(tag);
  applyTraits(element, traits);
  element.append(...children.flat().filter(isShown).map(toNode));
  return element;
}

/**
 * Replace what an element holds.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter(isShown).map(toNode));
}

/**
 * Make a picture of lines, 24 by 24.
 * @param {IconName} name
 */
export function icon(name) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 24 24");
  picture.setAttribute("class", "icon");
  picture.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  picture.append(path);
  return picture;
}

/**
 * A person's name, or any text that others wrote: its direction stays its own.
 * @param {string} text
 */
export function foreign(text) {
  return h("bdi", {}, text);
}

/** @param {Element} element @param {Record<string, any>} traits */
function applyTraits(element, traits) {
  for (const [name, value] of Object.entries(traits)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
}

/** @param {Child} child @returns {child is Node | string | number} */
function isShown(child) {
  return child !== null && child !== undefined && child !== false;
}

/** @param {Node | string | number} child @returns {Node | string} */
function toNode(child) {
  return typeof child === "number" ? String(child) : child;
}

/** @typedef {keyof typeof ICONS} IconName */
const ICONS = {
  overview: "M4 4h7v7H4zM13 4h7v4h-7zM13 11h7v9h-7zM4 14h7v6H4z",
  people: "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c0-3.6 2.9-6 6.5-6s6.5 2.4 6.5 6M16 4.5a3.5 3.5 0 0 1 0 6.5M18 14.5c2.1.8 3.5 2.7 3.5 5.5",
  recognise: "M4 8V6a2 2 0 0 1 2-2h2M16 4h2a2 2 0 0 1 2 2v2M20 16v2a2 2 0 0 1-2 2h-2M8 20H6a2 2 0 0 1-2-2v-2M9 10v.5M15 10v.5M9 15q3 2 6 0",
  live: "M4 7h10a1 1 0 0 1 1 1v8a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V8a1 1 0 0 1 1-1zM15 11l6-3v8l-6-3",
  events: "M4 6h3M4 12h3M4 18h3M10 6h10M10 12h10M10 18h6",
  cameras: "M3 5h12l4 3v4l-4 3H9v5H5v-5H3zM7 10h4",
  calibration: "M4 19h16M5 16c3 0 3-9 6-9s2 9 8 9M14 4v12",
  migration: "M4 8h13l-3-3M20 16H7l3 3",
  audit: "M6 3h9l4 4v14H6zM15 3v4h4M9 12h7M9 16h5",
  keys: "M14 10a4.5 4.5 0 1 0-4.5 4.5c.7 0 1.300-.1 1.900-.4L13 16h2v2h2v2h3v-3l-6.400-6.400c.3-.600.4-1.200.4-1.600zM8.500 9v.1",
  webhooks: "M9 12a4 4 0 1 1 2-3.500l5 8.500M13 17a4 4 0 1 0 2-3.400M8 20a4 4 0 1 1-1-7.800",
  more: "M5 12h.1M12 12h.1M19 12h.1",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 9a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM9 19a2 2 0 1 0 0-4 2 2 0 0 0 0 4z",
  camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 16a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
  upload: "M12 16V5M7 10l5-5 5 5M4 19h16",
};
