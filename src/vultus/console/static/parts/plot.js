// Draws figures, each with a readout for pointer and arrow keys and a table of its numbers.

import { fill, h } from "./h.js";
import { t } from "./words.js";

/**
 * @typedef {{ low: number, high: number, label?: string, isLog?: boolean, format: (value: number) => string }} Axis
 * @typedef {object} Series
 * @property {string} name For the legend.
 * @property {string} look A class of the style sheet.
 * @property {(number | null)[][]} points x and y, ascending in x.
 * @property {"below" | "above"} [wrong] An area, and which side of the chosen threshold is an error; else a line.
 * @typedef {{ title: string, hint: string, x: Axis, y: Axis, series: Series[], columns: string[], rows: { at: number, cells: string[] }[] }} Figure
 */

const HEIGHT = 260, NARROW = 420, RIGHT = 14, TOP = 16, BOTTOM = HEIGHT - 44;
let clips = 0;

/** @param {string} tag @param {Record<string, any>} traits @param {...(Node | string)} children @returns {any} */
function draw(tag, traits, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(traits)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** @param {Axis} axis @param {number} count @returns {number[]} Round values on an axis, about so many. */
function listTicks({ low, high, isLog }, count) {
  const [from, to] = isLog ? [Math.log10(low), Math.log10(high)] : [low, high];
  const rough = (to - from) / count, unit = isLog ? 1 : 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * unit).find((one) => one >= rough) ?? rough;
  const first = Math.ceil(from / step - 1e-9);
  return Array.from({ length: Math.floor(to / step + 1e-9) - first + 1 }, (_, at) => (isLog ? 10 ** ((first + at) * step) : (first + at) * step));
}

/** @param {Axis} axis @param {number} from @param {number} to @returns {(value: any) => number} Where a value is drawn. */
function scaleTo({ low, high, isLog }, from, to) {
  const place = isLog ? Math.log10 : Number;
  return (value) => from + ((place(Math.max(value, low)) - place(low)) / (place(high) - place(low))) * (to - from);
}

/**
 * Return a figure, and how its two marks are moved.
 * @param {Figure} figure
 * @returns {{ element: HTMLElement, mark: (now: number, chosen: number) => void }}
 */
export function buildPlot({ title, hint, x, y, series, columns, rows }) {
  const id = clips += 1;
  const svg = draw("svg", { role: "img", tabindex: 0, height: HEIGHT, "aria-label": `${title}. ${hint} ${t("plot.keys")}` });
  const readout = h("p", { class: "readout", "aria-live": "polite" });
  const [cursor, now, chosen] = ["cursor", "mark now", "mark chosen"].map((look) => draw("line", { class: look, y1: TOP, y2: BOTTOM }));
  const sides = { below: draw("rect", { height: HEIGHT }), above: draw("rect", { height: HEIGHT }) };
  let left = 0, right = 600, row = -1;
  /** @type {[any, number | null][]} */
  const lines = [[cursor, null], [now, null], [chosen, null]];

  const placeLines = () => {
    const toX = scaleTo(x, left, right);
    for (const [line, value] of lines) {
      line.setAttribute("visibility", value === null ? "hidden" : "visible");
      for (const end of ["x1", "x2"]) line.setAttribute(end, String(toX(value)));
    }
    const edge = Math.min(right, Math.max(left, toX(lines[2][1])));
    sides.below.setAttribute("width", String(edge));
    sides.above.setAttribute("x", String(edge));
    sides.above.setAttribute("width", String(right - edge));
  };
  /** @param {number} width */
  const paint = (width) => {
    const isNarrow = width < NARROW, heights = listTicks(y, 5);
    left = isNarrow ? 1 : 14 + 6.4 * Math.max(...heights.map((at) => y.format(at).length));
    right = width - RIGHT;
    const toX = scaleTo(x, left, right), toY = scaleTo(y, BOTTOM, TOP);
    svg.setAttribute("width", width);
    svg.replaceChildren(
      ...Object.entries(sides).map(([side, rect]) => draw("clipPath", { id: `${side}-${id}` }, rect)),
      ...listTicks(x, Math.floor(width / 100)).flatMap((at) => [draw("line", { x1: toX(at), x2: toX(at), y1: TOP, y2: BOTTOM }),
        draw("text", { x: toX(at), y: BOTTOM + 17, "text-anchor": "middle" }, x.format(at))]),
      ...heights.flatMap((at) => [draw("line", { x1: left, x2: right, y1: toY(at), y2: toY(at) }),
        draw("text", isNarrow ? { x: 2, y: toY(at) - 4 } : { x: left - 6, y: toY(at) + 4, "text-anchor": "end" }, y.format(at))]),
      draw("text", { x: (left + right) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, x.label ?? ""),
      ...series.flatMap(({ look, wrong, points }) => {
        const drawn = points.filter((one) => one.every((part) => part !== null));
        if (!drawn.length) return [];
        const path = drawn.map((one) => `${toX(one[0])},${toY(one[1])}`).join("L");
        if (!wrong) return [draw("path", { class: look, d: `M${path}` })];
        const d = `M${toX(drawn[0][0])},${BOTTOM}L${path}L${toX(drawn[drawn.length - 1][0])},${BOTTOM}Z`;
        return [draw("path", { class: `area ${look}`, d }), draw("path", { class: `area wrong ${look}`, d, "clip-path": `url(#${wrong}-${id})` })];
      }), ...lines.map(([line]) => line));
    placeLines();
  };
  /** @param {number} index */
  const read = (index) => {
    row = Math.min(rows.length - 1, Math.max(0, index));
    lines[0][1] = rows[row].at;
    placeLines();
    readout.textContent = columns.map((name, at) => `${name}: ${rows[row].cells[at]}`).join(" · ");
  };
  /** @param {any} value */
  const readNear = (value) => read(rows.reduce((best, one, at) => (Math.abs(one.at - value) < Math.abs(rows[best].at - value) ? at : best), 0));
  svg.addEventListener("pointermove", (/** @type {PointerEvent} */ event) =>
    readNear(x.low + ((event.offsetX - left) / (right - left)) * (x.high - x.low)));
  svg.addEventListener("focus", () => row < 0 && readNear(lines[2][1]));
  svg.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -rows.length, End: rows.length }[event.key];
    if (!step) return;
    event.preventDefault();
    read(row + step);
  });
  const canvas = h("div", { class: "canvas" }, svg);
  new ResizeObserver(([entry]) => entry.contentRect.width && paint(entry.contentRect.width)).observe(canvas);
  const element = h("figure", {},
    h("figcaption", {}, h("strong", {}, title), h("p", { class: "hint" }, hint)),
    h("ul", { class: "legend" }, series.map((one) => h("li", { class: one.look }, one.name))),
    canvas, readout, h("details", {}, h("summary", {}, t("plot.table")), buildTable(title, columns, rows.map((one) => one.cells))));
  return { element, mark: (present, wanted) => { [lines[1][1], lines[2][1]] = [present, wanted]; placeLines(); } };
}

/**
 * A table that is scrolled where it is too wide.
 * @param {string} label @param {string[]} columns @param {import("./h.js").Child[][]} rows
 */
export function buildTable(label, columns, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, h("table", {},
    h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows.map(([first, ...others]) => h("tr", {}, h("th", { scope: "row" }, first), others.map((cell) => h("td", {}, cell)))))));
}
