// A new person, or further photos of one: consent first, then photos.

import { Problem, call, listAll, makeWord, personPath } from "../parts/api.js";
import { isFilledIn } from "../parts/dialogs.js";
import { fill, foreign, h } from "../parts/h.js";
import { load, problemBox } from "../parts/problem.js";
import { can, session } from "../parts/session.js";
import { count, t } from "../parts/words.js";
import "../parts/photo-list.js";
import "../parts/statement.js";

class Enrol extends HTMLElement {
  connectedCallback() {
    this.person = this.getAttribute("person");
    this.start();
  }

  get isDirty() {
    return !this.isDone && (isFilledIn(this.form) || Boolean(this.photos?.entries.length));
  }

  async start() {
    await load(this, async () => {
      if (can("recognize")) {
        const now = await call("GET", `collections/${encodeURIComponent(session.collection)}`);  // what the statement says of it
        session.collections = session.collections.map((one) => (one.id === now.id ? now : one));
      }
      const known = this.person && can("read") ? await call("GET", personPath(session.collection, this.person)) : null;
      const held = known ? await listAll(`${personPath(session.collection, known.id)}/consents`) : [];
      if (this.isConnected) this.render(known, held.filter(isLive));
    });
  }

  /** @param {any} known The person, unless they are new. @param {any[]} consents Of them, that hold. */
  render(known, consents) {
    const back = known ? `#/people/${known.id}` : "#/people";
    this.photos = /** @type {import("../parts/photo-list.js").PhotoList} */ (h("vultus-photo-list", { onchange: () => this.check() }));
    this.button = h("button", { class: "primary" }, known ? t("enrol.add_photos") : t("enrol.register"));
    this.lacking = h("p", { class: "hint", "aria-live": "polite" });
    this.trouble = h("div", {});
    this.twin = h("input", { type: "checkbox", onchange: () => this.allow() });
    this.twinLabel = h("label", { class: "check", hidden: true }, this.twin, t("enrol.lookalike"));
    fill(this,
      can("read") && h("p", {}, h("a", { href: back }, t("enrol.back"))),
      h("h1", { tabindex: "-1" }, known ? h("span", {}, t("enrol.more_photos"), " ", foreign(known.name ?? known.external_id ?? "")) : t("enrol.title")),
      this.form = h("form", { oninput: () => { this.word = makeWord(); }, onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); this.submit(known); } },
        this.buildConsent(consents),
        known ? null : this.buildWho(),
        h("fieldset", {}, h("legend", {}, t(known ? "enrol.photos.more" : "enrol.photos")), h("p", {}, t("enrol.photos.text")), this.photos),
        this.twinLabel, this.trouble, this.lacking,
        h("div", { class: "actions" }, this.button)));
    this.check();
    this.querySelector("h1")?.focus();
  }

  /** @param {any[]} consents */
  buildConsent(consents) {
    const purpose = h("input", { name: "consent_purpose", maxlength: 500, required: true, placeholder: t("enrol.purpose.example") });
    const recordedBy = h("input", { name: "consent_recorded_by", maxlength: 200, required: true, autocomplete: "email" });
    const ends = h("input", { name: "ends", type: "date", min: new Date(Date.now() + 86_400_000).toISOString().slice(0, 10) });
    const evidence = h("input", { name: "consent_evidence_ref", maxlength: 200 });
    const statement = /** @type {import("../parts/statement.js").Statement} */ (
      h("vultus-statement", { onchange: () => { evidence.defaultValue = statement.reference; } }));
    const agreed = h("input", { type: "checkbox", name: "agreed", required: true });
    for (const input of [purpose, ends]) input.addEventListener("input", () => statement.say(purpose.value.trim(), ends.value));
    const fresh = h("div", { class: "fields" },
      h("label", {}, t("enrol.purpose"), purpose), h("label", {}, t("enrol.recorded_by"), recordedBy),
      h("label", {}, t("enrol.ends"), ends), h("label", {}, t("enrol.evidence"), evidence));
    const parts = h("div", { class: "new-consent" }, fresh, statement, h("label", { class: "check" }, agreed, t("enrol.agreed")));
    if (!consents.length) return h("fieldset", {}, h("legend", {}, t("enrol.consent")), h("p", {}, t("enrol.consent.text")), parts);
    const choose = h("select", { name: "consent_id", onchange: () => show() },
      consents.map((one) => h("option", { value: one.id }, one.purpose)), h("option", { value: "" }, t("enrol.consent.new")));
    const show = () => {
      parts.hidden = choose.value !== "";
      for (const input of [purpose, recordedBy, ends, evidence, agreed]) input.disabled = parts.hidden;
    };
    show();
    return h("fieldset", {}, h("legend", {}, t("enrol.consent")), h("label", {}, t("enrol.consent.which"), choose), parts);
  }

  buildWho() {
    const name = h("input", { name: "name", maxlength: 200, autocomplete: "off" });
    const id = h("input", { name: "external_id", maxlength: 200, autocomplete: "off" });
    const require = () => { name.required = !id.value.trim(); };
    id.addEventListener("input", require);
    require();
    return h("fieldset", {}, h("legend", {}, t("enrol.who")),
      h("div", { class: "fields" }, h("label", {}, t("enrol.name"), name), h("label", {}, t("enrol.external_id"), id)),
      h("p", { class: "hint" }, t("enrol.who.hint")));
  }

  check() {
    this.word = makeWord();  // another form; the same one, sent again after a broken connection, has one effect
    const entries = this.photos?.entries ?? [], states = entries.map((one) => one.state);
    const open = states.filter((one) => one === "refused" || one === "failed").length;
    if (!this.lacking) return;
    this.lacking.textContent = open ? count("enrol.refused", open) : states.length ? "" : t("enrol.lacking");
    this.button.disabled = this.isSending || !this.photos?.isReady;
    this.twinLabel.hidden = !entries.some(isLookalike);
    if (this.twin.checked && this.allowed !== entries) this.allow(false);
  }

  /** @param {any} known */
  async submit(known) {
    if (!this.photos?.isReady) return;
    this.button.disabled = this.isSending = true;
    fill(this.trouble);
    const sent = this.photos.entries, form = this.collect();
    try {
      const path = known ? `${personPath(session.collection, known.id)}/faces` : "register";
      this.finish(await call("POST", path, { form, repeatAs: this.word }));
    } catch (error) {
      this.button.disabled = this.isSending = false;
      const rejected = error instanceof Problem ? error.facts.rejected ?? [] : [];
      if (!rejected.length) return fill(this.trouble, problemBox(error));
      this.photos.refuse(sent, rejected);
      this.allow(false);
    }
  }

  /** Go on with faces that look like another person's, as a human said of these photos, and of no others. */
  allow(said = this.twin.checked) {
    this.twin.checked = said;
    this.allowed = this.photos?.entries;
    for (const one of this.allowed?.filter(isLookalike) ?? []) one.state = said ? "usable" : "refused";
    this.photos?.render();
  }

  collect() {
    const given = new FormData(this.form);
    const form = new FormData();
    for (const [name, value] of given) {
      if (value !== "" && typeof value === "string" && !["agreed", "ends"].includes(name)) form.append(name, value);
    }
    const ends = given.get("ends");
    if (ends) form.append("consent_expires_at", new Date(`${ends}T23:59:59`).toISOString());
    if (!this.person) form.append("collection", session.collection);
    if (this.twin.checked) form.append("allow_lookalike", "true");
    for (const entry of this.photos?.entries ?? []) form.append("photo", entry.file);
    return form;
  }

  /** @param {any} done What the API answered. */
  finish(done) {
    this.isDone = true;
    session.notice = h("div", { class: "notice good", role: "status" }, h("strong", {}, count("enrol.done", done.accepted.length)),
      done.rejected.length > 0 && h("p", {}, count("enrol.done.refused", done.rejected.length)),
      done.rejected.length > 0 && h("ul", {}, done.rejected.map((/** @type {any} */ one) => h("li", {}, one.detail))));
    const next = can("read") ? `#/people/${done.person.id}` : "#/people/new";
    if (!this.isConnected) return;
    if (location.hash === next) dispatchEvent(new HashChangeEvent("hashchange"));
    else location.hash = next;
  }
}

/** @param {import("../parts/photo-list.js").Entry} entry */
function isLookalike({ rejection }) {
  return Boolean(rejection?.reasons.includes("enrolled_as_other_person"));
}

/** @param {any} consent */
function isLive(consent) {
  return !consent.withdrawn_at && (!consent.expires_at || Date.parse(consent.expires_at) > Date.now());
}

customElements.define("vultus-enrol", Enrol);
