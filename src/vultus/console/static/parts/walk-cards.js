// A walk as a card, and any other event as a quiet line.

import { fill, foreign, h } from "./h.js";
import { nameOf } from "./verdicts.js";
import { went } from "./walks.js";
import { formatRange, formatTime, t, tryText } from "./words.js";

const LONG_AGO = 3_600_000;  // ms: who has not left by then may have been there when a server was killed

/**
 * @param {import("./walks.js").Walk} walk
 * @param {any} person As the API has them; null once they are gone, undefined while they are asked for.
 * @returns {string}
 */
export function titleOf(walk, person) {
  if (walk.person) return person === null ? t("events.gone") : person ? nameOf(person) : "…";
  if (went(walk, "spoof")) return t("verdict.not_live");
  return t(went(walk, "unknown") ? "events.unknown" : "events.somebody");
}

/** @param {HTMLElement} row @param {import("./walks.js").Walk} walk @param {any} person @param {any} source */
export function buildWalk(row, walk, person, source) {
  const title = titleOf(walk, person), isSpoof = went(walk, "spoof"), hasLeft = went(walk, "left");
  const isOpen = !hasLeft && Date.now() - Date.parse(walk.until) < LONG_AGO;
  row.className = `walk ${isSpoof ? "bad" : walk.person ? "good" : "stranger"}`;
  fill(row,
    h("span", { class: "initial", "aria-hidden": "true" }, walk.person ? [...title][0].toUpperCase() : isSpoof ? "!" : "?"),
    h("div", {},
      h("div", { class: "badges" },
        h("strong", {}, walk.person && person ? h("a", { href: `#/people/${walk.person}` }, foreign(title)) : title),
        isSpoof && walk.person && h("span", { class: "badge bad" }, t("verdict.not_live")),
        isOpen && h("span", { class: "badge good" }, t("events.there")),
        !isOpen && !hasLeft && h("span", { class: "badge" }, t("events.open_end"))),
      h("p", {}, nameOrigin(walk.isSource, source), " · ", h("time", { datetime: walk.since }, hasLeft ? formatRange(walk.since, walk.until) : formatRange(walk.since, walk.since))),
      h("p", { class: "hint" }, explain(walk, hasLeft)),
      h("ol", { class: "steps" }, [...walk.steps.values()].sort((one, other) => (one.at < other.at ? -1 : 1)).map((one) =>
        h("li", {}, h("time", { datetime: one.at }, formatTime(one.at)), " ", t(`events.step.${one.type}`))))));
}

/** @param {HTMLElement} row @param {any} event @param {any} person @param {any} source */
export function buildLine(row, { type, timestamp, data }, person, source) {
  row.className = "line";
  fill(row, h("time", { datetime: timestamp }, formatRange(timestamp, timestamp)), h("span", {}, tryText(`action.${type}`, type),
    person && [": ", h("a", { href: `#/people/${data.person_id}` }, foreign(nameOf(person)))],
    type.startsWith("source") && [": ", nameOrigin(true, source)]));
}

/** @param {boolean} isSource @param {any} source @returns {Node | string} */
function nameOrigin(isSource, source) {
  if (!isSource) return t("events.session");
  return source ? foreign(source.name ?? "…") : source === null ? t("events.source_gone") : "…";
}

/** How sure it is. @param {import("./walks.js").Walk} walk @param {boolean} hasLeft */
function explain(walk, hasLeft) {
  if (went(walk, "spoof")) return [t("events.sure.spoof")];
  if (walk.person) return [t("events.sure.person"), " ", walk.band && t(`band.${walk.band}`)];
  return [t(`events.sure.${went(walk, "unknown") ? "unknown" : hasLeft ? "too_short" : "not_yet"}`)];
}
