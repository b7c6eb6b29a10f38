// Where photos are dropped, or chosen.

import { h, icon } from "./h.js";
import { t } from "./words.js";

/**
 * @param {(files: File[]) => void} take
 * @param {string} label
 */
export function dropzone(take, label) {
  const input = h("input", { type: "file", accept: "image/*,.heic,.heif,.avif", multiple: true, class: "visually-hidden", onchange: () => {
    take([...input.files]);
    input.value = "";
  } });
  const zone = h("label", { class: "dropzone" }, input, icon("upload"), h("span", {}, label), h("small", {}, t("photos.formats")));
  for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, (/** @type {DragEvent} */ event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take([...(event.dataTransfer?.files ?? [])]);
  });
  return zone;
}
