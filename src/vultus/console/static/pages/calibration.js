// What a threshold costs, by looking at it: who is missed, which strangers are named.

import { call, personPath } from "../parts/api.js";
import { actions, button, pageHead, section, tellDone } from "../parts/controls.js";
import { confirmErasure } from "../parts/dialogs.js";
import { fill, foreign, h } from "../parts/h.js";
import { linkPerson } from "../parts/person-link.js";
import { buildPlot, buildTable } from "../parts/plot.js";
import { load, problemBox } from "../parts/problem.js";
import { can, session } from "../parts/session.js";
import { count, formatNumber, formatShare, t } from "../parts/words.js";

const QUICK = 2_000, MOST = 10_000, FEW = 100;
const LINES = [["fmr", "bad"], ["fnmr", "good"], ["stated_fmr", "bad dashed"], ["worst_group_fmr", "warn"]];
/** @type {Map<string, any>} What the policy of a collection was before it was changed here. */
const before = new Map();

class Calibration extends HTMLElement {
  /** @type {any} */ state = null;
  /** @type {any} */ report = null;
  /** @type {any} */ problem = null;
  /** @type {any[]} */ curve = [];
  /** @type {ReturnType<typeof buildPlot>[]} */ plots = [];
  /** @type {number | null} The chosen threshold; null for the one that decides now. */ wanted = null;
  now = 0;
  place = `collections/${encodeURIComponent(session.collection)}`;
  path = `${this.place}/calibration`;
  trouble = h("div", {});

  connectedCallback() {
    fill(this, pageHead("calibration"));
    load(this, async () => {
      this.state = await call("GET", this.path);
      this.show();
      this.querySelector("h1")?.focus();
      await this.measure(QUICK);
    });
  }

  /** Compare the enrolled faces with each other, which changes nothing. @param {number} sample */
  async measure(sample) {
    fill(this.progress, h("p", {}, t("calibration.measuring")), h("progress", { "aria-label": t("calibration.measuring") }));
    this.problem = null;
    try {
      this.report = await call("POST", this.path, { json: { sample } });
      this.state = await call("GET", this.path);
    } catch (problem) {
      this.problem = problem;
    }
    if (this.isConnected) this.show();
  }

  show() {
    const { state, report } = this, fixed = state.policy.threshold !== null, wanted = this.wanted ?? state.threshold;
    const curve = this.curve = report?.measured.curve ?? state.curve;
    const [position, now] = [wanted, state.threshold].map((wish) => {
      const distances = this.curve.map((one) => Math.abs(one.threshold - wish));
      return distances.indexOf(Math.min(...distances));
    });
    const focused = document.activeElement === this.slider;
    this.now = now;
    this.slider = h("input", { type: "range", min: 0, max: curve.length - 1, value: position, oninput: () => this.choose(Number(this.slider.value)) });
    this.costs = h("div", { class: "costs" });
    this.verdict = h("p", { role: "status" });
    this.use = button("calibration.apply", () => this.apply({ threshold: this.wanted }), "primary");
    this.progress = h("div", {});
    this.plots = [report && this.plotScores(report.measured), this.plotRates(this.curve)].filter(Boolean);
    fill(this,
      pageHead("calibration"), h("p", {}, t("calibration.text")), this.trouble,
      section("choice", t("calibration.choice"), h("label", {}, t("calibration.slider"), this.slider), this.costs, this.verdict,
        can("configure") && actions(this.use, before.has(session.collection) ? Object.assign(button("calibration.undo", () => this.undo()), { id: "undo" })
          : fixed && button("calibration.follow", () => this.apply({ threshold: null }))),
        h("p", { class: "hint" }, t(fixed ? "calibration.fixed" : "calibration.aims"), " ", state.policy.fusion === "mean" && t("calibration.mean")), this.plots.map((one) => one.element)),
      this.buildMeasurement(), report && this.buildPairs(), report && can("read") && this.buildGroups());
    this.choose(position);
    if (focused) this.slider.focus();
  }

  /** @param {number} chosen */
  choose(chosen) {
    const [present, wanted] = [this.curve[this.now], this.curve[chosen]];
    const told = [present, wanted].map(({ threshold, fnmr, fpir }) => [formatNumber(threshold, 3),
      fnmr === null ? t("calibration.unknown") : t("calibration.of_100", { n: formatNumber(fnmr * 100, fnmr && fnmr < 0.1 ? 1 : 0) }), formatShare(fpir)]);
    const [threshold, missed, strangers] = told[1];
    this.wanted = chosen === this.now ? null : wanted.threshold;
    this.slider.setAttribute("aria-valuetext", t("calibration.value", { threshold, missed, strangers }));
    fill(this.costs, buildTable(t("calibration.choice"), ["", t("calibration.now"), t("calibration.chosen")],
      [t("calibration.threshold"), t("calibration.missed"), count("calibration.strangers", this.state.gallery_size)].map((name, at) =>
        [name, told[0][at], h("strong", { id: ["chosen", "missed", "strangers"][at] }, told[1][at])])));
    this.verdict.textContent = t(`calibration.${chosen === this.now ? "same" : chosen > this.now ? "stricter" : "laxer"}`);
    this.use.disabled = chosen === this.now;
    for (const plot of this.plots) plot.mark(present.threshold, wanted.threshold);
  }

