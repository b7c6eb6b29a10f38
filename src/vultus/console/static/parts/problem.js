// What went wrong, why, and what to do about it.

import { Problem } from "./api.js";
import { h } from "./h.js";
import { count, t, tryText } from "./words.js";

/** @param {unknown} error */
export function problemBox(error) {
  const problem = error instanceof Problem ? error : new Problem("internal", error instanceof Error ? error.message : String(error));
  const fields = (problem.facts.errors ?? []).length > 1 ? problem.facts.errors : [];
  const wait = problem.facts.retry_after_s;
  return h("div", { class: "notice bad", role: "alert" },
    h("strong", {}, tryText(`problem.${problem.code}`, problem.facts.title ?? t("problem.internal"))),
    fields.length
      ? h("ul", {}, fields.map((/** @type {any} */ one) => h("li", {}, `${one.path}: ${one.message}`)))
      : problem.message && h("p", { lang: problem.code === "camera" ? null : "en" }, problem.message),
    h("p", { class: "remedy" }, tryText(`remedy.${problem.code}`, t("remedy.other"))),
    wait && h("p", {}, count("problem.wait", Math.ceil(wait))));
}

/**
 * Say that something is being loaded, and show what came of it.
 * @param {HTMLElement} place
 * @param {() => Promise<any>} load
 */
export async function load(place, load) {
  place.setAttribute("aria-busy", "true");
  try {
    return await load();
  } catch (error) {
    place.replaceChildren(problemBox(error));
  } finally {
    place.removeAttribute("aria-busy");
  }
}
