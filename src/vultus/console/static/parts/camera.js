// Takes one photo with the camera.

import { h } from "./h.js";
import { t } from "./words.js";

/** @returns {Promise<MediaStream>} */
export async function openCamera(/** @type {MediaTrackConstraints} */ wish) {
  if (!navigator.mediaDevices) throw new Error(t("camera.insecure"));
  try {
    return await navigator.mediaDevices.getUserMedia({ video: wish });
  } catch (error) {
    throw new Error(t(error instanceof Error && error.name === "NotFoundError" ? "camera.none" : "camera.refused"));
  }
}

/**
 * Show the camera until a photo was taken.
 * @param {() => boolean} isWanted False once whoever asked is gone: then the camera ends at once.
 * @returns {Promise<File | null>} Null if none was.
 */
export async function takePhoto(isWanted) {
  const camera = await openCamera({ width: { ideal: 1280 }, height: { ideal: 960 }, facingMode: "user" });
  const video = h("video", { muted: true, playsinline: true, "aria-label": t("camera.picture") });
  video.srcObject = camera;
  await video.play().catch(() => {});
  if (!isWanted()) {
    camera.getTracks().forEach((track) => track.stop());
    return null;
  }
  /** @type {File | null} */
  let photo = null;
  return new Promise((resolve) => {
    const dialog = h("dialog", { class: "camera", "aria-labelledby": "camera-title", onclose: () => {
      camera.getTracks().forEach((track) => track.stop());
      dialog.remove();
      resolve(photo);
    } },
      h("h2", { id: "camera-title" }, t("camera.title")),
      video,
      h("p", { class: "hint" }, t("camera.hint")),
      h("div", { class: "actions" },
        h("button", { type: "button", onclick: () => dialog.close() }, t("cancel")),
        h("button", { type: "button", class: "primary", autofocus: true, onclick: async () => {
          photo = await grabFrame(video);
          dialog.close();
        } }, t("camera.take"))));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** @param {HTMLVideoElement} video @returns {Promise<File | null>} */
function grabFrame(video) {
  const canvas = h("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(
    (/** @type {Blob | null} */ blob) => resolve(blob && new File([blob], "camera.jpg", { type: "image/jpeg" })), "image/jpeg", 0.92));
}
