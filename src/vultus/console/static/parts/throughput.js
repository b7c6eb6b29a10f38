// How much the server does, measured while the page is open: one line for each process that answers.

import { call } from "./api.js";
import { fill, h } from "./h.js";
import { buildTable } from "./plot.js";
import { problemBox } from "./problem.js";
import { formatNumber, formatTime, t } from "./words.js";

const PAUSE_MS = 5000, KEPT = 61, SPAN_MS = 30_000;
const RATES = ["requests", "photos", "searches"];
const SVG = "http://www.w3.org/2000/svg";

class Throughput extends HTMLElement {
  /** @type {Map<string, any[]>} What each process answered, the latest last. */
  answers = new Map();
  rate = "requests";
  /** @type {number | undefined} */
  timer;

  connectedCallback() {
    const choice = h("select", { onchange: () => { this.rate = choice.value; this.draw(); } }, RATES.map((one) => h("option", { value: one }, t(`load.${one}`))));
    this.shown = h("div", {});
    fill(this, h("section", { "aria-label": t("load") },
      h("div", { class: "head" }, h("h2", {}, t("load")), h("label", {}, h("span", { class: "visually-hidden" }, t("load.shown")), choice)),
      this.shown, h("p", { class: "hint" }, t("load.text"))));
    this.read();
  }

  disconnectedCallback() {
    clearTimeout(this.timer);
  }

  async read() {
    try {
      if (!document.hidden) {
        const load = await call("GET", "load");
        this.answers.set(load.process_id, [...this.answers.get(load.process_id) ?? [], load].slice(-KEPT));
        this.draw();
      }
    } catch (error) {
      fill(this.shown, problemBox(error));
    }
    if (this.isConnected) this.timer = setTimeout(() => this.read(), PAUSE_MS);
  }

  draw() {
    const processes = [...this.answers.values()];
    const lines = processes.map((answers) => answers.slice(1).map((one, at) => [Date.parse(one.at), computeRate(answers[at], one, this.rate)]));
    const now = Math.max(...processes.map((one) => Date.parse(one[one.length - 1].at))), top = Math.max(1, ...lines.flat().map(([, rate]) => rate));
    const svg = document.createElementNS(SVG, "svg");
    for (const [name, value] of Object.entries({ class: "rates", viewBox: "0 0 300 60", preserveAspectRatio: "none", role: "img", "aria-label": t("load.plot", { n: formatNumber(top, 1) }) })) svg.setAttribute(name, value);
    for (const line of lines) {
      const path = document.createElementNS(SVG, "polyline");
      path.setAttribute("points", line.map(([at, rate]) => `${300 - (now - at) / 1000},${58 - (rate / top) * 56}`).join(" "));
      svg.append(path);
    }
    const columns = ["process", ...RATES, "within", "waiting", "busy", "connections", "live"];
    fill(this.shown, h("p", { class: "hint" }, t("load.plot", { n: formatNumber(top, 1) })), svg,
      buildTable(t("load"), columns.map((name) => t(`load.${name}`)), processes.map(buildRow)));
  }
}

/** @param {any[]} answers Of a process. */
function buildRow(answers) {
  const last = answers[answers.length - 1];
  const first = answers.find((one) => Date.parse(last.at) - Date.parse(one.at) <= SPAN_MS);
  return [t("load.since", { time: formatTime(last.started_at), id: last.process_id.slice(-4) }),
    ...RATES.map((name) => (first === last ? "–" : formatNumber(computeRate(first, last, name), 1))), findWithin(first.answers_within, last.answers_within),
    last.photos_waiting, last.workers_busy, t("load.pool", { used: last.connections_in_use, idle: last.connections_idle }), last.live_sessions];
}

/** @param {any} before @param {any} now @param {string} name A second. */
function computeRate(before, now, name) {
  return (now[name] - before[name]) / Math.max(0.001, (Date.parse(now.at) - Date.parse(before.at)) / 1000);
}

/** @param {Record<string, number>} before @param {Record<string, number>} now @returns {string} Within what 19 of 20 were answered. */
function findWithin(before, now) {
  const grown = Object.entries(now).map(([bound, number]) => ({ bound: Number(bound.replace("+Inf", "Infinity")), number: number - (before[bound] ?? 0) })).sort((a, b) => a.bound - b.bound);
  const all = grown[grown.length - 1]?.number ?? 0, found = grown.find((one) => one.number >= 0.95 * all);
  if (!all || !found) return "–";
  return found.bound === Infinity ? "> 10 s" : `${formatNumber(found.bound * 1000)} ms`;
}

customElements.define("vultus-throughput", Throughput);
