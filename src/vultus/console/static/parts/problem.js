// What went wrong, why, and what to do about it.

import { Problem } from "./api.js";
import { h } from "./h.js";
import { count, t, tryText } from "./words.js";

const PASSING = ["unreachable", "overloaded", "database_unavailable", "internal"];

/**
 * @param {unknown} error
 * @param {() => void} [again] What failed, and may work the next time.
 */
export function problemBox(error, again) {
  const problem = error instanceof Problem ? error : new Problem("internal", error instanceof Error ? error.message : String(error));
  const fields = (problem.facts.errors ?? []).length > 1 ? problem.facts.errors : [];
  const wait = problem.facts.retry_after_s;
  return h("div", { class: "notice bad", role: "alert" },
    h("strong", {}, tryText(`problem.${problem.code}`, problem.facts.title ?? t("problem.internal"))),
    fields.length
      ? h("ul", {}, fields.map((/** @type {any} */ one) => h("li", {}, `${one.path}: ${one.message}`)))
      : problem.message && h("p", { lang: problem.code === "camera" ? null : "en" }, problem.message),
    h("p", { class: "remedy" }, tryText(`remedy.${problem.code}`, t("remedy.other"))),
    wait && h("p", {}, count("problem.wait", Math.ceil(wait))),
    again && PASSING.includes(problem.code) && h("div", { class: "actions" }, h("button", { type: "button", onclick: again }, t("problem.again"))));
}

/**
 * Say that something is being loaded, and show what came of it.
 * @param {HTMLElement} place
 * @param {() => Promise<any>} work
 */
export async function load(place, work) {
  place.setAttribute("aria-busy", "true");
  try {
    return await work();
  } catch (error) {
    place.replaceChildren(problemBox(error, () => {
      place.replaceChildren();
      document.getElementById("main")?.focus();
      load(place, work);
    }));
  } finally {
    place.removeAttribute("aria-busy");
  }
}
