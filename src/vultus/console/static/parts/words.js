// Every text of the console, in the reader's language.

import { Problem } from "./api.js";

const STORED_AS = "vultus.language";
export const LANGUAGES = { en: "English", de: "Deutsch" };

let language = localStorage.getItem(STORED_AS) ?? navigator.language.slice(0, 2);
if (!(language in LANGUAGES)) language = "en";
document.documentElement.lang = language;

/** @type {Record<string, string>} */
let texts = await readCatalogue(language);

/** @param {string} name Of a language. @returns {Promise<Record<string, string>>} */
async function readCatalogue(name) {
  try {
    return await (await fetch(new URL(`../words/${name}.json`, import.meta.url))).json();
  } catch {
    throw new Problem("unreachable", "");
  }
}

/**
 * Return the texts of a language, which need not be the page's.
 * @param {string} name
 */
export async function readTexts(name) {
  return name === language ? texts : readCatalogue(name);
}

/** The reader's own variant of the language, for dates and numbers. */
function getLocale() {
  return navigator.languages.find((one) => one.startsWith(language)) ?? language;
}

export function getLanguage() {
  return language;
}

/** @param {string} chosen Its texts are read before anything changes. */
export async function setLanguage(chosen) {
  texts = await readCatalogue(chosen);
  language = chosen;
  localStorage.setItem(STORED_AS, chosen);
  document.documentElement.lang = chosen;
  sayAllAnew();
}

/** @type {Map<string, () => string>} How each text was made that is shown: so it can be said in another language. */
const makers = new Map();
const MAX_MAKERS = 20_000;
const SPOKEN = ["aria-label", "placeholder", "title", "alt"];

/** @param {() => string} make */
function say(make) {
  const text = make();
  makers.delete(text);
  makers.set(text, make);
  if (makers.size > MAX_MAKERS) makers.delete(makers.keys().next().value ?? "");
  return text;
}

/** @param {string} text Of the catalogue, or what others wrote, which stays; or both, as in `Delete: Ada`. */
function sayAnew(text) {
  return (makers.has(text) ? [text] : text.split(/(: | · )/)).map((part) => {
    const make = makers.get(part);
    return make ? say(make) : part;
  }).join("");
}

/** Change the texts of the page and nothing else of it: what was filled in, chosen or started goes on. */
function sayAllAnew() {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.parentElement?.closest("bdi, [lang]:not(html)")) node.nodeValue = sayAnew(node.nodeValue ?? "");
  }
  for (const name of SPOKEN) {
    for (const element of document.querySelectorAll(`[${name}]`)) element.setAttribute(name, sayAnew(element.getAttribute(name) ?? ""));
  }
  document.title = sayAnew(document.title);
}

/**
 * Return a text of the catalogue.
 * @param {string} key
 * @param {Record<string, string | number>} [values] For its `{places}`.
 */
export function t(key, values = {}) {
  return say(() => fillIn(texts[key], values));
}

/** @param {string} text @param {Record<string, string | number>} values */
function fillIn(text, values) {
  return text.replace(/\{(\w+)\}/g, (_, name) => sayAnew(String(values[name])));
}

/**
 * Return a text that the catalogue may not have: codes of the API can be newer than it.
 * @param {string} key
 * @param {string} otherwise
 */
export function tryText(key, otherwise) {
  return key in texts ? t(key) : otherwise;
}

/** @param {string} family Such as `action.` @returns {[string, string][]} What follows it in a key, and the text. */
export function listTexts(family) {
  return Object.entries(texts).filter(([key]) => key.startsWith(family)).map(([key]) => [key.slice(family.length), t(key)]);
}

/**
 * Return a text with a number in it, as the language's grammar has it.
 * @param {string} key Without `.one` and `.other`.
 * @param {number} number
 * @param {Record<string, string | number>} [values]
 */
export function count(key, number, values = {}) {
  return say(() => {
    const form = new Intl.PluralRules(language).select(number) === "one" ? "one" : "other";
    return fillIn(texts[`${key}.${form}`], { n: formatNumber(number), ...values });
  });
}

/** @param {number} number @param {number} [digits] */
export function formatNumber(number, digits = 0) {
  return say(() => new Intl.NumberFormat(getLocale(), { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(number));
}

/** @param {string} moment */
export function formatDay(moment) {
  return formatDate(moment, { dateStyle: "medium" });
}

/** @param {string} moment */
export function formatMoment(moment) {
  return formatDate(moment, { dateStyle: "medium", timeStyle: "short" });
}

/** @param {string} moment */
export function formatTime(moment) {
  return formatDate(moment, { timeStyle: "medium" });
}

/** @param {string} moment @param {Intl.DateTimeFormatOptions} style */
function formatDate(moment, style) {
  return say(() => new Intl.DateTimeFormat(getLocale(), style).format(new Date(moment)));
}

/**
 * Return a share as people say it: one in so many.
 * @param {number} share
 */
export function formatShare(share) {
  if (share <= 0) return t("share.none");
  if (share > 0.2) return t("share.percent", { n: formatNumber(share * 100) });
  const every = 1 / share, unit = 10 ** Math.max(0, Math.floor(Math.log10(every)) - 1);
  return t("share.one_in", { n: formatNumber(Math.round(every / unit) * unit) });
}

/** @param {string} since @param {string} until Of the same day, mostly; today's is not told. */
export function formatRange(since, until) {
  const dateStyle = new Date(since).toDateString() === new Date().toDateString() ? undefined : "medium";
  return say(() => new Intl.DateTimeFormat(getLocale(), { dateStyle, timeStyle: "medium" }).formatRange(new Date(since), new Date(until)));
}
