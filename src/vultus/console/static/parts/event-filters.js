// Which events are shown: kept in the address, after the `#`.

import { h } from "./h.js";
import { nameOf } from "./verdicts.js";
import { went } from "./walks.js";
import { listTexts, t } from "./words.js";

const KINDS = ["known", "unknown", "spoof", "source", "house"];
/** @type {Record<string, string>} */
const SEEN = { known: "appeared,recognised,left", unknown: "appeared,unknown,left", spoof: "appeared,spoof,left" };

export class EventFilter {
  wanted = new URLSearchParams(location.hash.split("?")[1]);

  /** @param {string} name */
  get(name) {
    return this.wanted.get(name) ?? "";
  }

  /** @param {string} name @param {string} value */
  set(name, value) {
    this.wanted.set(name, value);
    if (!value) this.wanted.delete(name);
    history.replaceState(null, "", `#/events${this.isEmpty ? "" : `?${this.wanted}`}`);
  }

  get isEmpty() {
    return this.wanted.size === 0;
  }

  /** As the API takes it. */
  get query() {
    const kind = this.get("kind");
    const type = SEEN[kind] ?? (kind && listTexts("action.").map(([one]) => one).filter((one) => isOfKind(one, kind)).join());
    const [since, until] = ["since", "until"].map((name) => new Date(this.get(name))).map((one) => (Number.isNaN(+one) ? "" : one.toISOString()));
    return { type, person_id: this.get("person"), origin_id: this.get("source"), since, until };
  }

  /** @param {string} moment */
  isWithin(moment) {
    const { since, until } = this.query;
    return moment >= since && (!until || moment < until);
  }

  /** @param {any} key A walk, or another event. */
  passes(key) {
    const { tracks, type, data } = key, kind = this.get("kind");
    const person = key.person ?? data?.person_id, origin = key.origin ?? data?.origin_id ?? data?.object_id;
    if (![["person", person], ["source", origin]].every(([name, is]) => ["", is].includes(this.get(name)))) return false;
    if (!kind || !tracks) return !kind || isOfKind(type, kind);
    return kind === "known" ? Boolean(person) : kind in SEEN && went(key, kind) && !(kind === "unknown" && person);
  }
}

/** @param {string} type @param {string} kind */
function isOfKind(type, kind) {
  const isSource = type.startsWith("source");
  return kind === "source" ? isSource : kind === "house" && type.includes(".") && !isSource;
}

/** @param {EventFilter} filter @param {any[]} sources @param {any[]} persons @param {() => void} onchange */
export function eventFilters(filter, sources, persons, onchange) {
  /** @param {string} name @param {any} input */
  const watch = (name, input) => {
    input.value = filter.get(name);
    input.addEventListener("change", () => { filter.set(name, input.value); onchange(); });
    return h("label", {}, t(`events.filter.${name}`), input);
  };
  /** @param {string} name @param {string[][]} options */
  const choose = (name, options) => {
    const known = new Map(/** @type {[string, string][]} */ ([[filter.get(name), "…"], ["", t("events.filter.all")], ...options]));
    return watch(name, h("select", {}, [...known].map(([value, text]) => h("option", { value }, text))));
  };
  return h("form", { class: "filters", role: "search", onsubmit: (/** @type {Event} */ event) => event.preventDefault() },
    choose("kind", KINDS.map((kind) => [kind, t(`events.kind.${kind}`)])),
    choose("source", sources.map((one) => [one.id, one.name])),
    choose("person", persons.map((one) => [one.id, nameOf(one)])),
    ["since", "until"].map((name) => watch(name, h("input", { type: "datetime-local" }))));
}
