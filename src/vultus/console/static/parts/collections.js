// Collections are created, chosen and deleted; the chooser in the frame follows.

import { call } from "./api.js";
import { announce } from "./dialogs.js";
import { field, openForm } from "./forms.js";
import { h } from "./h.js";
import { chooseCollection, readCollections, session } from "./session.js";
import { count, t } from "./words.js";

/** @param {HTMLElement} page @param {string} [chosen] */
export async function showCollections(page, chosen) {
  session.collections = await readCollections();
  chooseCollection(chosen ?? session.collections[0]?.name ?? "default");
  page.dispatchEvent(new CustomEvent("collections-changed", { bubbles: true }));
}

/** @param {HTMLElement} page @param {any[]} models @returns {Promise<boolean>} Whether one was created, and is looked at now. */
export async function createCollection(page, models) {
  const made = await openForm({
    title: t("settings.create"), action: t("keys.create.action"),
    parts: [
      field(t("rule.name"), h("input", { name: "name", required: true, autocomplete: "off" }), t("settings.name.hint")),
      field(t("settings.pack"), h("select", { name: "pack" }, models.map((one) => h("option", { value: one.pack },
        `${one.pack} · ${[...new Set(Object.values(one.licences))].join(", ")} · ${t(one.commercial_use ? "overview.commercial" : "overview.research")}`))), t("settings.pack.hint")),
    ],
    send: (form) => call("POST", "collections", { json: Object.fromEntries(form) }),
  });
  if (!made) return false;
  await showCollections(page, made.name);
  announce(t("settings.created", { name: made.name }));
  return true;
}

/** @param {HTMLElement} page @param {string} path Of the collection. @returns {Promise<boolean>} Whether it is gone. */
export async function deleteCollection(page, path) {
  const { name, persons, faces } = await call("GET", path);
  const deleted = await openForm({
    title: t("settings.delete.title", { name }), action: t("erase.action"),
    parts: [
      h("p", {}, count("people.held", persons), ", ", count("person.faces", faces), ". ", t("settings.delete.text")),
      field(t("settings.delete.confirm", { name }), h("input", { required: true, autocomplete: "off", pattern: name.replaceAll(".", "\\."), title: name })),
    ],
    send: async () => (await call("DELETE", path), true),
  });
  if (!deleted) return false;
  await showCollections(page);
  session.notice = h("div", { class: "notice good", role: "status" }, h("strong", {}, t("settings.deleted", { name })));
  return true;
}
