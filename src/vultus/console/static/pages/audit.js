// Who changed what, and when.

import { call, listAll } from "../parts/api.js";
import { actions, button, pageHead } from "../parts/controls.js";
import { announce } from "../parts/dialogs.js";
import { saveFile } from "../parts/download.js";
import { fill, foreign, h } from "../parts/h.js";
import { namePermissions } from "../parts/permissions.js";
import { load } from "../parts/problem.js";
import { nameRule, nameValue } from "../parts/rules.js";
import { can, nameCollection, session } from "../parts/session.js";
import { count, formatMoment, listTexts, t, tryText } from "../parts/words.js";

const PAGE_SIZE = 50;
const COLUMNS = ["at", "who", "actor", "action", "collection_id", "person_id", "object_id", "request_id", "detail"];

class Audit extends HTMLElement {
  search = 0;
  /** @type {string | null} */
  cursor = null;
  /** @type {Map<string, string>} Names of keys, by actor. */
  names = new Map();

  async connectedCallback() {
    /** @param {string} name @param {string[][]} options */
    const choice = (name, options) => h("select", { name }, h("option", { value: "" }, t("audit.any")), options.map(([value, text]) => h("option", { value }, text)));
    this.actors = choice("actor", ["cli", "setup", "sweep", "ledger", "source", "webhooks"].map((one) => [one, t(`actor.${one}`)]));
    this.form = h("form", { class: "fields", onchange: () => this.restart(), onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); this.restart(); } },
      h("label", {}, t("audit.since"), h("input", { type: "date", name: "since" })),
      h("label", {}, t("audit.until"), h("input", { type: "date", name: "until" })),
      h("label", {}, t("audit.who"), this.actors),
      h("label", {}, t("audit.action"), choice("action", listTexts("action.").filter(([name]) => name.includes(".")))),
      h("label", {}, t("collection"), choice("collection_id", session.collections.filter((one) => one.id).map((one) => [one.id, one.name]))),
      h("label", {}, t("audit.person"), h("input", { name: "person_id", value: this.getAttribute("part"), spellcheck: "false", autocomplete: "off" })));
    this.list = h("ol", { class: "rows entries" });
    this.trouble = h("div", {});
    this.more = button("people.more", () => this.add());
    this.more.hidden = true;
    fill(this,
      pageHead("audit", actions(button("audit.json", () => this.export(true)), button("audit.csv", () => this.export(false)))),
      h("p", { class: "hint" }, t("audit.text")),
      h("section", { "aria-label": t("audit.filter") }, this.form),
      h("section", { "aria-label": t("audit") }, this.list, this.trouble, actions(this.more)));
    if (can("keys")) await load(this.trouble, async () => (await listAll("keys")).forEach((one) => this.addActor(`key:${one.id}`, one.name)));
    await this.restart();
  }

  /** @param {string} actor @param {string} [name] */
  addActor(actor, name) {
    if (name) this.names.set(actor, name);
    if (![...this.actors.options].some((one) => one.value === actor)) this.actors.append(h("option", { value: actor }, this.nameActor(actor)));
  }

  /** @param {string} actor Of the API: a key, or a part of the program. */
  nameActor(actor) {
    if (!actor.startsWith("key:")) return tryText(`actor.${actor}`, actor);
    return t("audit.key", { name: this.names.get(actor) ?? t("audit.unnamed"), id: actor.slice(-6) });
  }

  listFilters() {
    /** @type {Record<string, any>} */
    const query = Object.fromEntries(new FormData(this.form));
    if (query.since) query.since = new Date(`${query.since}T00:00`).toISOString();
    if (query.until) query.until = new Date(new Date(`${query.until}T00:00`).setHours(24)).toISOString(); // with that day
    return { ...query, person_id: query.person_id.trim(), newest_first: true };
  }

  async restart() {
    this.cursor = null;
    await this.add(true);
  }

  async add(anew = false) {
    const search = (this.search += 1);
    this.more.disabled = true;
    await load(this.trouble, async () => {
      const page = await call("GET", "audit", { query: { ...this.listFilters(), cursor: this.cursor, limit: PAGE_SIZE } });
      if (search !== this.search) return;
      if (anew) fill(this.list);
      for (const entry of page.items) this.addActor(entry.actor);
      const rows = page.items.map((/** @type {any} */ one) => this.buildEntry(one));
      this.list.append(...rows);
      this.cursor = page.next_cursor;
      this.more.hidden = this.cursor === null;
      const shown = this.list.children.length;
      fill(this.trouble, shown === 0 && h("p", { class: "empty" }, t("audit.none")));
      announce(count("audit.shown", shown));
      if (!anew) rows[0]?.focus();
    });
    if (search === this.search) this.more.disabled = false;
  }

  /** @param {any} entry */
  buildEntry(entry) {
    const collection = entry.collection_id && nameCollection(entry.collection_id);
    const lines = listDetails(entry.detail);
    return h("li", { tabindex: "-1" }, h("div", {},
      h("strong", {}, tryText(`action.${entry.action}`, entry.action)),
      h("span", {}, formatMoment(entry.at), " · ", foreign(this.nameActor(entry.actor))),
      lines.length > 0 && h("ul", { class: "changes" }, lines.map(([name, value]) => h("li", {}, h("span", {}, name), " ", h("bdi", {}, value)))),
      h("span", { class: "hint" },
        collection && [t("collection"), " ", foreign(collection), " · "],
        entry.person_id && [h(can("read") && collection === session.collection ? "a" : "span", { href: `#/people/${entry.person_id}` }, t("audit.person_short", { id: entry.person_id.slice(-6) })), " · "],
        t("audit.request"), " ", h("code", {}, entry.request_id ?? "–"))));
  }

  /** @param {boolean} isJson Everything that passes the filters, not only what is shown. */
  async export(isJson) {
    await load(this.trouble, async () => {
      const entries = await listAll("audit", this.listFilters());
      if (isJson) return saveFile("audit.json", JSON.stringify(entries, null, 2), "application/json");
      const rows = entries.map((one) => COLUMNS.map((name) => quote(name === "who" ? this.nameActor(one.actor) : one[name])).join(","));
      saveFile("audit.csv", `${[COLUMNS.join(","), ...rows].join("\r\n")}\r\n`, "text/csv");
    });
  }
}

/** @param {any} value As a cell, which no spreadsheet takes for a formula. */
function quote(value) {
  const text = typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "");
  return `"${text.replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
}

/** @param {any} detail @returns {[string, string][]} What a reader understands; all of it is in the files. */
function listDetails({ changes = {}, fields = [], permissions, points: _, ...others }) {
  /** @type {[string, string][]} */
  const lines = Object.entries(changes).map(([name, { from, to }]) => [nameRule(name), t("audit.change", { from: nameValue(from), to: nameValue(to) })]);
  const unvalued = fields.filter((/** @type {string} */ name) => !(name in changes));
  if (unvalued.length) lines.push([t("detail.fields"), unvalued.map(nameRule).join(", ")]);
  if (permissions) lines.push([t("detail.permissions"), namePermissions(permissions)]);
  for (const [name, value] of Object.entries(others)) {
    if (value !== null) lines.push([tryText(`detail.${name}`, nameRule(name)), nameValue(name === "collections" ? value.map(nameCollection) : value)]);
  }
  return lines;
}

customElements.define("vultus-audit", Audit);
