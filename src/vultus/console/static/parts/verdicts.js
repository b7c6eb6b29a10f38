// What was decided about a face, in words.

import { foreign, h } from "./h.js";
import { count, formatNumber, formatShare, t, tryText } from "./words.js";

const KINDS = { match: "good", ambiguous: "warn", not_live: "bad" };
const QUIET = new Set(["above_threshold", "below_threshold"]);

/** @param {any} person As a verdict names them. @returns {string} */
export function nameOf(person) {
  return person.name ?? person.external_id ?? t("people.nameless");
}

/** @param {string} verdict @returns {string} How good that is: a class of the style sheet. */
export function kindOf(verdict) {
  return KINDS[/** @type {keyof typeof KINDS} */ (verdict)] ?? "";
}

/**
 * Whom a face is said to show, or why nobody is named.
 * @param {any} face Of a recognition, or a track.
 */
export function headline(face) {
  if (face.person) return foreign(nameOf(face.person));
  return face.verdict ? t(`verdict.${face.verdict}`) : t("verdict.none");
}

/** @param {any} face */
export function explain(face) {
  const reasons = face.reasons.filter((/** @type {string} */ one) => !QUIET.has(one));
  return [
    face.band && h("p", {}, t(`band.${face.band}`)),
    reasons.length > 0 && h("ul", { class: "reasons" }, reasons.map((/** @type {string} */ one) => h("li", {}, tryText(`reason.${one}`, one)))),
  ];
}

/**
 * What the threshold means, from one face's decision.
 * @param {any} face
 */
export function thresholdWords(face) {
  return h("p", { class: "hint" },
    t("threshold.is", { threshold: formatNumber(face.threshold, 3), fmr: formatShare(face.false_match_rate) }), " ",
    count("threshold.search", face.gallery_size, { fpir: formatShare(face.false_positive_identification_rate) }));
}

/**
 * The closest persons beside the threshold; only those that reach it can be named.
 * @param {any} face
 */
export function candidateTable(face) {
  if (!face.candidates?.length) return null;
  const low = face.threshold - 1.5 * (1 - face.threshold);
  return h("table", { class: "candidates" },
    h("caption", {}, t("candidates")),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t("candidates.person")), h("th", { scope: "col" }, t("candidates.similarity")))),
    h("tbody", {}, face.candidates.map((/** @type {any} */ one) => {
      const reaches = one.similarity >= face.threshold;
      const bar = h("span", { class: "bar", "aria-hidden": "true" });
      bar.style.setProperty("--share", String(Math.min(1, Math.max(0.02, (one.similarity - low) / (1 - low)))));
      return h("tr", { class: reaches ? "" : "below" },
        h("th", { scope: "row" }, foreign(nameOf(one)), !reaches && h("small", {}, t("candidates.below"))),
        h("td", {}, h("span", { class: "score" }, formatNumber(one.similarity, 3)), bar));
    })));
}
