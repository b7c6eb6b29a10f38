// Adding a camera, or changing one.

import { call } from "./api.js";
import { field, openForm } from "./forms.js";
import { h } from "./h.js";
import { session } from "./session.js";
import { t } from "./words.js";

const NUMBERS = ["min_face_px", "idle_fps", "fps"];

/**
 * @param {any} source None for a new one.
 * @returns {Promise<any>} As it is now; undefined where nothing was changed.
 */
export function openCameraForm(source) {
  const numbers = NUMBERS.map((name) => field(t(`camera_form.${name}`), h("input", {
    name, type: "number", step: "any", min: 0.01, max: name === "min_face_px" ? 10_000 : 60, value: source?.[name], placeholder: t("camera_form.default"),
  })));
  return openForm({
    title: t(source ? "cameras.change" : "cameras.add"),
    action: t(source ? "camera_form.save" : "cameras.add"),
    parts: [
      !source && h("p", { class: "notice warn" }, t("camera_form.law")),
      field(t("enrol.name"), h("input", { name: "name", required: true, maxlength: 200, value: source?.name })),
      !source && field(t("collection"), h("select", { name: "collection" },
        session.collections.map((one) => h("option", { value: one.id ?? one.name, selected: one.name === session.collection }, one.name))), t("camera_form.collection")),
      field(t("camera_form.address"), h("input", {
        name: "address", required: !source, autocomplete: "off", spellcheck: "false", placeholder: source ? t("camera_form.address.keep") : "rtsp://user:password@192.168.7.20/stream1",
      }), t("camera_form.address.hint")),
      h("details", {}, h("summary", {}, t("camera_form.more")), h("div", { class: "fields" }, numbers), h("p", { class: "hint" }, t("camera_form.zones"))),
    ],
    send: (form) => {
      const json = Object.fromEntries([...form].filter(([name, value]) => value || NUMBERS.includes(name)));
      for (const name of NUMBERS) json[name] = json[name] ? Number(json[name]) : /** @type {any} */ (null);
      return source ? call("PATCH", `sources/${source.id}`, { json }) : call("POST", "sources", { json });
    },
  });
}
