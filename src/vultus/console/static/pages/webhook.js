// One webhook: what it gets, what became of its deliveries, and its dead letters, which can be sent again.

import { call } from "../parts/api.js";
import { button, isolate } from "../parts/controls.js";
import { confirmErasure } from "../parts/dialogs.js";
import { field, openForm } from "../parts/forms.js";
import { fill, foreign, h } from "../parts/h.js";
import { load, problemBox } from "../parts/problem.js";
import { can, session } from "../parts/session.js";
import { count, formatMoment, formatTime, t, tryText } from "../parts/words.js";
import { badgeOf, openWebhookForm, showWebhookSecret } from "./webhooks.js";

const EACH = 2000;  // ms
const MOST = 200;   // deliveries
/** @type {Record<string, string>} */
const STATES = { waiting: "warn", delivered: "good", dead: "bad" };

class WebhookPage extends HTMLElement {
  path = "";
  shown = "";

  async connectedCallback() {
    this.path = `webhooks/${encodeURIComponent(this.getAttribute("webhook") ?? "")}`;
    await load(this, async () => this.begin(await call("GET", this.path)));
    while (this.isConnected) {
      if (!document.hidden && this.table) await this.showDeliveries();
      await new Promise((resolve) => setTimeout(resolve, EACH));
    }
  }

  /** @param {any} webhook */
  begin(webhook) {
    if (!this.isConnected) return;
    this.trouble = h("div", {});
    this.outcome = h("p", { role: "status" });
    this.facts = h("div", { class: "stack" });
    this.table = h("div", {});
    this.all = button("webhook.replay_all", () => this.replay(null));
    this.state = h("select", { onchange: () => this.showDeliveries() },
      h("option", { value: "" }, t("events.filter.all")), Object.keys(STATES).map((one) => h("option", { value: one }, t(`delivery.${one}`))));
    fill(this, h("p", {}, h("a", { href: "#/webhooks" }, t("webhook.back"))), this.facts, this.trouble, this.outcome,
      h("section", { "aria-labelledby": "deliveries" },
        h("div", { class: "head" }, h("h2", { id: "deliveries" }, t("webhook.deliveries")), this.all),
        h("label", { class: "narrow" }, t("delivery.state"), this.state), this.table));
    this.show(webhook);
  }

