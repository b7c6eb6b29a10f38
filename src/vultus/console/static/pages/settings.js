// The settings of a collection: what each rule does, its default and range, and what a change costs.

import { call, Problem } from "../parts/api.js";
import { createCollection, deleteCollection, showCollections } from "../parts/collections.js";
import { actions, button } from "../parts/controls.js";
import { confirmErasure, confirmLeaving } from "../parts/dialogs.js";
import { fill, foreign, h } from "../parts/h.js";
import { load, problemBox } from "../parts/problem.js";
import { flatten, nameRule, nameValue, nest, readLimits } from "../parts/rules.js";
import { session } from "../parts/session.js";
import { count, formatShare, t } from "../parts/words.js";

const GROUPS = ["decision", "enrol", "recognize", "tracks", "kept", "collection"];
const KEPT = ["retention_days", "unseen_days", "policy.record_searches", "policy.keep_crops"];
const TARGETS = ["policy.target_fmr", "policy.target_fpir"];

class Settings extends HTMLElement {
  /** @type {Record<string, any>} As the server has it, by path. */
  base = {};
  /** @type {Record<string, any>} Of a new collection with the same network, by path. */
  defaults = {};
  /** @type {Record<string, any>} Inputs, by path. */
  inputs = {};
  /** @type {(path: string) => any} */
  limits = () => ({});
  path = "";

