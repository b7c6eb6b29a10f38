// Receivers that events are sent to.

import { call, listAll } from "../parts/api.js";
import { button, emptyBox, pageHead } from "../parts/controls.js";
import { check, field, openForm, showSecret } from "../parts/forms.js";
import { fill, foreign, h } from "../parts/h.js";
import { load } from "../parts/problem.js";
import { can, nameCollection, session } from "../parts/session.js";
import { listTexts, t, tryText } from "../parts/words.js";

class Webhooks extends HTMLElement {
  async connectedCallback() {
    const place = h("div", {});
    fill(this, pageHead("webhooks", can("read") && button("webhooks.add", () => add(this), "primary")), h("p", {}, t("webhooks.text")), place);
    await load(place, async () => {
      const found = await listAll("webhooks");
      fill(place, found.length ? h("ul", { class: "people" }, found.map(buildRow)) : emptyBox("webhooks.none", "webhooks.none.text"));
    });
  }
}

/** @param {HTMLElement} page */
async function add(page) {
  const created = await openWebhookForm(null);
  if (!created) return;
  await showWebhookSecret(created.secret);
  if (page.isConnected) location.hash = `#/webhooks/${created.id}`;
}

/** @param {any} webhook */
function buildRow(webhook) {
  return h("li", {}, h("a", { href: `#/webhooks/${webhook.id}` },
    h("span", { class: "initial", "aria-hidden": "true" }, [...webhook.name][0].toUpperCase()),
    h("strong", {}, foreign(webhook.name)), h("span", { class: "id" }, foreign(webhook.url)), h("span", { class: "since" }, badgeOf(webhook))));
}

/** @param {any} webhook @returns {HTMLElement} */
export function badgeOf({ disabled_at: isOff, failing_since: fails }) {
  return h("span", { class: `badge ${isOff ? "" : fails ? "bad" : "good"}` }, t(`webhook.${isOff ? "off" : fails ? "fails" : "on"}`));
}

/**
 * @param {any} webhook None for a new one.
 * @returns {Promise<any>} As it is now; undefined where nothing was changed.
 */
export function openWebhookForm(webhook) {
  /** @param {string} name @param {[string, string][]} options @param {(one: string) => string} tell Of one that is no option here, but chosen already. */
  const choose = (name, options, tell) => h("fieldset", { name }, h("legend", {}, t(`webhook.${name}`)), h("p", { class: "hint" }, t(`webhook.${name}.hint`)),
    h("div", { class: "choice" }, [...new Map([...options, ...(webhook?.[name] ?? []).map((/** @type {string} */ one) => [one, tell(one)])])].map(([value, text]) => check(text, h("input", { type: "checkbox", name, value, checked: webhook?.[name]?.includes(value) })))));
  const types = choose("types", listTexts("action."), (one) => tryText(`action.${one}`, one));
  const collections = choose("collections", session.collections.map((one) => [one.id ?? one.name, one.name]), nameCollection);
  return openForm({
    title: t(webhook ? "webhook.change" : "webhooks.add"),
    action: t(webhook ? "camera_form.save" : "webhooks.add"),
    parts: [
      field(t("enrol.name"), h("input", { name: "name", required: true, maxlength: 200, value: webhook?.name })),
      field(t("webhook.url"), h("input", { name: "url", type: "url", required: true, value: webhook?.url }), t("webhook.url.hint")),
      types,
      collections,
      check(t("webhook.with_names"), h("input", { type: "checkbox", name: "with_names", checked: webhook?.with_names })),
    ],
    send: (form) => {
      /** @type {Record<string, any>} */
      const json = { name: form.get("name"), url: form.get("url"), with_names: form.has("with_names") };
      for (const { name, elements } of [types, collections]) {
        const chosen = form.getAll(name);
        if ([...elements].some((one) => one.checked !== one.defaultChecked)) json[name] = chosen.length ? chosen : null;
      }
      return webhook ? call("PATCH", `webhooks/${webhook.id}`, { json }) : call("POST", "webhooks", { json });
    },
  });
}

/** @param {string} secret */
export function showWebhookSecret(secret) {
  return showSecret({
    title: t("webhook.secret"), text: t("webhook.secret.text"), secret,
    more: [h("p", {}, t("webhook.verify")), h("pre", { tabindex: "0" }, "from standardwebhooks import Webhook\n\nevent = Webhook(secret).verify(body, headers)")],
  });
}

customElements.define("vultus-webhooks", Webhooks);
