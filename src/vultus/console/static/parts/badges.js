// How good a face is, in a few words.

import { h } from "./h.js";
import { formatNumber, t } from "./words.js";

const STRAIGHT_DEG = 15;

/** @param {Record<string, any>} quality As the API measured it. */
export function qualityBadges(quality) {
  const turned = Math.max(Math.abs(quality.yaw_deg), Math.abs(quality.pitch_deg));
  const words = quality.size_px
    ? [
        t("badge.size", { n: formatNumber(quality.size_px) }),
        t("badge.sharpness", { n: formatNumber(quality.sharpness) }),
        t("badge.brightness", { n: formatNumber(quality.brightness * 100) }),
        turned < STRAIGHT_DEG ? t("badge.straight") : t("badge.turned", { n: formatNumber(turned) }),
      ]
    : [t("badge.vector")];
  return h("ul", { class: "badges", "aria-label": t("badge.label") }, words.map((word) => h("li", { class: "badge" }, word)));
}

/** What the badges mean, for those who ask. */
export function badgeHelp() {
  return h("details", {}, h("summary", {}, t("badge.help")), h("p", { class: "hint" }, t("badge.help.text")));
}
