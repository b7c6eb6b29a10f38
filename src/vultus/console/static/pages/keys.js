// API keys: who may do what, where, and until when.

import { call, listAll } from "../parts/api.js";
import { announce, confirmErasure } from "../parts/dialogs.js";
import { check, field, openForm, showSecret } from "../parts/forms.js";
import { fill, foreign, h } from "../parts/h.js";
import { load, problemBox } from "../parts/problem.js";
import { renewSecret, session } from "../parts/session.js";
import { count, formatDay, formatMoment, formatNumber, t } from "../parts/words.js";

const PERMISSIONS = ["recognize", "scores", "read", "search", "enrol", "erase", "configure", "calibrate", "audit", "live", "keys"];
/** @type {Record<string, string[]>} */
const ROLES = {
  recognize: ["recognize"],
  enrol: ["recognize", "read", "enrol"],
  manage: ["recognize", "scores", "read", "search", "enrol", "erase", "live"],
  admin: PERMISSIONS,
};
const OVERLAPS_S = [86_400, 0, 3600, 604_800, 2_592_000];

class Keys extends HTMLElement {
  async connectedCallback() {
    this.trouble = h("div", {});
    this.list = h("div", {});
    fill(this,
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, t("keys")),
        h("button", { type: "button", class: "primary", onclick: () => this.create() }, t("keys.create"))),
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
        h("span", {}, key.role ? t(`role.${key.role}`) : key.permissions.map((/** @type {string} */ one) => t(`may.${one}`)).join(", ")),
        h("span", {}, t("keys.where"), " ", foreign(key.collections ? key.collections.map(nameCollection).join(", ") : t("keys.everywhere"))),
        h("span", { class: "hint" },
          key.owner && [t("keys.owner"), " ", foreign(key.owner), " · "],
          key.searches_per_hour !== null && `${t("keys.limited", { n: formatNumber(key.searches_per_hour) })} · `,
          t("keys.created", { day: formatDay(key.created_at) }), " · ",
          key.last_used_at ? t("keys.used", { time: formatMoment(key.last_used_at) }) : t("keys.unused"),
          Date.parse(key.previous_until) > Date.now() && ` · ${t("keys.previous", { time: formatMoment(key.previous_until) })}`)),
      !hasEnded(key) && mayManage(key) && h("div", { class: "actions" },
        h("button", { type: "button", class: "quiet", onclick: () => this.rotate(key, isOwn) }, t("keys.rotate")),
        h("button", { type: "button", class: "quiet danger", onclick: () => this.revoke(key, isOwn) }, t("keys.revoke"))));
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
    if (!made) return;
    await showSecret({ title: t("keys.secret"), text: t("keys.secret.text"), secret: made.secret });
    await this.show();
    announce(t("keys.created.done"));
  }

  /** @param {any} key @param {boolean} isOwn */
  async rotate(key, isOwn) {
    const made = await openForm({
      title: t("keys.rotate.title", { name: `\u2068${key.name}\u2069` }), action: t("keys.rotate"),
      parts: [h("p", {}, t("keys.rotate.text")),
        field(t("keys.overlap"), h("select", { name: "overlap" }, OVERLAPS_S.map((one) => h("option", { value: one }, t(`keys.overlap.${one}`)))))],
      send: (form) => call("POST", `keys/${key.id}/rotate`, { json: { overlap_s: Number(form.get("overlap")) } }),
    });
    if (!made) return;
    if (isOwn) renewSecret(made.secret);
    await showSecret({ title: t("keys.secret"), text: t("keys.secret.text"), secret: made.secret });
    await this.show();
  }

  /** @param {any} key @param {boolean} isOwn */
  async revoke(key, isOwn) {
    const title = t("keys.revoke.title", { name: `\u2068${key.name}\u2069` });
    if (!await confirmErasure({ title, text: t(isOwn ? "keys.revoke.own" : "keys.revoke.text"), action: t("keys.revoke") })) return;
    fill(this.trouble);
    try {
      await call("DELETE", `keys/${key.id}`);
      await this.show(); // of one's own key: refused, which leads to signing in
    } catch (error) {
      fill(this.trouble, problemBox(error));
    }
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
  const own = session.key;
  return key.permissions.every((/** @type {string} */ one) => own.permissions.includes(one))
    && (own.collections === null || (key.collections?.every((/** @type {string} */ one) => own.collections.includes(one)) ?? false))
    && (own.searches_per_hour === null || (key.searches_per_hour !== null && key.searches_per_hour <= own.searches_per_hour))
    && (own.expires_at === null || (key.expires_at !== null && Date.parse(key.expires_at) <= Date.parse(own.expires_at)));
}

/** @param {string} id */
function nameCollection(id) {
  return session.collections.find((one) => one.id === id)?.name ?? `…${id.slice(-6)}`;
}

customElements.define("vultus-keys", Keys);
