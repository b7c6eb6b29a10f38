// Everybody who is enrolled: search, and pages of a list.

import { call, personPath } from "../parts/api.js";
import { announce } from "../parts/dialogs.js";
import { fill, foreign, h } from "../parts/h.js";
import { load } from "../parts/problem.js";
import { can, session } from "../parts/session.js";
import { count, formatDay, t } from "../parts/words.js";

const PAGE_SIZE = 30;

class People extends HTMLElement {
  search = 0;

  connectedCallback() {
    this.cursor = null;
    this.words = "";
    this.list = h("ul", { class: "people" });
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.add() }, t("people.more"));
    this.trouble = h("div", {});
    const words = h("input", { type: "search", placeholder: t("people.search"), "aria-label": t("people.search") });
    /** @type {number | undefined} */
    let pause;
    words.addEventListener("input", () => {
      clearTimeout(pause);
      pause = setTimeout(() => this.restart(words.value.trim()), 250);
    });
    fill(this,
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, t("people")),
        can("enrol") && h("a", { class: "button primary", href: "#/people/new" }, t("people.add"))),
      h("form", { role: "search", onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); this.restart(words.value.trim()); } }, words),
      this.list, this.trouble, h("div", { class: "actions" }, this.more));
    this.restart("");
  }

  /** @param {string} words */
  async restart(words) {
    Object.assign(this, { words, cursor: null });
    await this.add(true);
  }

  /** Add the next page of the list. */
  async add(anew = false) {
    const search = (this.search += 1);
    this.more.disabled = true;
    await load(this.trouble, async () => {
      const page = await this.read();
      if (search !== this.search) return;
      if (anew) fill(this.list);
      const rows = page.items.map(buildRow);
      this.list.append(...rows);
      this.cursor = page.next_cursor;
      this.more.hidden = this.cursor === null;
      const shown = this.list.children.length;
      fill(this.trouble, shown ? null : this.buildEmpty());
      if (this.words || !anew) announce(count("people.shown", shown));
      if (!anew) rows[0]?.querySelector("a").focus();
    });
    if (search === this.search) this.more.disabled = false;
  }

  /** A page by name; who has the words for an id comes first. */
  async read() {
    const path = personPath(session.collection);
    const page = await call("GET", path, { query: { name: this.words, cursor: this.cursor, limit: PAGE_SIZE } });
    if (!this.words || this.cursor) return page;
    const exact = await call("GET", path, { query: { external_id: this.words } });
    const known = new Set(exact.items.map((/** @type {any} */ one) => one.id));
    page.items = [...exact.items, ...page.items.filter((/** @type {any} */ one) => !known.has(one.id))];
    return page;
  }

  buildEmpty() {
    if (this.words) return h("div", { class: "empty" }, h("p", {}, t("people.none_found")));
    return h("div", { class: "empty" }, h("h2", {}, t("people.none")),
      h("p", {}, can("enrol") ? t("people.none.enrol") : t("people.none.read")));
  }
}

/** @param {any} person */
function buildRow(person) {
  const name = person.name ?? person.external_id;
  return h("li", {}, h("a", { href: `#/people/${person.id}` },
    h("span", { class: "initial", "aria-hidden": "true" }, [...(name ?? "?")][0].toUpperCase()),
    h("strong", {}, foreign(name ?? t("people.nameless"))),
    person.name && person.external_id && h("span", { class: "id" }, foreign(person.external_id)),
    h("span", { class: "since" }, t("people.since", { day: formatDay(person.created_at) }))));
}

customElements.define("vultus-people", People);
