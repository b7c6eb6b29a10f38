// Who is in these photos? Each face with its verdict, and what the verdict rests on.

import { call } from "../parts/api.js";
import { announce } from "../parts/dialogs.js";
import { dropzone } from "../parts/dropzone.js";
import { fill, foreign, h } from "../parts/h.js";
import { cutFace, drawFaces } from "../parts/photo-faces.js";
import { problemBox } from "../parts/problem.js";
import { can, session } from "../parts/session.js";
import { candidateTable, explain, headline, kindOf, thresholdWords } from "../parts/verdicts.js";
import { count, t } from "../parts/words.js";

const CANDIDATES = 3;

class Recognise extends HTMLElement {
  /** @type {string[]} */
  addresses = [];
  turn = Promise.resolve();

  connectedCallback() {
    this.results = h("div", { class: "results" });
    fill(this,
      h("h1", { tabindex: "-1" }, t("recognise")),
      h("p", {}, t("recognise.text")),
      h("div", { class: "sources" }, dropzone((files) => this.add(files), t("photos.drop"))),
      this.results);
  }

  disconnectedCallback() {
    for (const address of this.addresses) URL.revokeObjectURL(address);
  }

  /** @param {File[]} files One after the other, so that others get their turn. */
  add(files) {
    for (const file of files) {
      const address = URL.createObjectURL(file);
      this.addresses.push(address);
      const place = h("section", {});
      this.results?.prepend(place);
      this.begin(file, address, place);
    }
  }

  /** @param {File} file @param {string} address @param {HTMLElement} place */
  begin(file, address, place) {
    place.setAttribute("aria-busy", "true");
    fill(place, h("h2", {}, foreign(file.name)), h("p", {}, t("recognise.running")));
    this.turn = this.turn.then(() => (this.isConnected ? this.recognise(file, address, place) : undefined));
  }

  /** @param {File} file @param {string} address @param {HTMLElement} place */
  async recognise(file, address, place) {
    const form = new FormData();
    form.append("collection", session.collection);
    form.append("photo", file);
    if (can("scores")) form.append("limit", String(CANDIDATES));
    const title = h("h2", {}, foreign(file.name));
    try {
      const [{ photo, faces }, picture] = await Promise.all([call("POST", "recognize", { form }), loadPicture(address)]);
      const found = count("recognise.found", faces.length);
      announce(`${found}. ${faces.map((/** @type {any} */ one) => h("span", {}, headline(one)).textContent).join(", ")}`);
      fill(place, title, h("p", { class: "hint" }, found),
        h("div", { class: "photo" }, picture && drawFaces(picture, photo, faces),
          h("ol", { class: "verdicts" }, faces.map((/** @type {any} */ face, /** @type {number} */ at) => buildVerdict(face, at, picture)))),
        faces.length ? thresholdWords(faces[0]) : h("p", {}, t("recognise.nobody")),
        photo.faces_left_out > 0 && h("p", {}, count("recognise.left_out", photo.faces_left_out)));
    } catch (error) {
      fill(place, title, problemBox(error, () => this.begin(file, address, place)));
    }
    place.removeAttribute("aria-busy");
  }
}

/** @param {any} face @param {number} at @param {HTMLImageElement | null} picture */
function buildVerdict(face, at, picture) {
  return h("li", { class: kindOf(face.verdict) },
    picture && cutFace(picture, face.box),
    h("div", {},
      h("p", { class: "headline" }, h("span", { class: "number" }, at + 1), h("strong", {},
        face.person && can("read") ? h("a", { href: `#/people/${face.person.id}` }, headline(face)) : headline(face))),
      ...explain(face)),
    candidateTable(face));
}

/** @param {string} address @returns {Promise<HTMLImageElement | null>} Null where the browser cannot show it. */
async function loadPicture(address) {
  const picture = /** @type {HTMLImageElement} */ (h("img", { src: address, alt: t("photos.alt") }));
  return picture.decode().then(() => picture, () => null);
}

customElements.define("vultus-recognise", Recognise);