  /** @param {Record<string, any>} policy */
  apply(policy) {
    const { threshold, target_fmr, target_fpir } = this.state.policy;
    return this.change(async () => {
      await call("PATCH", this.place, { json: { policy } });
      before.set(session.collection, threshold === null ? { target_fmr, target_fpir } : { threshold });
    }, "calibration.applied", "#undo");
  }

  undo() {
    return this.change(async () => {
      await call("PATCH", this.place, { json: { policy: before.get(session.collection) } });
      before.delete(session.collection);
    }, "calibration.undone", "input");
  }

  /** @param {() => Promise<any>} action @param {string} told @param {string} focus What is focused then. */
  async change(action, told, focus = "#measured") {
    try {
      await action();
      this.wanted = null;
      this.state = await call("GET", this.path);
      if (this.report) await this.measure(this.report.sampled ? QUICK : MOST);
      else this.show();
      tellDone(this.trouble, told);
      /** @type {HTMLElement | null} */ (this.querySelector(focus))?.focus();
    } catch (problem) {
      fill(this.trouble, problemBox(problem));
    }
  }

  /** How alike the faces of one person are, and those of two. @param {any} measured */
  plotScores({ bins: { low, width, genuine, impostor }, ...all }) {
    const [same, others] = [[genuine, all.genuine], [impostor, all.impostor]].map(([counts, sum]) =>
      counts.flatMap((/** @type {number} */ one, /** @type {number} */ at) => [0, 1].map((edge) => [low + (at + edge) * width, one / (sum || 1)])));
    const names = [t("calibration.one"), t("calibration.others")];
    return buildPlot({
      title: t("calibration.scores"), hint: t("calibration.scores.hint"),
      x: { low, high: low + genuine.length * width, label: t("candidates.similarity"), format: (one) => formatNumber(one, 2) },
      y: { low: 0, high: Math.max(...[...same, ...others].map((one) => one[1])), format: (one) => t("share.percent", { n: formatNumber(one * 100) }) },
      series: [{ name: names[1], look: "bad", wrong: "above", points: others }, { name: names[0], look: "good", wrong: "below", points: same }],
      columns: [t("candidates.similarity"), ...names],
      rows: genuine.map((/** @type {number} */ one, /** @type {number} */ at) => ({ at: low + (at + 0.5) * width,
        cells: [formatNumber(low + at * width, 3), formatNumber(one), formatNumber(impostor[at])] })),
    });
  }

  /** @param {any[]} curve */
  plotRates(curve) {
    const lines = LINES.filter(([name]) => curve.some((one) => one[name] !== null)), columns = lines.map(([name]) => t(`calibration.rate.${name}`));
    const rates = curve.flatMap((one) => lines.map(([name]) => one[name])).filter((one) => one > 0);
    return buildPlot({
      title: t("calibration.rates"), hint: t("calibration.rates.hint"),
      x: { low: curve[0].threshold, high: curve[curve.length - 1].threshold, label: t("calibration.threshold"), format: (one) => formatNumber(one, 2) },
      y: { low: Math.min(...rates, 0.1), high: 1, isLog: true, format: formatShare },
      series: lines.map(([name, look], at) => ({ name: columns[at], look, points: curve.map((one) => [one.threshold, one[name] || null]) })),
      columns: [t("calibration.threshold"), ...columns],
      rows: curve.map((one) => ({ at: one.threshold, cells: [formatNumber(one.threshold, 3), ...lines.map(([name]) => (one[name] === null ? "–" : formatShare(one[name])))] })),
    });
  }

