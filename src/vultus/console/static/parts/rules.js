// What the rules of a collection are called, and how their values read.

import { formatMoment, formatNumber, t, tryText } from "./words.js";

/** @param {string} path Of a setting, such as `policy.enrol.min_score`. */
export function nameRule(path) {
  const parts = path.split("."), name = parts.at(-1) ?? "";
  return (parts.length > 2 ? `${t(`rules.${parts[1]}`)} · ` : "") + tryText(`rule.${name}`, name);
}

/** @param {unknown} value Of the API. @returns {string} */
export function nameValue(value) {
  if (value === null) return t("value.none");
  if (typeof value === "boolean") return t(`value.${value}`);
  if (typeof value === "number") return formatNumber(value, Math.min(6, (String(value).split(".")[1] ?? "").length));
  if (Array.isArray(value)) return value.map(nameValue).join(", ");
  if (typeof value === "object") return Object.entries(value ?? {}).map(([name, inner]) => `${name} ${nameValue(inner)}`).join(", ");
  const text = String(value);
  return /^\d{4}-\d\d-\d\dT/.test(text) ? formatMoment(text) : tryText(`value.${text}`, text);
}
