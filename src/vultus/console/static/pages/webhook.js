// One webhook: what it gets, what became of its deliveries, and its dead letters, which can be sent again.

import { call } from "../parts/api.js";
import { confirmErasure } from "../parts/dialogs.js";
import { field, openForm } from "../parts/forms.js";
import { fill, foreign, h } from "../parts/h.js";
import { load, problemBox } from "../parts/problem.js";
import { session } from "../parts/session.js";
import { badgeOf, openWebhookForm, showWebhookSecret } from "../parts/webhook-form.js";
import { count, formatMoment, formatTime, t, tryText } from "../parts/words.js";

const EACH = 2000;       // ms, while something waits
const PAGE_SIZE = 50;
const MOST = 500;
const STATES = ["waiting", "delivered", "dead"];
const KINDS = { waiting: "warn", delivered: "good", dead: "bad" };

class WebhookPage extends HTMLElement {
  path = "";
  limit = PAGE_SIZE;
  state = "";
  shown = "";

  async connectedCallback() {
    this.path = `webhooks/${encodeURIComponent(this.getAttribute("webhook") ?? "")}`;
    this.trouble = h("div", {});
    this.outcome = h("p", { role: "status" });
    this.facts = h("div", { class: "stack" });
    this.table = h("div", {});
    this.more = h("button", { type: "button", hidden: true, onclick: () => { this.limit = Math.min(MOST, this.limit + PAGE_SIZE); this.showDeliveries(); } }, t("people.more"));
    const choose = h("select", { onchange: () => { this.state = choose.value; this.showDeliveries(); } },
      h("option", { value: "" }, t("events.filter.all")), STATES.map((one) => h("option", { value: one }, t(`delivery.${one}`))));
    const webhook = await load(this, () => call("GET", this.path));
    if (!webhook || !this.isConnected) return;
    fill(this, h("p", {}, h("a", { href: "#/webhooks" }, t("webhook.back"))), this.facts, this.trouble, this.outcome,
      h("section", { "aria-labelledby": "deliveries" },
        h("div", { class: "head" }, h("h2", { id: "deliveries" }, t("webhook.deliveries")),
          this.all = h("button", { type: "button", hidden: true, onclick: () => this.replay() }, t("webhook.replay_all"))),
        h("label", { class: "narrow" }, t("delivery.state"), choose), this.table, h("div", { class: "actions" }, this.more)));
    this.show(webhook);
    this.querySelector("h1")?.focus();
    while (this.isConnected) {
      if (!document.hidden) await this.showDeliveries();
      await new Promise((resolve) => setTimeout(resolve, EACH));
    }
  }