  async connectedCallback() {
    await load(this, async () => {
      const [collection, models, limits] = await Promise.all([call("GET", `collections/${encodeURIComponent(session.collection)}`), call("GET", "models"), readLimits()]);
      if (!this.isConnected) return;
      this.path = `collections/${collection.id}`;
      this.base = flatten(collection);
      const policy = models.items.find((/** @type {any} */ one) => one.contract_id === collection.contract_id)?.default_policy;
      this.defaults = policy ? flatten({ policy, retention_days: null, unseen_days: null, search: "auto" }) : {};
      this.limits = limits;
      this.trouble = h("div", {});
      this.heading = foreign(collection.name);
      this.bar = h("div", { class: "actions save", hidden: true });
      const mayAll = session.key.collections === null;
      const paths = [...new Set([...TARGETS, ...Object.keys(this.base)])].filter((one) => mayAll || one !== "name");
      fill(this,
        h("div", { class: "head" }, h("h1", { tabindex: "-1" }, t("settings"), " · ", this.heading), actions(
          mayAll && button("settings.create", () => load(this.trouble, async () => (!this.isDirty || await confirmLeaving()) && await createCollection(this, models.items) && this.connectedCallback())),
          button("settings.delete", () => this.delete(), "danger"))),
        h("p", { class: "hint" }, t("settings.text")),
        this.trouble,
        h("form", { novalidate: true, oninput: (/** @type {any} */ event) => this.mark(event.target), onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); this.save(this.listChanges()); } },
          GROUPS.map((group, at) => h("section", {}, h("details", { open: at === 0 }, h("summary", {}, t(`rules.${group}`)),
            h("div", { class: "rules" }, paths.filter((one) => findGroup(one) === group).map((one) => this.buildRule(one)))))),
          this.bar));
      this.mark();
      this.querySelector("h1")?.focus();
    });
  }

  get isDirty() {
    return Object.keys(this.listChanges()).length > 0;
  }

  async delete() {
    await load(this.trouble, async () => {
      if (!await deleteCollection(this, this.path)) return;
      this.inputs = {};
      if (this.isConnected) location.hash = "#/overview";
    });
  }

  /** @param {string} path */
  buildRule(path) {
    const limits = this.limits(path), value = this.base[path], name = path.split(".").pop() ?? "", id = path.replaceAll(".", "-");
    const input = this.inputs[path] = limits.type === "boolean" ? h("input", { type: "checkbox" })
      : limits.enum ? h("select", {}, [...new Set([...limits.enum, value])].map((one) => h("option", { value: one }, nameValue(one))))
        : h("input", { type: limits.type === "string" ? "text" : "number", step: "any", min: limits.minimum, max: limits.maximum });
    Object.assign(input, { id, path, limits });
    input.setAttribute("aria-describedby", `${id}-wrong ${id}-why`);
    write(input, value);
    const standard = this.defaults[path], hasStandard = path in this.defaults;
    return h("div", { class: limits.type === "boolean" ? "rule check" : "rule" },
      h("label", { for: id }, nameRule(name)), h("span", { class: "badge warn", hidden: true }, t("settings.changed")), input,
      h("p", { class: "hint", id: `${id}-why` }, t(`why.${name}`),
        limits.type !== "string" && limits.type !== "boolean" && [" ", t("settings.range", { from: nameValue(limits.minimum ?? limits.exclusiveMinimum), to: nameValue(limits.maximum ?? limits.exclusiveMaximum) })],
        hasStandard && [" ", t(name.startsWith("target_") ? "settings.default_share" : "settings.default", { value: nameValue(standard), share: formatShare(standard ?? 0) })]),
      hasStandard && button("settings.reset", () => { write(input, standard); this.mark(input); input.focus(); }, "quiet", nameRule(path)),
      h("p", { class: "wrong", id: `${id}-wrong` }));
  }

  /** @returns {Record<string, any>} */
  listChanges() {
    return Object.fromEntries(Object.entries(this.inputs).map(([path, input]) => [path, read(input)]).filter(([path, value]) => value !== this.base[path]));
  }

  /** Show what is changed; a threshold and rates exclude each other. @param {any} [input] That was changed. */
  mark(input) {
    const alternatives = input?.path === "policy.threshold" ? TARGETS : TARGETS.includes(input?.path) ? ["policy.threshold"] : [];
    if (alternatives.length && read(input) !== null) for (const path of alternatives) write(this.inputs[path], null);
    const changes = this.listChanges(), number = Object.keys(changes).length;
    for (const [path, one] of Object.entries(this.inputs)) {
      one.parentElement.querySelector(".badge").hidden = !(path in changes);
      const reset = one.parentElement.querySelector("button");
      if (reset) reset.hidden = read(one) === this.defaults[path];
    }
    if (input) this.tell(input.path, "");
    this.bar.hidden = number === 0;
    fill(this.bar, h("strong", {}, count("settings.changes", number)),
      button("settings.discard", () => this.discard()), h("button", { class: "primary" }, t("settings.save")));
  }

  discard() {
    this.adopt(this.base, {});
    /** @type {HTMLElement | null} */ (this.querySelector("h1"))?.focus();
  }

  /** @param {string} path @param {string} text What is wrong with a rule. */
  tell(path, text) {
    const input = this.inputs[path];
    input.parentElement.querySelector(".wrong").textContent = text;
    input.setAttribute("aria-invalid", String(text !== ""));
    if (text) input.closest("details").open = true;
  }

  /** @param {Record<string, any>} changes By path. @param {boolean} [endOlder] */
  async save(changes, endOlder = false) {
    fill(this.trouble);
    try {
      const theirs = flatten(await call("GET", this.path));
      const crossed = Object.keys(changes).filter((path) => theirs[path] !== this.base[path]);
      if (crossed.length) return this.showCrossed(theirs, changes, crossed);
      const warnings = listWarnings(this.base, changes);
      if (warnings.length && !endOlder && !await confirmErasure({ title: t("settings.warn"), text: warnings.join(" "), action: t("settings.save") })) return;
      const before = this.base;
      const saved = await call("PATCH", this.path, { json: nest(changes), query: { end_older: endOlder || null } });
      this.adopt(flatten(saved), {});
      session.collections = session.collections.map((one) => (one.id === saved.id ? { ...one, ...saved } : one));
      if (changes.name) await showCollections(this, saved.name);
      const back = Object.fromEntries(Object.entries(before).filter(([path, value]) => value !== this.base[path]));
      fill(this.trouble, h("div", { class: "notice good", role: "status" }, h("strong", {}, t("settings.saved")),
        h("ul", {}, Object.keys(back).map((path) => h("li", {}, nameRule(path), ": ", t("audit.change", { from: nameValue(before[path]), to: nameValue(this.base[path]) })))),
        actions(button("settings.undo", () => this.save(back)))));
      this.trouble.scrollIntoView({ block: "center" });
      this.trouble.querySelector("button").focus();
    } catch (error) {
      await this.showRefusal(error, changes);
    }
  }

  /** @param {unknown} error @param {Record<string, any>} changes */
  async showRefusal(error, changes) {
    const facts = error instanceof Problem ? error.facts : {};
    if (facts.consents && await confirmErasure({ title: t("settings.warn"), text: count("settings.end_older", facts.consents), action: t("settings.save") })) return this.save(changes, true);
    if (facts.consents) return;
    const wrong = (facts.errors ?? []).filter((/** @type {any} */ one) => one.path.replace("body.", "") in this.inputs);
    for (const one of wrong) this.tell(one.path.replace("body.", ""), one.message);
    if (wrong.length) return this.inputs[wrong[0].path.replace("body.", "")].focus();
    fill(this.trouble, problemBox(error));
    this.trouble.scrollIntoView({ block: "center" });
  }

  /** Somebody else changed the same rules: say so, and let them decide. @param {Record<string, any>} theirs @param {Record<string, any>} changes @param {string[]} crossed */
  showCrossed(theirs, changes, crossed) {
    this.adopt(theirs, changes);
    for (const path of crossed) this.tell(path, t("settings.meanwhile", { value: nameValue(theirs[path]) }));
    fill(this.trouble, h("div", { class: "notice warn", role: "alert" }, h("strong", {}, count("settings.crossed", crossed.length)), h("p", {}, t("settings.crossed.text"))));
    this.inputs[crossed[0]].focus();
  }

  /** @param {Record<string, any>} base @param {Record<string, any>} changes That stay in the form. */
  adopt(base, changes) {
    this.base = base;
    this.heading.textContent = base.name;
    for (const [path, input] of Object.entries(this.inputs)) {
      write(input, path in changes ? changes[path] : base[path]);
      this.tell(path, "");
    }
    this.mark();
  }

}

/** @param {string} path */
function findGroup(path) {
  const parts = path.split(".");
  return parts.length > 2 ? parts[1] : KEPT.includes(path) ? "kept" : parts.length > 1 ? "decision" : "collection";
}

/** @param {any} input */
function read(input) {
  if (input.type === "checkbox") return input.checked;
  if (input.type !== "number") return input.value;
  return input.validity.badInput ? "?" : input.value === "" ? null : Number(input.value);
}

/** @param {any} input @param {any} value */
function write(input, value) {
  if (input.type === "checkbox") input.checked = value;
  else input.value = value ?? "";
}

/** @param {Record<string, any>} base @param {Record<string, any>} changes @returns {string[]} What cannot be undone. */
function listWarnings(base, changes) {
  const days = changes.retention_days;
  return [
    base["policy.keep_crops"] && changes["policy.keep_crops"] === false && t("settings.warn.keep_crops"),
    days && (base.retention_days === null || days < base.retention_days) && t("settings.warn.retention"),
    base.search === "hnsw" && changes.search && t("settings.warn.search"),
  ].filter(Boolean);
}

customElements.define("vultus-settings", Settings);
