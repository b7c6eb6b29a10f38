// One person: what is held about them, and how it is ended.

import { call, listAll, personPath } from "../parts/api.js";
import { badgeHelp, qualityBadges } from "../parts/badges.js";
import { confirmErasure } from "../parts/dialogs.js";
import { saveFile } from "../parts/download.js";
import { fill, foreign, h } from "../parts/h.js";
import { load, problemBox } from "../parts/problem.js";
import { can, session } from "../parts/session.js";
import { count, formatDay, formatMoment, t } from "../parts/words.js";

class PersonPage extends HTMLElement {
  path = "";

  connectedCallback() {
    this.path = personPath(session.collection, this.getAttribute("person") ?? "");
    this.trouble = h("div", {});
    this.show();
  }

  async show() {
    await load(this, async () => {
      const [person, faces, consents] = await Promise.all([
        call("GET", this.path), listAll(`${this.path}/faces`), listAll(`${this.path}/consents`),
      ]);
      if (!this.isConnected) return;
      const name = person.name ?? person.external_id ?? t("people.nameless");
      document.title = `${name} · ${t("title")}`;
      fill(this,
        h("p", {}, h("a", { href: "#/people" }, t("person.back"))),
        h("div", { class: "head" }, h("h1", { tabindex: "-1" }, foreign(name)), h("div", { class: "actions" },
          can("enrol") && h("a", { class: "button", href: `#/people/${person.id}/photos` }, t("person.add_photos")),
          h("button", { type: "button", onclick: () => this.attempt(() => this.export(person)) }, t("person.export")),
          can("erase") && h("button", { type: "button", class: "danger", onclick: () => this.erase(name, faces.length, consents.length) }, t("person.erase")))),
        this.trouble,
        h("dl", { class: "facts" },
          person.external_id && [h("dt", {}, t("enrol.external_id")), h("dd", {}, foreign(person.external_id))],
          h("dt", {}, t("person.enrolled")), h("dd", {}, formatMoment(person.created_at)),
          Object.entries(person.metadata).map(([key, value]) => [h("dt", {}, foreign(key)), h("dd", {}, foreign(typeof value === "string" ? value : JSON.stringify(value)))]).flat()),
        h("section", { "aria-labelledby": "faces" }, h("h2", { id: "faces" }, count("person.faces", faces.length)),
          faces.length ? h("ul", { class: "rows" }, faces.map((one) => this.buildFace(one)))
            : h("p", { class: "empty" }, t("person.no_faces")),
          faces.length > 0 && badgeHelp(), h("p", { class: "hint" }, t("person.no_pictures"))),
        h("section", { "aria-labelledby": "consents" }, h("h2", { id: "consents" }, t("person.consents")),
          h("ul", { class: "rows" }, consents.map((one) => this.buildConsent(one, name)))),
        can("audit") && h("p", {}, h("a", { href: `#/audit/${person.id}` }, t("person.audit"))));
      this.querySelector("h1")?.focus();
    });
  }

  /** @param {any} face */
  buildFace(face) {
    return h("li", {},
      h("div", {}, h("span", {}, t("person.face", { day: formatDay(face.created_at) })), qualityBadges(face.quality)),
      can("erase") && h("button", { type: "button", class: "quiet danger", onclick: () => this.deleteFace(face) }, t("person.delete_face")));
  }

  /** @param {any} consent @param {string} name */
  buildConsent(consent, name) {
    const [state, kind] = describeConsent(consent);
    return h("li", {},
      h("div", {},
        h("strong", {}, foreign(consent.purpose)), " ", h("span", { class: `badge ${kind}` }, state),
        h("div", { class: "hint" }, t("consent.recorded", { day: formatDay(consent.granted_at) }), " ", foreign(consent.recorded_by),
          consent.evidence_ref && [" · ", t("consent.evidence"), " ", foreign(consent.evidence_ref)])),
      can("erase") && kind !== "bad" && h("button", { type: "button", class: "quiet danger", onclick: () => this.withdraw(consent, name) }, t("consent.withdraw")));
  }

  /** @param {() => Promise<void>} action */
  async attempt(action) {
    fill(this.trouble);
    try {
      await action();
    } catch (error) {
      fill(this.trouble, problemBox(error));
    }
  }

  /** @param {any} person */
  async export(person) {
    const held = await call("GET", `${this.path}/export`);
    saveFile(`person-${person.id}.json`, JSON.stringify(held, null, 2), "application/json");
  }

  /** @param {string} name @param {number} faces @param {number} consents */
  async erase(name, faces, consents) {
    const text = t("erase.text", { faces: count("person.faces", faces), consents: count("person.consents_held", consents) });
    if (!await confirmErasure({ title: t("erase.title", { name: isolate(name) }), text, action: t("erase.action") })) return;
    await this.attempt(async () => this.tellErased(name, await call("DELETE", this.path)));
  }

  /** @param {any} consent @param {string} name */
  async withdraw(consent, name) {
    if (!await confirmErasure({ title: t("withdraw.title"), text: t("withdraw.text"), action: t("withdraw.action") })) return;
    await this.attempt(async () => {
      const erased = await call("DELETE", `${this.path}/consents/${consent.id}`);
      if (erased.person_erased) this.tellErased(name, erased);
      else await this.show();
    });
  }

  /** @param {any} face */
  async deleteFace(face) {
    if (!await confirmErasure({ title: t("delete_face.title"), text: t("delete_face.text"), action: t("delete_face.action") })) return;
    await this.attempt(async () => {
      await call("DELETE", `${this.path}/faces/${face.id}`);
      await this.show();
    });
  }

  /** @param {string} name @param {any} erased What the API says is gone. */
  tellErased(name, erased) {
    session.notice = h("div", { class: "notice good", role: "status" }, h("strong", {}, t("erased.title", { name: isolate(name) })),
      h("ul", { class: "reasons" }, [
        t("erased.gone", { faces: count("person.faces", erased.faces), consents: count("person.consents_held", erased.consents) }), t("erased.text"), t("erased.rest"),
      ].map((one) => h("li", {}, one))));
    if (this.isConnected) location.hash = "#/people";
  }
}

/** @param {string} name @returns {string} A name inside a sentence, whatever its direction. */
function isolate(name) {
  return `\u2068${name}\u2069`;
}

/** @param {any} consent @returns {[string, string]} Its state in words, and how good that is. */
function describeConsent(consent) {
  if (consent.withdrawn_at) return [t("consent.withdrawn", { day: formatDay(consent.withdrawn_at) }), "bad"];
  if (!consent.expires_at) return [t("consent.open"), "good"];
  const days = (Date.parse(consent.expires_at) - Date.now()) / 86_400_000;
  if (days < 0) return [t("consent.expired", { day: formatDay(consent.expires_at) }), "bad"];
  return [t("consent.until", { day: formatDay(consent.expires_at) }), days < 30 ? "warn" : "good"];
}

customElements.define("vultus-person", PersonPage);
