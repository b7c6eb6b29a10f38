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
  if (walk.person) return person ? nameOf(person) : person === null ? t("events.gone") : "…";
  return t(went(walk, "spoof") ? "verdict.not_live" : went(walk, "unknown") ? "events.unknown" : "events.somebody");
}

/** @param {HTMLElement} row @param {import("./walks.js").Walk} walk @param {any} person @param {any} source */
export function buildWalk(row, walk, person, source) {
  const title = titleOf(walk, person), isSpoof = went(walk, "spoof"), hasLeft = went(walk, "left");
  const isThere = Date.now() - Date.parse(walk.until) < LONG_AGO;
  row.className = `walk ${isSpoof ? "bad" : walk.person ? "good" : "stranger"}`;
  fill(row,
    h("span", { class: "initial", "aria-hidden": "true" }, walk.person ? [...title][0].toUpperCase() : isSpoof ? "!" : "?"),
    h("div", {},
      h("div", { class: "badges" },
        h("strong", {}, person ? h("a", { href: `#/people/${walk.person}` }, foreign(title)) : title),
        isSpoof && walk.person && h("span", { class: "badge bad" }, t("verdict.not_live")),
        !hasLeft && h("span", { class: `badge ${isThere ? "good" : ""}` }, t(isThere ? "events.there" : "events.open_end"))),
      h("p", {}, nameOrigin(walk.isSource, source), " · ", formatRange(walk.since, hasLeft ? walk.until : walk.since)),
      h("p", { class: "hint" }, explain(walk, hasLeft)),
      h("ol", { class: "steps" }, [...walk.steps.values()].sort((one, other) => (one.at < other.at ? -1 : 1)).map((one) =>
        h("li", {}, h("time", {}, formatTime(one.at)), " ", t(`events.step.${one.type}`))))));
}

/** @param {HTMLElement} row @param {any} event @param {any} person @param {any} source */
export function buildLine(row, { type, timestamp, data }, person, source) {
  row.className = "line";
  fill(row, h("time", {}, formatRange(timestamp, timestamp)), h("span", {}, tryText(`action.${type}`, type),
    person && [": ", h("a", { href: `#/people/${data.person_id}` }, foreign(nameOf(person)))],
    type.startsWith("source") && [": ", nameOrigin(true, source)]));
}

/** @param {boolean} isSource @param {any} source @returns {Node | string} */
function nameOrigin(isSource, source) {
  if (!isSource) return t("events.session");
  return source === null ? t("events.source_gone") : foreign(source?.name ?? "…");
}

/** How sure it is. @param {import("./walks.js").Walk} walk @param {boolean} hasLeft */
function explain(walk, hasLeft) {
  if (walk.person && !went(walk, "spoof")) return [t("events.sure.person"), " ", walk.band && t(`band.${walk.band}`)];
  return [t(`events.sure.${["spoof", "unknown"].find((one) => went(walk, one)) ?? (hasLeft ? "too_short" : "not_yet")}`)];
}
