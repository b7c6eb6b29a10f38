// What the rules of a collection are called, and how their values read.

import { call } from "./api.js";
import { formatMoment, formatNumber, t, tryText } from "./words.js";

/** @param {string} path Of a setting, such as `policy.enrol.min_score`. */
export function nameRule(path) {
  const parts = path.split("."), name = parts.at(-1) ?? "";
  const rule = tryText(`rule.${name}`, name);
  return parts.length > 2 ? t("rules.of", { group: t(`rules.${parts[1]}`), rule }) : rule;
}

/** @type {any} */
let schemas = null;

/**
 * Read what a change of a collection may hold, which the description of the API says.
 * @returns {Promise<(path: string) => any>} The schema of a setting.
 */
export async function readLimits() {
  schemas ??= (await call("GET", "../openapi.json")).components.schemas;
  /** @param {any} schema @returns {any} */
  const follow = (schema) => (schema.$ref ? follow(schemas[schema.$ref.split("/").pop()]) : schema.anyOf ? follow(schema.anyOf[0]) : schema);
  return (path) => path.split(".").reduce((schema, name) => follow(schema.properties[name]), schemas.CollectionPatch);
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

/** @param {any} collection @returns {Record<string, any>} Its settings by path. */
export function flatten({ policy, name, retention_days, unseen_days, search }) {
  return { ...(name === undefined ? {} : { name }), retention_days, unseen_days, search, ...spread("policy", policy) };
}

/** @param {string} prefix @param {any} value @returns {Record<string, any>} */
function spread(prefix, value) {
  if (value === null || typeof value !== "object") return { [prefix]: value };
  return Object.assign({}, ...Object.entries(value).map(([name, inner]) => spread(`${prefix}.${name}`, inner)));
}

/** @param {Record<string, any>} changes By path. @returns {any} */
export function nest(changes) {
  /** @type {any} */
  const patch = {};
  for (const [path, value] of Object.entries(changes)) {
    const names = path.split("."), last = names.pop() ?? "";
    names.reduce((inner, name) => (inner[name] ??= {}), patch)[last] = value;
  }
  return patch;
}
