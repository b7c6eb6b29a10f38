// Photos to be enrolled: each is screened at once, says why it was refused, and can be taken again before it counts.

import { Problem, call } from "./api.js";
import { badgeHelp, qualityBadges } from "./badges.js";
import { takePhoto } from "./camera.js";
import { announce } from "./dialogs.js";
import { dropzone } from "./dropzone.js";
import { fill, foreign, h, icon } from "./h.js";
import { problemBox } from "./problem.js";
import { session } from "./session.js";
import { t, tryText } from "./words.js";

/**
 * @typedef {object} Entry
 * @property {File} file
 * @property {string} address Of the picture, in this page.
 * @property {"screening" | "usable" | "refused" | "failed"} state
 * @property {any} [face]
 * @property {any} [rejection]
 * @property {unknown} [error]
 */

export class PhotoList extends HTMLElement {
  /** @type {Entry[]} Another array whenever one comes or goes. */
  entries = [];
  isShooting = false;

  connectedCallback() {
    this.rows = h("ul", { class: "photos" });
    this.trouble = h("div", {});
    fill(this, this.rows,
      h("div", { class: "sources" },
        dropzone((files) => this.add(files), t("photos.drop")),
        h("button", { type: "button", onclick: () => this.shoot() }, icon("camera"), t("photos.camera"))),
      this.trouble, this.help = badgeHelp());
    this.help.hidden = true;
  }

  disconnectedCallback() {
    for (const entry of this.entries) URL.revokeObjectURL(entry.address);
  }

  get isReady() {
    return this.entries.length > 0 && this.entries.every((one) => one.state === "usable");
  }

  /** @param {File[]} files */
  async add(files) {
    await Promise.all(files.map((file) => this.screen(this.place(file))));
  }

  /** @param {Entry} [instead] The photo that the new one replaces. */
  async shoot(instead) {
    if (this.isShooting) return;
    this.isShooting = true;
    fill(this.trouble);
    try {
      const file = await takePhoto(() => this.isConnected);
      if (file) await this.screen(this.place(file, instead));
    } catch (error) {
      fill(this.trouble, problemBox(new Problem("camera", error instanceof Error ? error.message : "")));
    }
    this.isShooting = false;
  }

  /**
   * Mark photos that the registration refused.
   * @param {Entry[]} sent
   * @param {any[]} rejected
   */
  refuse(sent, rejected) {
    for (const rejection of rejected) Object.assign(sent[rejection.photo], { state: "refused", rejection });
    this.render();
  }

  /** @param {File} file @param {Entry} [instead] @returns {Entry} */
  place(file, instead) {
    /** @type {Entry} */
    const entry = { file, address: URL.createObjectURL(file), state: "screening" };
    if (instead) {
      URL.revokeObjectURL(instead.address);
      this.entries = this.entries.map((one) => (one === instead ? entry : one));
    } else this.entries = [...this.entries, entry];
    this.render();
    return entry;
  }

  /** @param {Entry} entry */
  async screen(entry) {
    if (entry.state === "failed") {
      entry.state = "screening";
      this.render();
    }
    const form = new FormData();
    form.append("collection", session.collection);
    form.append("photo", entry.file);
    try {
      const { accepted, rejected } = await call("POST", "screen", { form });
      Object.assign(entry, accepted.length ? { state: "usable", face: accepted[0].face } : { state: "refused", rejection: rejected[0] });
      announce(accepted.length ? t("photos.usable") : t("photos.refused"));
    } catch (error) {
      Object.assign(entry, { state: "failed", error });
    }
    this.render();
  }

  render() {
    fill(this.rows, this.entries.map((entry) => this.buildRow(entry)));
    this.help.hidden = !this.entries.some((one) => one.face);
    this.dispatchEvent(new Event("change"));
  }

  /** @param {Entry} entry */
  buildRow(entry) {
    const again = h("input", { type: "file", accept: "image/*,.heic,.heif,.avif", class: "visually-hidden", onchange: () =>
      again.files[0] && this.screen(this.place(again.files[0], entry)) });
    return h("li", { class: entry.state },
      h("img", { src: entry.address, alt: t("photos.alt") }),
      h("div", {}, h("div", { class: "hint" }, foreign(entry.file.name)), ...describe(entry, () => this.screen(entry))),
      h("div", { class: "actions" },
        entry.state !== "screening" && h("button", { type: "button", class: "quiet", onclick: () => this.shoot(entry) }, t("photos.retake")),
        entry.state !== "screening" && h("label", { class: "button quiet" }, again, t("photos.replace")),
        h("button", { type: "button", class: "quiet danger", onclick: () => {
          URL.revokeObjectURL(entry.address);
          this.entries = this.entries.filter((one) => one !== entry);
          this.render();
        } }, t("photos.remove"))));
  }
}

/** @param {Entry} entry @param {() => void} again @returns {Node[]} */
function describe(entry, again) {
  if (entry.state === "screening") return [h("span", { class: "badge" }, t("photos.screening"))];
  if (entry.state === "usable") return [h("span", { class: "badge good" }, t("photos.usable")), qualityBadges(entry.face.quality)];
  if (entry.state === "failed") return [problemBox(entry.error, again)];
  const { reasons, detail, person_id: other } = entry.rejection;
  return [
    h("span", { class: "badge bad" }, t("photos.refused")),
    h("ul", { class: "reasons" }, reasons.map((/** @type {string} */ reason) => h("li", {}, tryText(`reason.${reason}`, detail)))),
    h("p", { class: "hint", lang: "en" }, detail),
    ...(other ? [h("a", { href: `#/people/${other}` }, t("photos.other_person"))] : []),
  ];
}

customElements.define("vultus-photo-list", PhotoList);
