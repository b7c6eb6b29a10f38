// A photo with its faces: boxes and names over it, and the faces cut out.

import { h } from "./h.js";
import { headline, kindOf } from "./verdicts.js";

const CROP_PX = 160;
const MARGIN = 0.35;

/**
 * @param {HTMLImageElement} picture
 * @param {any} photo Its size, by the API.
 * @param {any[]} faces
 */
export function drawFaces(picture, photo, faces) {
  return h("figure", { class: "faces" }, picture, faces.map((face, at) => {
    const { left, top, right, bottom } = face.box;
    const box = h("span", { class: `box ${kindOf(face.verdict)}`, "aria-hidden": "true" },
      h("span", { class: "tag" }, `${at + 1} `, face.person ? headline(face) : ""));
    Object.assign(box.style, {
      left: `${(100 * left) / photo.width}%`, top: `${(100 * top) / photo.height}%`,
      width: `${(100 * (right - left)) / photo.width}%`, height: `${(100 * (bottom - top)) / photo.height}%`,
    });
    return box;
  }));
}

/** @param {HTMLImageElement} picture Loaded. @param {any} box */
export function cutFace(picture, box) {
  const side = Math.max(box.right - box.left, box.bottom - box.top) * (1 + 2 * MARGIN);
  const x = (box.left + box.right - side) / 2, y = (box.top + box.bottom - side) / 2;
  const canvas = h("canvas", { width: CROP_PX, height: CROP_PX, class: "crop", "aria-hidden": "true" });
  canvas.getContext("2d").drawImage(picture, x, y, side, side, 0, 0, CROP_PX, CROP_PX);
  return canvas;
}
