// Receivers that events are sent to.

import { listAll } from "../parts/api.js";
import { button, emptyBox, pageHead } from "../parts/controls.js";
import { fill, foreign, h } from "../parts/h.js";
import { load } from "../parts/problem.js";
import { can } from "../parts/session.js";
import { badgeOf, openWebhookForm, showWebhookSecret } from "../parts/webhook-form.js";
import { t } from "../parts/words.js";

class Webhooks extends HTMLElement {
  async connectedCallback() {
    const place = h("div", {});
    fill(this, pageHead("webhooks", can("read") && button("webhooks.add", add, "primary")), h("p", {}, t("webhooks.text")), place);
    const found = await load(place, () => listAll("webhooks"));
    if (found) fill(place, found.length ? h("ul", { class: "people" }, found.map(buildRow)) : emptyBox("webhooks.none", "webhooks.none.text"));
  }
}

async function add() {
  const created = await openWebhookForm(null);
  if (!created) return;
  await showWebhookSecret(created.secret);
  location.hash = `#/webhooks/${created.id}`;
}

/** @param {any} webhook */
function buildRow(webhook) {
  return h("li", {}, h("a", { href: `#/webhooks/${webhook.id}` },
    h("span", { class: "initial", "aria-hidden": "true" }, [...webhook.name][0].toUpperCase()),
    h("strong", {}, foreign(webhook.name)), h("span", { class: "id" }, foreign(webhook.url)), h("span", { class: "since" }, badgeOf(webhook))));
}

customElements.define("vultus-webhooks", Webhooks);
