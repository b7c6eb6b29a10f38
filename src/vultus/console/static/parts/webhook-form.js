// Adding a webhook or changing one, its secret, and how it is doing.

import { call } from "./api.js";
import { check, field, openForm, showSecret } from "./forms.js";
import { h } from "./h.js";
import { session } from "./session.js";
import { listTexts, t } from "./words.js";

/** @param {any} webhook @returns {HTMLElement} */
export function badgeOf({ disabled_at: isOff, failing_since: fails }) {
  return h("span", { class: `badge ${isOff ? "" : fails ? "bad" : "good"}` }, t(`webhook.${isOff ? "off" : fails ? "fails" : "on"}`));
}

/**
 * @param {any} webhook None for a new one.
 * @returns {Promise<any>} As it is now; undefined where nothing was changed.
 */
export function openWebhookForm(webhook) {
  /** @param {string} name @param {string[][]} options */
  const choose = (name, options) => h("fieldset", {}, h("legend", {}, t(`webhook.${name}`)), h("p", { class: "hint" }, t(`webhook.${name}.hint`)),
    h("div", { class: "choice" }, options.map(([value, text]) => check(text, h("input", { type: "checkbox", name, value, checked: webhook?.[name]?.includes(value) })))));
  return openForm({
    title: t(webhook ? "webhook.change" : "webhooks.add"),
    action: t(webhook ? "camera_form.save" : "webhooks.add"),
    parts: [
      field(t("enrol.name"), h("input", { name: "name", required: true, maxlength: 200, value: webhook?.name })),
      field(t("webhook.url"), h("input", { name: "url", type: "url", required: true, value: webhook?.url }), t("webhook.url.hint")),
      choose("types", listTexts("action.")),
      choose("collections", session.collections.map((one) => [one.id ?? one.name, one.name])),
      check(t("webhook.with_names"), h("input", { type: "checkbox", name: "with_names", checked: webhook?.with_names })),
    ],
    send: (form) => {
      const [collections, types] = ["collections", "types"].map((name) => form.getAll(name)).map((chosen) => (chosen.length ? chosen : null));
      const json = { name: form.get("name"), url: form.get("url"), with_names: form.has("with_names"), collections, types };
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
