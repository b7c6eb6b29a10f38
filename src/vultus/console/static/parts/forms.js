// Forms in a dialog, and what they show.

import { fill, h } from "./h.js";
import { problemBox } from "./problem.js";
import { t } from "./words.js";

let fields = 0;

/**
 * Label a field, and say beneath what belongs into it.
 * @param {string} label
 * @param {HTMLElement} input
 * @param {string | null} [hint]
 */
export function field(label, input, hint) {
  if (!hint) return h("label", {}, label, input);
  const id = `hint-${++fields}`;
  input.setAttribute("aria-describedby", id);
  return h("div", {}, h("label", {}, label, input), h("p", { class: "hint", id }, hint));
}

/** @param {string} label @param {HTMLElement} input */
export function check(label, input) {
  return h("label", { class: "check" }, input, label);
}

/**
 * Ask for what is needed and send it; what is refused stays open, with the reason.
 * @param {{ title: string, parts: any[], action: string, send: (form: FormData) => Promise<any> }} form
 * @returns {Promise<any>} What `send` returned; undefined where nothing was sent.
 */
export function openForm({ title, parts, action, send }) {
  return new Promise((resolve) => {
    /** @type {any} */
    let done;
    const trouble = h("div", {}), button = h("button", { class: "primary" }, action);
    const form = h("form", { onsubmit: async (/** @type {Event} */ event) => {
      event.preventDefault();
      button.disabled = true;
      fill(trouble);
      try {
        done = await send(new FormData(form));
        dialog.close();
      } catch (error) {
        fill(trouble, problemBox(error));
      }
      button.disabled = false;
    } }, ...parts, trouble, h("div", { class: "actions" }, h("button", { type: "button", onclick: () => dialog.close() }, t("cancel")), button));
    const dialog = h("dialog", { class: "wide", "aria-labelledby": "form", onclose: () => { dialog.remove(); resolve(done); } }, h("h2", { id: "form" }, title), form);
    document.body.append(dialog);
    dialog.showModal();
  });
}

/**
 * Show a secret, which is never shown again.
 * @param {{ title: string, text: string, secret: string, more?: any[] }} what
 * @returns {Promise<void>} Ends when it was put away.
 */
export function showSecret({ title, text, secret, more = [] }) {
  return new Promise((resolve) => {
    const shown = h("input", { readonly: true, value: secret, "aria-label": title, class: "secret" });
    const copied = h("span", { role: "status", class: "hint" });
    const dialog = h("dialog", { class: "wide", "aria-labelledby": "secret", onclose: () => { dialog.remove(); resolve(); } },
      h("h2", { id: "secret" }, title), h("p", {}, text), shown,
      h("div", { class: "actions" }, copied, h("button", { type: "button", onclick: async () => {
        shown.select();
        await navigator.clipboard?.writeText(secret).catch(() => {});
        copied.textContent = t(navigator.clipboard ? "secret.copied" : "secret.selected");
      } }, t("secret.copy"))),
      ...more,
      h("div", { class: "actions" }, h("button", { type: "button", class: "primary", onclick: () => dialog.close() }, t("secret.done"))));
    document.body.append(dialog);
    dialog.showModal();
    shown.select();
  });
}
