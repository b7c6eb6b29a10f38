// API keys: who may do what, where, and until when.

import { call, listAll } from "../parts/api.js";
import { actions, button, isolate, pageHead } from "../parts/controls.js";
import { confirmErasure } from "../parts/dialogs.js";
import { check, field, openForm, showSecret } from "../parts/forms.js";
import { fill, foreign, h } from "../parts/h.js";
import { PERMISSIONS, ROLES, namePermissions } from "../parts/permissions.js";
import { load } from "../parts/problem.js";
import { nameCollection, renewSecret, session } from "../parts/session.js";
import { count, formatDay, formatMoment, formatNumber, t } from "../parts/words.js";

const OVERLAPS_S = [86_400, 0, 3600, 604_800, 2_592_000];

class Keys extends HTMLElement {
  async connectedCallback() {
    this.trouble = h("div", {});
    this.list = h("div", {});
    fill(this,
      pageHead("keys", button("keys.create", () => this.create(), "primary")),
      h("p", { class: "hint" }, t("keys.text")),
      this.trouble, this.list);
    await this.show();
  }

  async show() {
    await load(this.list, async () => {
      const keys = (await listAll("keys")).reverse();
      const [live, ended] = [keys.filter((one) => !hasEnded(one)), keys.filter(hasEnded)];
      fill(this.list,
        h("section", { "aria-label": t("keys") }, h("ul", { class: "rows" }, live.map((one) => this.buildKey(one)))),
        ended.length > 0 && h("section", {}, h("details", {}, h("summary", {}, count("keys.ended", ended.length)), h("ul", { class: "rows" }, ended.map((one) => this.buildKey(one))))));
    });
    if (document.activeElement === document.body) /** @type {HTMLElement | null} */ (this.querySelector("h1"))?.focus();
  }

  /** @param {any} key */
  buildKey(key) {
    const isOwn = key.id === session.key.id;
    const [state, kind] = describeEnd(key);
    return h("li", {},
      h("div", {},
        h("div", { class: "badges" }, h("strong", {}, foreign(key.name)), isOwn && h("span", { class: "badge good" }, t("keys.own")), h("span", { class: `badge ${kind}` }, state)),
        h("span", {}, namePermissions(key.permissions)),
        h("span", {}, t("keys.where"), " ", foreign(key.collections ? key.collections.map(nameCollection).join(", ") : t("keys.everywhere"))),
        h("span", { class: "hint" },
          key.owner && [t("keys.owner"), " ", foreign(key.owner), " · "],
          key.searches_per_hour !== null && [t("keys.limited", { n: formatNumber(key.searches_per_hour) }), " · "],
          t("keys.created", { day: formatDay(key.created_at) }), " · ",
          key.last_used_at ? t("keys.used", { time: formatMoment(key.last_used_at) }) : t("keys.unused"),
          Date.parse(key.previous_until) > Date.now() && [" · ", t("keys.previous", { time: formatMoment(key.previous_until) })])),
      !hasEnded(key) && mayManage(key) && actions(
        button("keys.rotate", () => this.rotate(key), "quiet"), button("keys.revoke", () => this.revoke(key, isOwn), "quiet danger")));
  }

