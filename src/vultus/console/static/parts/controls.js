// Small parts of many pages.

import { announce } from "./dialogs.js";
import { fill, h } from "./h.js";
import { t } from "./words.js";

/**
 * @param {string} text Of the catalogue.
 * @param {() => any} act
 * @param {string} [kind]
 * @param {string} [of] What it is about, for those who do not see what is beside it.
 */
export function button(text, act, kind, of) {
  return h("button", { type: "button", class: kind, "aria-label": of && `${t(text)}: ${of}`, onclick: act }, t(text));
}

/** What is shown where there is nothing. @param {string} title @param {string} text Of the catalogue. @param {...any} more */
export function emptyBox(title, text, ...more) {
  return h("div", { class: "empty" }, h("h2", {}, t(title)), h("p", {}, t(text)), ...more);
}

/** @param {string} title Of the catalogue. @param {...any} beside */
export function pageHead(title, ...beside) {
  return h("div", { class: "head" }, h("h1", { tabindex: "-1" }, t(title)), ...beside);
}

/** A name inside a sentence, whatever its direction. @param {string} name */
export function isolate(name) {
  return `\u2068${name}\u2069`;
}

/** A part of a page under a heading. @param {string} id @param {string} title @param {...any} children */
export function section(id, title, ...children) {
  return h("section", { "aria-labelledby": id }, h("h2", { id, tabindex: "-1" }, title), ...children);
}

/** @param {...any} children */
export function actions(...children) {
  return h("div", { class: "actions" }, ...children);
}

/** Say that something was done. @param {Element} place @param {string} text Of the catalogue. */
export function tellDone(place, text) {
  fill(place, h("div", { class: "notice good" }, t(text)));
  announce(t(text));
}
