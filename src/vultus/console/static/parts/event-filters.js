// Which events are shown: kept in the address, after the `#`.

import { h } from "./h.js";
import { nameOf } from "./verdicts.js";
import { went } from "./walks.js";
import { listTexts, t } from "./words.js";

const KINDS = ["known", "unknown", "spoof", "source", "house"];
const SEEN = { known: "appeared,recognised,left", unknown: "appeared,unknown,left", spoof: "appeared,spoof,left" };

/** @param {string} hash Of the address. */
export function readFilter(hash) {
  return new EventFilter(new URLSearchParams(hash.split("?")[1]));
}

class EventFilter {
  /** @param {URLSearchParams} wanted */
  constructor(wanted) {
    this.wanted = wanted;
  }

  /** @param {string} name */
  get(name) {
    return this.wanted.get(name) ?? "";
  }

  /** @param {string} name @param {string} value */
  set(name, value) {
    if (value) this.wanted.set(name, value);
    else this.wanted.delete(name);
    history.replaceState(null, "", `#/events${this.isEmpty ? "" : `?${this.wanted}`}`);
  }

  get isEmpty() {
    return !this.wanted.toString();
  }

  /** As the API takes it. */
  get query() {
    const kind = this.get("kind"), isSeen = kind in SEEN;
    const type = isSeen ? SEEN[/** @type {keyof typeof SEEN} */ (kind)] : kind && listTexts("action.").map(([one]) => one).filter((one) => isOfKind(one, kind)).join();
    return { type, person_id: this.get("person"), origin_id: this.get("source"), since: toMoment(this.get("since")), until: toMoment(this.get("until")) };
  }

  /** @param {string} moment */
  isWithin(moment) {
    const { since, until } = this.query;
    return (!since || moment >= since) && (!until || moment < until);
  }

  /** @param {any} key A walk, or another event. */
  passes(key) {
    const { tracks, person, origin, type, data } = key, kind = this.get("kind");
    const isOfKindWanted = !tracks ? isOfKind(type, kind) : kind === "known" ? person : kind === "unknown" ? !person && went(key, "unknown") : kind === "spoof" ? went(key, "spoof") : false;
    return [[this.get("person"), person ?? data?.person_id], [this.get("source"), origin ?? data?.origin_id ?? data?.object_id]]
      .every(([wanted, is]) => !wanted || wanted === is) && (!kind || Boolean(isOfKindWanted));
  }
}

/** @param {string} type @param {string} kind */
function isOfKind(type, kind) {
  return kind === "source" ? type.startsWith("source") : kind === "house" && type.includes(".") && !type.startsWith("source");
}

/** @param {string} local @returns {string} */
function toMoment(local) {
  const moment = new Date(local);
  return local && !Number.isNaN(moment.getTime()) ? moment.toISOString() : "";
}

/** @param {EventFilter} filter @param {any[]} sources @param {any[]} persons @param {() => void} onchange */
export function eventFilters(filter, sources, persons, onchange) {
  /** @param {string} name @param {any} input */
  const watch = (name, input) => {
    input.value = filter.get(name);
    input.addEventListener("change", () => { filter.set(name, input.value); onchange(); });
    return h("label", {}, t(`events.filter.${name}`), input);
  };
  /** @param {string} name @param {[string, string][]} options */
  const choose = (name, options) => {
    const known = new Map([["", t("events.filter.all")], ...options]), wanted = filter.get(name);
    if (!known.has(wanted)) known.set(wanted, "…");
    return watch(name, h("select", {}, [...known].map(([value, text]) => h("option", { value }, text))));
  };
  return h("form", { class: "filters", role: "search", onsubmit: (/** @type {Event} */ event) => event.preventDefault() },
    choose("kind", KINDS.map((kind) => [kind, t(`events.kind.${kind}`)])),
    choose("source", sources.map((one) => [one.id, one.name])),
    choose("person", persons.map((one) => [one.id, nameOf(one)])),
    ["since", "until"].map((name) => watch(name, h("input", { type: "datetime-local" }))));
}
