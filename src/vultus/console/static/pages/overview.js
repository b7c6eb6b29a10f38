// What runs, with which networks, and what needs attention.

import { call } from "../parts/api.js";
import { fill, foreign, h } from "../parts/h.js";
import { load, problemBox } from "../parts/problem.js";
import { can, session } from "../parts/session.js";
import "../parts/throughput.js";
import { count, formatMoment, formatNumber, formatShare, t } from "../parts/words.js";

class Overview extends HTMLElement {
  connectedCallback() {
    load(this, () => this.show());
  }

  async show() {
    const health = await call("GET", "health/ready").catch((problem) => problem);
    const mayRead = can("recognize") && !(health instanceof Error);
    const [version, models, collection] = mayRead ? await Promise.all([
      call("GET", "version"), readModels(), call("GET", `collections/${encodeURIComponent(session.collection)}`).catch(() => null),
    ]) : [null, [], null];
    if (!this.isConnected) return;
    const needs = health instanceof Error ? [] : listNeeds(health, models, collection);
    fill(this,
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, t("overview")), version && h("span", { class: "badge" }, `Vultus ${version.version}`)),
      health instanceof Error ? problemBox(health)
        : needs.length ? h("div", { class: "notice warn" }, h("strong", {}, count("overview.needs", needs.length)), h("ul", {}, needs.map((one) => h("li", {}, one))))
          : h("div", { class: "notice good" }, h("strong", {}, t("overview.well"))),
      collection && h("ul", { class: "numbers" },
        buildNumber(collection.persons, count("overview.persons", collection.persons), can("read") ? "#/people" : null),
        buildNumber(collection.faces, count("overview.faces", collection.faces), null),
        collection.retention_days !== null && buildNumber(collection.retention_days, t("overview.retention"), null)),
      can("configure") && session.key.collections === null && h("vultus-throughput"),
      models.map((/** @type {any} */ one) => buildModel(one, collection)),
      !(health instanceof Error) && buildJobs(health.jobs));
    this.querySelector("h1")?.focus();
  }
}

async function readModels() {
  return (await call("GET", "models")).items;
}

/** @param {any} health @param {any[]} models @param {any} collection @returns {(string | Node)[]} */
function listNeeds(health, models, collection) {
  const used = models.filter((one) => collection && [collection.contract_id, collection.second_contract_id].includes(one.contract_id));
  return [
    ...health.jobs.filter((/** @type {any} */ one) => one.is_overdue).map((/** @type {any} */ one) => t("overview.job_overdue", { name: one.name })),
    ...health.unserved.map((/** @type {any} */ one) => h("span", {}, count("overview.unserved", one.collections), " ", foreign(one.remedy))),
    ...used.filter((one) => !one.commercial_use).map((one) => t("overview.not_commercial", { pack: one.pack })),
    ...used.filter((one) => one.caution).map((one) => h("span", { lang: "en" }, `${one.pack}: `, one.caution)),
    ...(collection?.second_contract_id ? [t("overview.migrating")] : []),
  ];
}

/** @param {number} number @param {string} words @param {string | null} address */
function buildNumber(number, words, address) {
  const shown = [h("strong", {}, formatNumber(number)), h("span", {}, words)];
  return h("li", {}, address ? h("a", { href: address }, shown) : shown);
}

/** @param {any} model @param {any} collection */
function buildModel(model, collection) {
  return h("section", { "aria-label": model.pack },
    h("div", { class: "head" }, h("h2", {}, model.pack), h("div", { class: "badges" },
      collection?.contract_id === model.contract_id && h("span", { class: "badge" }, t("overview.in_use")),
      h("span", { class: `badge ${model.commercial_use ? "good" : "warn"}` }, t(model.commercial_use ? "overview.commercial" : "overview.research")))),
    h("dl", { class: "facts plain" },
      Object.entries(model.licences).map(([name, licence]) => [h("dt", {}, name), h("dd", {}, `${licence} · ${model.papers[name] ?? ""}`)]).flat(),
      h("dt", {}, t("overview.runtime")), h("dd", {}, [...new Set(Object.values(model.runtime))].join("; "))),
    h("details", {}, h("summary", {}, t("overview.measured")), h("p", { class: "hint", lang: "en" }, model.calibration_source),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("overview.measured") }, h("table", {},
        h("thead", {}, h("tr", {}, ["threshold", "fmr", "worst", "anybody"].map((name) => h("th", { scope: "col" }, t(`overview.column.${name}`))))),
        h("tbody", {}, model.operating_points.map((/** @type {any} */ one) => h("tr", {},
          h("th", { scope: "row" }, formatNumber(one.threshold, 3)), h("td", {}, formatShare(one.false_match_rate)),
          h("td", {}, one.worst_group_false_match_rate === null ? "–" : formatShare(one.worst_group_false_match_rate)),
          h("td", {}, formatShare(one.anybody_false_match_rate)))))))));
}

/** @param {any[]} jobs */
function buildJobs(jobs) {
  return jobs.length > 0 && h("section", {}, h("details", {}, h("summary", {}, t("overview.jobs")),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("overview.jobs") }, h("table", {},
      h("thead", {}, h("tr", {}, ["job", "last", "state"].map((name) => h("th", { scope: "col" }, t(`overview.column.${name}`))))),
      h("tbody", {}, jobs.map((one) => h("tr", {}, h("th", { scope: "row" }, one.name),
        h("td", {}, one.last_success_at ? formatMoment(one.last_success_at) : "–"),
        h("td", {}, h("span", { class: `badge ${one.is_overdue ? "bad" : "good"}` }, t(one.is_overdue ? "overview.overdue" : "overview.fine"))))))))));
}

customElements.define("vultus-overview", Overview);
