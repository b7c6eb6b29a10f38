// Who was seen where, one card a walk, and what else happened; it goes on while the page is open.

import { Problem, call, personPath } from "../parts/api.js";
import { announce } from "../parts/dialogs.js";
import { EventStream } from "../parts/event-stream.js";
import { readFilter, eventFilters } from "../parts/event-filters.js";
import { fill, h } from "../parts/h.js";
import { load, problemBox } from "../parts/problem.js";
import { can, session } from "../parts/session.js";
import { Walks } from "../parts/walks.js";
import { buildLine, buildWalk, titleOf } from "../parts/walk-cards.js";
import { t } from "../parts/words.js";

const PAGE_SIZE = 100;
const FEW = 15;        // on show, before older ones are asked for
const MAX_ROWS = 600;  // then the page begins anew

class Events extends HTMLElement {
  walks = new Walks();
  /** @type {Map<any, HTMLElement>} By a walk, or by an event that belongs to none. */
  rows = new Map();
  /** @type {Map<string, any>} Persons and sources by their paths; null once they are gone. */
  known = new Map();
  /** @type {EventStream | null} */
  stream = null;
  turn = 0;

  async connectedCallback() {
    this.filter = readFilter(location.hash);
    this.list = h("ol", { class: "events" });
    this.trouble = h("div", {});
    this.state = h("span", { class: "badge", role: "status" });
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.add(this.turn) }, t("events.older"));
    const filters = h("details", { open: innerWidth > 760 || !this.filter.isEmpty }, h("summary", {}, t("events.filters")));
    fill(this, h("div", { class: "head" }, h("h1", { tabindex: "-1" }, t("events")), this.state), filters, this.trouble, this.list, h("div", { class: "actions" }, this.more));
    this.restart();
    const [sources, persons] = await Promise.all(["sources", personPath(session.collection)].map((path) => call("GET", path, { query: { limit: 500 } }).then((page) => page.items, () => [])));
    filters.append(eventFilters(this.filter, sources, persons, () => this.restart()));
  }

  disconnectedCallback() {
    this.turn += 1;
    this.stream?.stop();
  }

  async restart() {
    this.stream?.stop();
    this.walks = new Walks();
    this.rows.clear();
    fill(this.list);
    this.cursor = null;
    this.turn += 1;
    const position = await this.add(this.turn);
    if (position !== undefined) this.follow(position);
  }

  /**
   * Show older events, and return where the first of them begin: from there on others follow.
   * @param {number} turn
   */
  async add(turn) {
    const before = this.countShown();
    this.more.disabled = true;
    const position = await load(this.trouble, async () => {
      let first;
      do {
        const page = await call("GET", "events", { query: { collection: session.collection, newest_first: true, limit: PAGE_SIZE, cursor: this.cursor, ...this.filter?.query } });
        if (turn !== this.turn) return;
        first ??= page.last_cursor;
        page.items.forEach((/** @type {any} */ one) => this.take(one, false));
        this.cursor = page.next_cursor;
      } while (this.cursor && this.countShown() < before + FEW);
      this.more.hidden = !this.cursor;
      this.showEmpty();
      return first;
    });
    this.more.disabled = false;
    return position;
  }

  /** @param {string} position */
  follow(position) {
    this.stream = new EventStream(session.collection, position, {
      receive: (event) => this.take(event, true),
      say: (isOpen) => {
        this.state.textContent = t(isOpen ? "events.follows" : "events.broken");
        this.state.className = `badge ${isOpen ? "good" : "warn"}`;
      },
      end: (problem) => (problem.code === "events_expired" ? this.restart() : fill(this.trouble, problemBox(problem))),
    });
    this.stream.follow();
  }

  /** @param {any} event @param {boolean} isNew Else it is older than all before. */
  take(event, isNew) {
    const { type, data } = event;
    if (type === "person.erased") this.forget(data.person_id);
    else if (isNew && type.startsWith("person.")) this.known.delete(this.pathOf(data.person_id));
    if (isNew && type.startsWith("source.")) this.known.delete(`sources/${data.object_id}`);
    if (isNew && !this.filter?.isWithin(event.timestamp)) return;
    if (!data.track_id) return this.place(event, isNew);
    const { walk, joined } = this.walks.add(event);
    joined.forEach((one) => this.drop(one));
    this.place(walk, isNew);
    if (!isNew) return;
    if (["recognised", "unknown", "spoof"].includes(type) && this.filter?.passes(walk)) announce(titleOf(walk, this.look(this.pathOf(walk.person))));
    if (this.rows.size > MAX_ROWS && scrollY < innerHeight) this.restart();
  }

  /** @param {any} key @param {boolean} isNew */
  place(key, isNew) {
    if (!this.rows.has(key)) {
      const row = h("li", {});
      this.rows.set(key, row);
      if (isNew) this.list.prepend(row);
      else this.list.append(row);
    }
    this.render(key);
    if (isNew) this.showEmpty();
  }

  /** @param {any} key */
  render(key) {
    const row = this.rows.get(key);
    if (!row) return;
    const isFocused = row.contains(document.activeElement);
    const person = this.look(this.pathOf(key.person ?? key.data?.person_id));
    const origin = key.isSource || key.type?.startsWith("source") ? this.look(originOf(key)) : undefined;
    if (key.tracks) buildWalk(row, key, person, origin);
    else buildLine(row, key, person, origin);
    row.hidden = !this.filter?.passes(key);
    if (isFocused) row.querySelector("a")?.focus();
  }

  /** What is known of a person or source; it is asked for at first. @param {string} path */
  look(path) {
    if (path && !this.known.has(path)) {
      this.known.set(path, undefined);
      call("GET", path).catch((error) => (error instanceof Problem && error.code === "not_found" ? null : {})).then((found) => {
        this.known.set(path, found);
        for (const key of this.rows.keys()) {
          if ([this.pathOf(key.person ?? key.data?.person_id), originOf(key)].includes(path)) this.render(key);
        }
      });
    }
    return this.known.get(path);
  }

  /** @param {string | null | undefined} person */
  pathOf(person) {
    return person ? personPath(session.collection, person) : "";
  }

  /** @param {string} person Who was erased: nothing of them stays on show. */
  forget(person) {
    this.known.set(this.pathOf(person), null);
    for (const walk of this.walks.all) if (walk.person === person) this.drop(walk);
    for (const key of this.rows.keys()) if (key.data?.person_id === person) this.render(key);
    this.showEmpty();
  }

  /** @param {any} walk */
  drop(walk) {
    this.rows.get(walk)?.remove();
    this.rows.delete(walk);
    this.walks.remove(walk);
  }

  countShown() {
    return [...this.rows.values()].filter((row) => !row.hidden).length;
  }

  showEmpty() {
    const isFiltered = !this.filter?.isEmpty;
    if (isFiltered ? this.countShown() : this.walks.byTrack.size) return this.trouble.querySelector(".empty")?.remove();
    fill(this.trouble, h("div", { class: "empty" }, h("h2", {}, t(isFiltered ? "events.none_found" : "events.none")),
      h("p", {}, t(isFiltered ? "events.none_found.text" : "events.none.text")),
      !isFiltered && h("p", {}, can("configure") && h("a", { href: "#/cameras" }, t("cameras.add")), " ", can("live") && h("a", { href: "#/live" }, t("live.start")))));
  }
}

/** @param {any} key */
function originOf({ origin, data }) {
  return `sources/${origin ?? data.origin_id ?? data.object_id}`;
}

customElements.define("vultus-events", Events);