  async create() {
    const own = session.key, roles = Object.keys(ROLES).filter((role) => ROLES[role].every((one) => own.permissions.includes(one)));
    const made = await openForm({
      title: t("keys.create"), action: t("keys.create.action"),
      parts: [
        field(t("keys.name"), h("input", { name: "name", required: true, autocomplete: "off" }), t("keys.name.hint")),
        field(t("keys.owner"), h("input", { name: "owner", autocomplete: "off" }), t("keys.owner.hint")),
        h("fieldset", {}, h("legend", {}, t("keys.may")), roles.map((role, at) => check(t(`role.${role}`), h("input", { type: "radio", name: "role", value: role, checked: at === 0 }))),
          h("details", { open: roles.length === 0 }, h("summary", {}, t("keys.single")), h("p", { class: "hint" }, t("keys.single.hint")),
            h("div", { class: "choice" }, PERMISSIONS.filter((one) => own.permissions.includes(one)).map((one) => check(t(`may.${one}`), h("input", { type: "checkbox", name: "permissions", value: one })))))),
        h("fieldset", {}, h("legend", {}, t("keys.where")), h("p", { class: "hint" }, t(own.collections ? "keys.where.bound" : "keys.where.hint")),
          h("div", { class: "choice", tabindex: "0" }, session.collections.map((one) => check(one.name, h("input", { type: "checkbox", name: "collections", value: one.id ?? one.name }))))),
        h("div", { class: "fields" },
          field(t("keys.end"), h("input", { name: "end", type: "date" }), t("keys.end.hint")),
          field(t("keys.limit"), h("input", { name: "limit", type: "number", min: 1, step: 1 }), t("keys.limit.hint"))),
        h("p", { class: "hint" }, t("keys.no_more")),
      ],
      send: (form) => {
        const permissions = form.getAll("permissions"), collections = form.getAll("collections");
        return call("POST", "keys", { json: {
          name: form.get("name"), owner: form.get("owner") || null,
          ...(permissions.length ? { permissions } : { role: form.get("role") }),
          collections: collections.length ? collections : null,
          searches_per_hour: Number(form.get("limit")) || null,
          expires_at: form.get("end") ? new Date(`${form.get("end")}T23:59:59`).toISOString() : null,
        } });
      },
    });
    await this.hand(made);
  }

  /** @param {any} key With its secret; undefined where nothing was made. */
  async hand(key) {
    if (!key) return;
    if (key.id === session.key.id) renewSecret(key.secret);
    await showSecret({ title: t("keys.secret"), text: t("keys.secret.text"), secret: key.secret });
    await this.show();
  }

  /** @param {any} key */
  async rotate(key) {
    const made = await openForm({
      title: t("keys.rotate.title", { name: isolate(key.name) }), action: t("keys.rotate"),
      parts: [h("p", {}, t("keys.rotate.text")),
        field(t("keys.overlap"), h("select", { name: "overlap" }, OVERLAPS_S.map((one) => h("option", { value: one }, t(`keys.overlap.${one}`)))))],
      send: (form) => call("POST", `keys/${key.id}/rotate`, { json: { overlap_s: Number(form.get("overlap")) } }),
    });
    await this.hand(made);
  }

  /** @param {any} key @param {boolean} isOwn */
  async revoke(key, isOwn) {
    const title = t("keys.revoke.title", { name: isolate(key.name) });
    if (!await confirmErasure({ title, text: t(isOwn ? "keys.revoke.own" : "keys.revoke.text"), action: t("keys.revoke") })) return;
    await load(this.trouble, async () => {
      await call("DELETE", `keys/${key.id}`);
      await this.show(); // of one's own key: refused, which leads to signing in
    });
  }
}

/** @param {any} key */
function hasEnded(key) {
  return key.revoked_at !== null || (key.expires_at !== null && Date.parse(key.expires_at) <= Date.now());
}

/** @param {any} key @returns {[string, string]} */
function describeEnd(key) {
  if (key.revoked_at) return [t("keys.revoked", { day: formatDay(key.revoked_at) }), "bad"];
  if (!key.expires_at) return [t("keys.open"), ""];
  if (hasEnded(key)) return [t("consent.expired", { day: formatDay(key.expires_at) }), "bad"];
  return [t("consent.until", { day: formatDay(key.expires_at) }), Date.parse(key.expires_at) - Date.now() < 30 * 86_400_000 ? "warn" : ""];
}

/** @param {any} key Whether one's own may rotate and revoke it: only such as may do no more. */
function mayManage(key) {
  /** @param {(own: any, its: any) => boolean} isWithin @param {string[]} names */
  const holds = (isWithin, ...names) => names.every((name) => session.key[name] === null || (key[name] !== null && isWithin(session.key[name], key[name])));
  return holds((own, its) => its.every((/** @type {string} */ one) => own.includes(one)), "permissions", "collections")
    && holds((own, its) => new Date(its) <= new Date(own), "searches_per_hour", "expires_at");
}

customElements.define("vultus-keys", Keys);
