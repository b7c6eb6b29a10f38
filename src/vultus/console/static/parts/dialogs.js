// Questions before something is lost.

import { h } from "./h.js";
import { t } from "./words.js";

/**
 * Ask, and return whether the answer was yes.
 * @param {{ title: string, text: string, action: string }} question
 * @returns {Promise<boolean>}
 */
export function confirmErasure({ title, text, action }) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "question", onclose: () => { dialog.remove(); resolve(dialog.returnValue === "yes"); } },
      h("h2", { id: "question" }, title),
      h("p", {}, text),
      h("div", { class: "actions" },
        h("button", { type: "button", autofocus: true, onclick: () => dialog.close("no") }, t("cancel")),
        h("button", { type: "button", class: "danger", onclick: () => dialog.close("yes") }, action)));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Ask whether what was entered and is not saved may be lost. */
export function confirmLeaving() {
  return confirmErasure({ title: t("leave.title"), text: t("leave.text"), action: t("leave.action") });
}

/** @param {string} text Told to those who listen, and shown to nobody. */
export function announce(text) {
  const place = document.getElementById("announcer");
  if (place) place.textContent = text;
}

/**
 * Return whether a form holds more than it began with.
 * @param {HTMLFormElement | undefined} form
 */
export function isFilledIn(form) {
  return [...form?.elements ?? []].some((one) => one instanceof HTMLTextAreaElement ? one.value !== one.defaultValue
    : one instanceof HTMLInputElement && (one.type === "checkbox" ? one.checked !== one.defaultChecked : one.value !== one.defaultValue));
}
