// What pages are made of again and again.

import { announce } from "./dialogs.js";
import { fill, h } from "./h.js";

/** @typedef {import("./h.js").Child} Child */

/**
 * A part of a page under a heading.
 * @param {string} id @param {Child} title @param {...(Child | Child[])} children
 */
export function section(id, title, ...children) {
  return h("section", { "aria-labelledby": id }, h("h2", { id, tabindex: "-1" }, title), ...children);
}

/** @param {Child} text @param {(event: Event) => any} onclick @param {string | null} [look] @param {string | null} [id] */
export function button(text, onclick, look, id) {
  return h("button", { type: "button", class: look, id, onclick }, text);
}

/** @param {...(Child | Child[])} children */
export function actions(...children) {
  return h("div", { class: "actions" }, ...children);
}

/** Say that something was done. @param {Element} place @param {string} text */
export function tellDone(place, text) {
  fill(place, h("div", { class: "notice good" }, text));
  announce(text);
}
