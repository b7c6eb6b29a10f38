// Adding a webhook or changing one, its secret, and how it is doing.

import { call } from "./api.js";
import { check, field, openForm, showSecret } from "./forms.js";
import { h } from "./h.js";
import { session } from "./session.js";
import { listTexts, t } from "./words.js";

/** @param {any} webhook @returns {HTMLElement} */
export function badgeOf(webhook) {
  const [kind, word] = webhook.disabled_at ? ["", "off"] : webhook.failing_since ? ["bad", "fails"] : ["good", "on"];
  return h("span", { class: `badge ${kind}` }, t(`webhook.${word}`));
}

/**
 * @param {any} webhook None for a new one.
 * @returns {Promise<any>} As it is now; undefined where nothing was changed.
 */
export function openWebhookForm(webhook) {
  const collections = session.collections.map((one) => check(one.name, h("input", { type: "checkbox", name: "collections", value: one.id ?? one.name, checked: webhook?.collections?.includes(one.id) })));
  const types = listTexts("action.").map(([code, text]) => check(text, h("input", { type: "checkbox", name: "types", value: code, checked: webhook?.types?.includes(code) })));
  return openForm({
    title: t(webhook ? "webhook.change" : "webhooks.add"),
    action: t(webhook ? "camera_form.save" : "webhooks.add"),
    parts: [
      field(t("enrol.name"), h("input", { name: "name", required: true, maxlength: 200, value: webhook?.name })),
      field(t("webhook.url"), h("input", { name: "url", type: "url", required: true, value: webhook?.url, placeholder: "https:" + "//door.example.org/vultus" }), t("webhook.url.hint")),
      h("fieldset", {}, h("legend", {}, t("webhook.types")), h("p", { class: "hint" }, t("webhook.types.hint")), h("div", { class: "choice" }, types)),
      h("fieldset", {}, h("legend", {}, t("webhook.collections")), h("p", { class: "hint" }, t("webhook.collections.hint")), h("div", { class: "choice" }, collections)),
      check(t("webhook.with_names"), h("input", { type: "checkbox", name: "with_names", checked: webhook?.with_names })),
    ],
    send: (form) => {
      const [collections, types] = ["collections", "types"].map((name) => form.getAll(name));
      const json = {
        name: form.get("name"), url: form.get("url"), with_names: form.has("with_names"),
        collections: collections.length ? collections : null, types: types.length ? types : null,
      };
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
