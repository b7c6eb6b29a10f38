// Who was seen where, one card a walk, and what else happened; it goes on while the page is open.

import { Problem, call, personPath } from "../parts/api.js";
import { button, emptyBox, pageHead } from "../parts/controls.js";
import { announce } from "../parts/dialogs.js";
import { EventFilter, eventFilters } from "../parts/event-filters.js";
import { followEvents } from "../parts/event-stream.js";
import { fill, h } from "../parts/h.js";
import { load, problemBox } from "../parts/problem.js";
import { can, session } from "../parts/session.js";
import { buildLine, buildWalk, titleOf } from "../parts/walk-cards.js";
import { Walks } from "../parts/walks.js";
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
  filter = new EventFilter();
  turn = 0;
  stop = () => {};

  async connectedCallback() {
    this.list = h("ol", { class: "events" });
    this.trouble = h("div", {});
    this.state = h("span", { class: "badge", role: "status" });
    this.more = button("events.older", () => this.add(this.turn));
    this.more.hidden = true;
    const filters = h("details", { open: !this.filter.isEmpty }, h("summary", {}, t("events.filters")));
    fill(this, pageHead("events", this.state), filters, this.trouble, this.list, h("div", { class: "actions" }, this.more));
    this.restart();
    const [sources, persons] = await Promise.all(["sources", personPath(session.collection)].map((path) => call("GET", path, { query: { limit: 500 } }).then((page) => page.items, () => [])));
    filters.append(eventFilters(this.filter, sources, persons, () => this.restart()));
  }

  disconnectedCallback() {
    this.turn += 1;
    this.stop();
  }

  async restart() {
    this.stop();
    this.walks = new Walks();
    this.rows.clear();
    fill(this.list);
    this.cursor = null;
    await this.add(this.turn += 1);
  }

  /** @param {string} position */
  follow(position) {
    this.stop();
    this.stop = followEvents(session.collection, position, {
      receive: (event) => this.take(event, true),
      say: (isOpen) => {
        this.state.textContent = t(isOpen ? "events.follows" : "events.broken");
        this.state.className = `badge ${isOpen ? "good" : "warn"}`;
      },
      end: (problem) => {
        fill(this.state);
        this.state.className = "badge";
        if (problem.code === "events_expired") this.restart();
        else fill(this.trouble, problemBox(problem));
      },
    });
  }

  /** Show older events; from where the first of them begin others follow. @param {number} turn */
  async add(turn) {
    const enough = this.countShown() + FEW;
    this.more.disabled = true;
    await load(this.trouble, async () => {
      do {
        const query = { collection: session.collection, newest_first: true, limit: PAGE_SIZE, cursor: this.cursor, ...this.filter.query };
        const page = await call("GET", "events", { query });
        if (turn !== this.turn) return;
        page.items.forEach((/** @type {any} */ one) => this.take(one, false));
        if (!this.cursor) this.follow(page.last_cursor);
        this.cursor = page.next_cursor;
      } while (this.cursor && this.countShown() < enough);
      this.showEmpty();
      this.more.hidden = !this.cursor;
    });
    this.more.disabled = false;
  }

  /** @param {any} event @param {boolean} isNew Else it is older than all before. */
  take(event, isNew) {
    const { type, data } = event;
    if (isNew && type === "collection.deleted") return this.restart();
    if (type === "person.erased") this.forget(data.person_id);
    else if (isNew) [this.pathOf(data.person_id), `sources/${data.object_id}`].forEach((path) => type.includes(".") && this.known.delete(path));
    if (isNew && !this.filter.isWithin(event.timestamp)) return;
    const { walk = event, joined = [] } = data.track_id ? this.walks.add(event) : {};
    joined.forEach((one) => this.drop(one));
    if (!this.rows.has(walk)) {
      this.rows.set(walk, h("li", {}));
      this.list[isNew ? "prepend" : "append"](this.rows.get(walk));
    }
    walk.isNews = isNew && ["recognised", "unknown", "spoof"].includes(type);
    this.render(walk);
    if (!isNew) return;
    this.showEmpty();
    if (this.rows.size > MAX_ROWS && scrollY < innerHeight) this.restart();
  }

  /** @param {any} key */
  render(key) {
    const row = this.rows.get(key), [person, origin] = this.pathsOf(key).map((path) => this.look(path));
    if (!row) return;
    const isFocused = row.contains(document.activeElement);
    (key.tracks ? buildWalk : buildLine)(row, key, person, origin);
    if (isFocused) row.querySelector("a")?.focus();
    row.hidden = !this.filter.passes(key);
    if (!key.isNews || row.hidden || (key.person && person === undefined)) return;
    key.isNews = false;
    announce(titleOf(key, person));
  }

  /** Of the person and the source that a walk or another event is about. @param {any} key */
  pathsOf({ person, origin, isSource, type, data }) {
    return [this.pathOf(person ?? data?.person_id), isSource || type?.startsWith("source") ? `sources/${origin ?? data.origin_id ?? data.object_id}` : ""];
  }

  /** What is known of a person or source; it is asked for at first. @param {string} path */
  look(path) {
    if (path && !this.known.has(path)) {
      this.known.set(path, undefined);
      call("GET", path).catch((error) => (error instanceof Problem && error.code === "not_found" ? null : {})).then((found) => {
        this.known.set(path, found);
        for (const key of this.rows.keys()) if (this.pathsOf(key).includes(path)) this.render(key);
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
    for (const key of this.rows.keys()) {
      if (key.person === person) this.drop(key);
      else if (key.data?.person_id === person) this.render(key);
    }
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
    const { isEmpty } = this.filter;
    fill(this.trouble, (isEmpty ? this.walks.byTrack.size : this.countShown()) === 0 && emptyBox(isEmpty ? "events.none" : "events.none_found", isEmpty ? "events.none.text" : "events.none_found.text",
      isEmpty && h("p", {}, can("configure") && h("a", { href: "#/cameras" }, t("cameras.add")), " ", can("live") && h("a", { href: "#/live" }, t("live.start")))));
  }
}

customElements.define("vultus-events", Events);