  /** What the figures rest on, and what the collection's own faces could decide. */
  buildMeasurement() {
    const { report, state, problem } = this, few = problem?.facts?.needed, proposed = report?.measured.proposed;
    return section("measured", t("calibration.measured"),
      report ? h("p", {}, t("calibration.own", { faces: formatNumber(report.faces), persons: formatNumber(report.persons), pairs: formatNumber(report.measured.genuine) }),
        " ", report.sampled && t("calibration.sampled", { n: formatNumber(report.gallery_size) }),
        report.measured.genuine < FEW && t("calibration.few_pairs"))
        : h("p", {}, t("calibration.published"), " ", h("span", { lang: "en", class: "hint" }, state.source)),
      problem && (few ? h("div", { class: "notice warn" }, h("strong", {}, t("calibration.few")), h("p", {}, t("calibration.few.text", { n: formatNumber(problem.facts.comparisons), needed: few })))
        : problemBox(problem)),
      h("p", {}, t(state.own ? "calibration.is_own" : "calibration.is_pack"), " ",
        proposed && !state.own && t("calibration.proposed", { threshold: formatNumber(proposed.threshold, 3), strangers: formatShare(proposed.expected_fpir) })),
      this.progress,
      actions(button(report?.sampled ? "calibration.measure_more" : "calibration.measure", () => this.measure(MOST)),
        report && button("calibration.adopt", () => this.change(() => call("POST", this.path, { json: { sample: MOST, apply: true } }), "calibration.adopted")),
        state.own && button("calibration.forget", () => this.forget(), "danger")));
  }

  async forget() {
    const question = { title: t("calibration.forget.title"), text: t("calibration.forget.text"), action: t("calibration.forget") };
    if (await confirmErasure(question)) await this.change(() => call("DELETE", this.path), "calibration.forgotten");
  }

  buildPairs() {
    const { suspicious, closest } = this.report, pairs = suspicious.length ? suspicious.slice(0, 5) : [closest], list = h("ul", { class: "rows" });
    load(list, async () => fill(list, ...await Promise.all(pairs.map(async (/** @type {any} */ pair) => {
      const [one, other] = await Promise.all([pair.first_person_id, pair.second_person_id].map(linkPerson));
      return h("li", {}, h("div", {}, h("span", {}, one, " – ", other), pair.similarity !== null && h("span", { class: "hint" },
        t("calibration.alike", { n: formatNumber(pair.similarity, 3) }), " ", t(pair.similarity < this.state.threshold ? "calibration.apart" : "calibration.confused"))));
    }))));
    return section("alike", t("calibration.pairs"), h("p", { class: "hint" }, t("calibration.pairs.hint")), list);
  }

  /** Error rates by a key of the persons' metadata. */
  buildGroups() {
    const result = h("div", {}), choose = h("select", {}), hint = h("p", { class: "hint" }, t("calibration.groups.hint"));
    const compare = button("calibration.compare", () => load(result, async () => {
      fill(result, h("progress", { "aria-label": t("calibration.measuring") }));
      const { groups, measured } = await call("POST", this.path, { json: { sample: MOST, group_by: choose.value } });
      fill(result, tableOfGroups(choose.value, groups.groups, measured.current.threshold));
    }));
    const choices = actions(h("label", {}, t("calibration.groups.key"), choose), compare);
    load(hint, async () => {
      const { items } = await call("GET", personPath(session.collection), { query: { limit: 200 } });
      const keys = new Set(items.flatMap((/** @type {any} */ { metadata }) => Object.keys(metadata).filter((key) => typeof metadata[key] === "string")));
      choose.append(...[...keys].map((key) => h("option", {}, key)));
      choices.hidden = !keys.size;
      if (!keys.size) hint.textContent = t("calibration.groups.none");
    });
    return section("groups", t("calibration.groups"), hint, choices, result);
  }
}

/** @param {string} key @param {any[]} groups @param {number} threshold */
function tableOfGroups(key, groups, threshold) {
  const rates = groups.map((one) => one.rates.find((/** @type {any} */ rate) => rate.threshold === threshold));
  const lowest = Math.log10(Math.min(0.1, ...rates.flatMap(({ fmr, fnmr }) => [fmr, fnmr]).map((rate) => rate?.low || rate?.high || 1)));
  /** @param {any} rate @param {boolean} isResolved @param {string} look Its range on a scale of powers of ten. */
  const buildRate = (rate, isResolved, look) => {
    if (!rate) return "–";
    const bar = h("span", { class: `range ${look}`, "aria-hidden": "true" });
    for (const end of ["low", "value", "high"]) bar.style.setProperty(`--${end}`, String(Math.max(0, 1 - Math.log10(rate[end] || 1e-12) / lowest)));
    return h("div", {}, h("strong", {}, formatShare(rate.value)), " ", h("small", {}, t("calibration.range", { low: formatShare(rate.low), high: formatShare(rate.high) }),
      !isResolved && ` · ${t("calibration.unresolved")}`), bar);
  };
  return buildTable(t("calibration.groups"), [key, t("calibration.groups.persons"), t("calibration.rate.fmr"), t("calibration.rate.fnmr")], groups.map((one, at) =>
    [foreign(one.name), formatNumber(one.persons), buildRate(rates[at].fmr, rates[at].fmr_resolved, "bad"), buildRate(rates[at].fnmr, rates[at].fnmr_resolved, "good")]));
}

customElements.define("vultus-calibration", Calibration);
