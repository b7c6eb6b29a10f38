// Receivers that events are sent to.

import { listAll } from "../parts/api.js";
import { fill, foreign, h } from "../parts/h.js";
import { load } from "../parts/problem.js";
import { can } from "../parts/session.js";
import { badgeOf, openWebhookForm, showWebhookSecret } from "../parts/webhook-form.js";
import { t } from "../parts/words.js";

class Webhooks extends HTMLElement {
  async connectedCallback() {
    const place = h("div", {});
    fill(this,
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, t("webhooks")),
        can("read") && h("button", { type: "button", class: "primary", onclick: () => this.add() }, t("webhooks.add"))),
      h("p", {}, t("webhooks.text")), place);
    const found = await load(place, () => listAll("webhooks"));
    if (!found) return;
    fill(place, found.length ? h("ul", { class: "people" }, found.map(buildRow))
      : h("div", { class: "empty" }, h("h2", {}, t("webhooks.none")), h("p", {}, t("webhooks.none.text"))));
  }

  async add() {
    const created = await openWebhookForm(null);
    if (!created) return;
    await showWebhookSecret(created.secret);
    location.hash = `#/webhooks/${created.id}`;
  }
}

/** @param {any} webhook */
function buildRow(webhook) {
  return h("li", {}, h("a", { href: `#/webhooks/${webhook.id}` },
    h("span", { class: "initial", "aria-hidden": "true" }, [...webhook.name][0].toUpperCase()),
    h("strong", {}, foreign(webhook.name)), h("span", { class: "id" }, foreign(webhook.url)), h("span", { class: "since" }, badgeOf(webhook))));
}

customElements.define("vultus-webhooks", Webhooks);
