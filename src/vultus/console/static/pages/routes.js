// Which page an address shows, and which pages a key is offered.

import { h } from "../parts/h.js";
import { can } from "../parts/session.js";
import "./people.js";
import "./person.js";
import "./enrol.js";
import "./nothing.js";
import "./recognise.js";
import "./live.js";
import "./overview.js";
import "./events.js";
import "./cameras.js";
import "./webhooks.js";
import "./webhook.js";
import "./calibration.js";
import "./migration.js";
import "./audit.js";
import "./keys.js";
import "./settings.js";

/**
 * @typedef {object} Page
 * @property {string} path
 * @property {string} title Of the catalogue.
 * @property {import("../parts/h.js").IconName} icon
 * @property {boolean} isDaily Else it is for those who look after the service.
 * @property {() => boolean} isOffered
 */

/** @type {Page[]} In the order of the navigation: daily ones, then events cameras calibration migration audit keys webhooks settings. */
const PAGES = [
  { path: "overview", title: "overview", icon: "overview", isDaily: true, isOffered: () => true },
  { path: "people", title: "people", icon: "people", isDaily: true, isOffered: () => can("read") || can("enrol") },
  { path: "recognise", title: "recognise", icon: "recognise", isDaily: true, isOffered: () => can("recognize") },
  { path: "live", title: "live", icon: "live", isDaily: true, isOffered: () => can("live") },
  { path: "events", title: "events", icon: "events", isDaily: false, isOffered: () => can("read") },
  { path: "cameras", title: "cameras", icon: "cameras", isDaily: false, isOffered: () => can("read") },
  { path: "calibration", title: "calibration", icon: "calibration", isDaily: false, isOffered: () => can("calibrate") },
  { path: "migration", title: "migration", icon: "migration", isDaily: false, isOffered: () => can("configure") && can("recognize") },
  { path: "audit", title: "audit", icon: "audit", isDaily: false, isOffered: () => can("audit") },
  { path: "keys", title: "keys", icon: "keys", isDaily: false, isOffered: () => can("keys") },
  { path: "webhooks", title: "webhooks", icon: "webhooks", isDaily: false, isOffered: () => can("configure") },
  { path: "settings", title: "settings", icon: "settings", isDaily: false, isOffered: () => can("configure") && can("recognize") },
];
/** @type {Page} */
const NOTHING = { path: "", title: "nothing", icon: "overview", isDaily: true, isOffered: () => true };

export function listPages() {
  return PAGES.filter((page) => page.isOffered());
}

/**
 * Return the page of an address, and a new element that shows it.
 * @param {string} hash Such as `#/people/019f…/photos`.
 * @returns {{ page: Page, element: HTMLElement }}
 */
export function findPage(hash) {
  const [name, person, part] = hash.replace(/^#\/?/, "").split("?")[0].split("/");
  const page = listPages().find((one) => one.path === name) ?? (name ? NOTHING : listPages()[0]) ?? NOTHING;
  if (page === NOTHING || (page.path === "people" && person === "new" && !can("enrol"))) return { page: NOTHING, element: h("vultus-nothing") };
  if (page.path === "webhooks" && person) return { page, element: h("vultus-webhook", { webhook: person }) };
  if (page.path !== "people") return { page, element: h(`vultus-${page.path}`, { part: person }) };
  if (can("enrol") && (person === "new" || part === "photos" || !can("read"))) {
    return { page, element: h("vultus-enrol", { person: part === "photos" ? person : null }) };
  }
  return { page, element: person ? h("vultus-person", { person }) : h("vultus-people") };
}