  /** @param {any} webhook */
  show(webhook) {
    document.title = `${webhook.name} · ${t("title")}`;
    const names = webhook.collections?.map((/** @type {string} */ id) => session.collections.find((one) => one.id === id)?.name ?? id);
    /** @param {string} text @param {() => Promise<any>} act @param {string} [kind] */
    const button = (text, act, kind = "") => h("button", { type: "button", class: kind, onclick: () => this.attempt(act) }, t(text));
    fill(this.facts,
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, foreign(webhook.name)), badgeOf(webhook)),
      webhook.disabled_reason && h("p", { class: "notice warn" }, foreign(webhook.disabled_reason)),
      h("dl", { class: "facts" },
        h("dt", {}, t("webhook.url")), h("dd", {}, foreign(webhook.url)),
        h("dt", {}, t("webhook.types")), h("dd", {}, webhook.types?.map((/** @type {string} */ one) => tryText(`action.${one}`, one)).join(", ") ?? t("webhook.all")),
        h("dt", {}, t("webhook.collections")), h("dd", {}, foreign(names?.join(", ") ?? t("webhook.all"))),
        h("dt", {}, t("people")), h("dd", {}, t(webhook.with_names ? "webhook.names" : "webhook.ids")),
        webhook.failing_since && [h("dt", {}, t("webhook.failing")), h("dd", {}, formatMoment(webhook.failing_since))],
        webhook.previous_until && [h("dt", {}, t("webhook.old_secret")), h("dd", {}, formatMoment(webhook.previous_until))]),
      h("div", { class: "actions" },
        button("webhook.test", () => this.test()),
        button("webhook.change", async () => this.showAgain(await openWebhookForm(webhook))),
        button(webhook.disabled_at ? "webhook.enable" : "webhook.disable", async () => this.showAgain(await call("PATCH", this.path, { json: { enabled: Boolean(webhook.disabled_at) } }))),
        button("webhook.rotate", () => this.rotate()),
        button("webhook.delete", () => this.delete(webhook), "danger")));
  }

  /** @param {any} webhook None where nothing was changed. */
  showAgain(webhook) {
    if (!webhook) return;
    this.show(webhook);
    this.querySelector("h1")?.focus();
  }

  /** @param {() => Promise<any>} action */
  async attempt(action) {
    fill(this.trouble);
    this.outcome.textContent = "";
    try {
      await action();
    } catch (error) {
      fill(this.trouble, problemBox(error));
    }
  }

  async test() {
    this.outcome.textContent = t("webhook.testing");
    const { accepted, status, error } = await call("POST", `${this.path}/test`);
    this.outcome.textContent = "";
    fill(this.trouble, h("div", { class: `notice ${accepted ? "good" : "bad"}`, role: "status" },
      h("strong", {}, t(accepted ? "webhook.accepted" : "webhook.not_accepted", { status: status ?? "–" })),
      error && h("p", { lang: "en" }, error), !accepted && h("p", { class: "remedy" }, t("webhook.remedy"))));
  }

  async rotate() {
    const overlap = h("select", { name: "overlap_s" }, [86_400, 3600, 0].map((one) => h("option", { value: one }, t(`webhook.overlap.${one}`))));
    const rotated = await openForm({
      title: t("webhook.rotate"), action: t("webhook.rotate"), parts: [field(t("webhook.overlap"), overlap, t("webhook.overlap.hint"))],
      send: (form) => call("POST", `${this.path}/rotate`, { json: { overlap_s: Number(form.get("overlap_s")) } }),
    });
    if (!rotated) return;
    await showWebhookSecret(rotated.secret);
    this.showAgain(rotated);
  }

  /** @param {any} webhook */
  async delete(webhook) {
    if (!await confirmErasure({ title: t("webhook.delete.title", { name: `\u2068${webhook.name}\u2069` }), text: t("webhook.delete.text"), action: t("webhook.delete") })) return;
    await call("DELETE", this.path);
    location.hash = "#/webhooks";
  }

  async showDeliveries() {
    const state = this.state;
    const page = await call("GET", `${this.path}/deliveries`, { query: { newest_first: true, limit: this.limit, state } }).catch((problem) => ({ problem }));
    if (!this.isConnected || state !== this.state || JSON.stringify(page) === this.shown) return;
    this.shown = JSON.stringify(page);
    if (page.problem) return fill(this.table, problemBox(page.problem));
    this.more.hidden = !page.next_cursor || this.limit === MOST;
    this.all.hidden = !page.items.some((/** @type {any} */ one) => one.state === "dead");
    const focused = this.table.contains(document.activeElement) ? document.activeElement?.id : "";
    fill(this.table, page.items.length ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("webhook.deliveries") }, h("table", {},
      h("thead", {}, h("tr", {}, ["event", "state", "answer", "tries", "next"].map((name) => h("th", { scope: "col" }, t(`delivery.${name}`))))),
      h("tbody", {}, page.items.map((/** @type {any} */ one) => this.buildDelivery(one))))) : h("p", { class: "empty" }, t(state ? "events.none_found" : "delivery.none")));
    if (focused) (document.getElementById(focused) ?? this.table.querySelector(".scroll"))?.focus();
  }

  /** @param {any} one */
  buildDelivery(one) {
    const name = tryText(`action.${one.type}`, one.type);
    return h("tr", {}, h("th", { scope: "row" }, name),
      h("td", {}, h("span", { class: `badge ${KINDS[/** @type {keyof typeof KINDS} */ (one.state)]}` }, t(`delivery.${one.state}`))),
      h("td", { lang: one.last_error && "en" }, foreign(one.last_error ?? one.last_status ?? "–")),
      h("td", {}, one.attempts, one.last_attempt_at && h("div", { class: "hint" }, formatMoment(one.last_attempt_at))),
      h("td", {}, one.state === "dead" ? h("button", { type: "button", id: `replay-${one.event_id}`, "aria-label": `${t("webhook.replay")}: ${name}`, onclick: () => this.replay([one.event_id]) }, t("webhook.replay"))
        : one.due_at ? formatTime(one.due_at) : "–"));
  }

  /** @param {string[]} [events] All that are dead without. */
  replay(events) {
    return this.attempt(async () => {
      const { replayed } = await call("POST", `${this.path}/replay`, { json: { event_ids: events ?? null } });
      this.outcome.textContent = count("webhook.replayed", replayed);
      await this.showDeliveries();
    });
  }
}

customElements.define("vultus-webhook", WebhookPage);