  /** @param {any} webhook As it is now. */
  show(webhook) {
    if (!this.isConnected) return;
    const { name, collections, types, disabled_at: isOff } = webhook;
    document.title = `${name} · ${t("title")}`;
    /** @param {string} term @param {any} what */
    const fact = (term, what) => what && [h("dt", {}, t(term)), h("dd", {}, what)];
    /** @param {string} text @param {() => Promise<any>} act @param {string} [kind] */
    const offer = (text, act, kind) => button(text, () => this.attempt(act), kind);
    fill(this.facts,
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, foreign(name)), badgeOf(webhook)),
      webhook.disabled_reason && h("p", { class: "notice warn" }, foreign(webhook.disabled_reason)),
      h("dl", { class: "facts" },
        fact("webhook.url", foreign(webhook.url)),
        fact("webhook.types", types?.map((/** @type {string} */ one) => tryText(`action.${one}`, one)).join(", ") ?? t("webhook.all")),
        fact("webhook.collections", foreign(collections?.map((/** @type {string} */ id) => session.collections.find((one) => one.id === id)?.name ?? id).join(", ") ?? t("webhook.all"))),
        fact("people", t(webhook.with_names ? "webhook.names" : "webhook.ids")),
        fact("webhook.failing", webhook.failing_since && formatMoment(webhook.failing_since)),
        fact("webhook.old_secret", webhook.previous_until && formatMoment(webhook.previous_until))),
      h("div", { class: "actions" },
        offer("webhook.test", () => this.test()),
        can("read") && offer("webhook.change", async () => this.show(await openWebhookForm(webhook) ?? webhook)),
        can("read") && offer(isOff ? "webhook.enable" : "webhook.disable", async () => this.show(await call("PATCH", this.path, { json: { enabled: Boolean(isOff) } }))),
        offer("webhook.rotate", async () => this.show(await this.rotate() ?? webhook)),
        offer("webhook.delete", () => this.delete(name), "danger")));
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
    const { accepted, status, error } = await call("POST", `${this.path}/test`).finally(() => { this.outcome.textContent = ""; });
    fill(this.trouble, h("div", { class: `notice ${accepted ? "good" : "bad"}`, role: "status" },
      h("strong", {}, t(accepted ? "webhook.accepted" : "webhook.not_accepted", { status: status ?? "–" })),
      error && h("p", { lang: "en" }, error), !accepted && h("p", { class: "remedy" }, t("webhook.remedy"))));
  }

  async rotate() {
    const overlap = h("select", { name: "overlap_s" }, [86_400, 3600, 0].map((value) => h("option", { value }, t(`webhook.overlap.${value}`))));
    const rotated = await openForm({
      title: t("webhook.rotate"), action: t("webhook.rotate"), parts: [field(t("webhook.overlap"), overlap, t("webhook.overlap.hint"))],
      send: (form) => call("POST", `${this.path}/rotate`, { json: { overlap_s: Number(form.get("overlap_s")) } }),
    });
    if (rotated) await showWebhookSecret(rotated.secret);
    return rotated;
  }

  /** @param {string} name */
  async delete(name) {
    if (!await confirmErasure({ title: t("webhook.delete.title", { name: isolate(name) }), text: t("webhook.delete.text"), action: t("webhook.delete") })) return;
    await call("DELETE", this.path);
    if (this.isConnected) location.hash = "#/webhooks";
  }

  async showDeliveries() {
    const state = this.state.value;
    const page = await call("GET", `${this.path}/deliveries`, { query: { newest_first: true, limit: MOST, state } }).catch((problem) => ({ problem, items: [] }));
    const shown = JSON.stringify([state, page]);
    if (!this.isConnected || state !== this.state.value || shown === this.shown) return;
    this.shown = shown;
    this.all.hidden = !page.items.some((/** @type {any} */ one) => one.state === "dead");
    const focused = this.table.contains(document.activeElement) && document.activeElement?.id;
    fill(this.table, page.problem ? problemBox(page.problem) : page.items.length ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("webhook.deliveries") }, h("table", {},
      h("thead", {}, h("tr", {}, ["event", "state", "answer", "tries", "next"].map((name) => h("th", { scope: "col" }, t(`delivery.${name}`))))),
      h("tbody", {}, page.items.map((/** @type {any} */ one) => this.buildDelivery(one))))) : h("p", { class: "empty" }, t(state ? "events.none_found" : "delivery.none")));
    if (focused !== false) (document.getElementById(focused ?? "") ?? this.table.querySelector(".scroll"))?.focus();
  }

  /** @param {any} one */
  buildDelivery({ event_id: id, type, state, attempts, due_at: due, last_attempt_at: last, last_error: error, last_status: status }) {
    const name = tryText(`action.${type}`, type), again = state === "dead" && button("webhook.replay", () => this.replay([id]), "", name);
    if (again) again.id = `replay-${id}`;
    return h("tr", {}, h("th", { scope: "row" }, name),
      h("td", {}, h("span", { class: `badge ${STATES[state]}` }, t(`delivery.${state}`))),
      h("td", {}, foreign(error ?? status ?? "–")),
      h("td", {}, attempts, last && h("div", { class: "hint" }, formatMoment(last))),
      h("td", {}, again || (due ? formatTime(due) : "–")));
  }

  /** @param {string[] | null} events All that are dead without. */
  replay(events) {
    return this.attempt(async () => {
      const { replayed } = await call("POST", `${this.path}/replay`, { json: { event_ids: events } });
      this.outcome.textContent = count("webhook.replayed", replayed);
      await this.showDeliveries();
    });
  }
}

customElements.define("vultus-webhook", WebhookPage);
