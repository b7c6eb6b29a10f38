// Another network for a collection in use: start, watch, judge, switch, and go back or finish.

import { call, listAll } from "../parts/api.js";
import { actions, button, emptyBox, pageHead, section, tellDone } from "../parts/controls.js";
import { confirmErasure } from "../parts/dialogs.js";
import { dropzone } from "../parts/dropzone.js";
import { fill, foreign, h } from "../parts/h.js";
import { linkPerson } from "../parts/person-link.js";
import { buildTable } from "../parts/plot.js";
import { load, problemBox } from "../parts/problem.js";
import { can, session } from "../parts/session.js";
import { nameOf } from "../parts/verdicts.js";
import { count, formatNumber, formatShare, t, tryText } from "../parts/words.js";

const PAUSE_MS = 2_000, SHOWN = 20, COMPARED_FMR = 1e-4;

class Migration extends HTMLElement {
  path = "";
  place = "";
  connectedCallback() {
    this.place = `collections/${encodeURIComponent(session.collection)}`;
    this.path = `${this.place}/transition`;
    this.trouble = h("div", {});
    this.body = h("div", { class: "results" });
    fill(this, pageHead("migration"), h("p", {}, t("migration.text")), this.trouble, this.body);
    load(this.body, () => this.show());
  }

  async show() {
    const [collection, { items }] = await Promise.all([call("GET", this.place), call("GET", "models")]);
    const state = collection.second_contract_id && await call("GET", this.path);
    if (!this.isConnected) return;
    /** @type {any[]} */
    this.models = items;
    if (state) this.showProgress(state);
    else fill(this.body, this.buildStart(collection, items.filter((/** @type {any} */ one) => one.contract_id !== collection.contract_id)));
  }

  /** @param {string} space */
  packOf(space) {
    return this.models?.find((one) => one.contract_id === space)?.pack ?? space;
  }

  /** @param {any} collection @param {any[]} others Loaded networks that it does not use. */
  buildStart(collection, others) {
    const intro = h("p", {}, t("migration.now", { pack: this.packOf(collection.contract_id) }));
    if (!others.length) return emptyBox("migration.none", "migration.none.text", intro);
    const share = h("input", { type: "checkbox" });
    const choices = others.map((one, at) => h("input", { type: "radio", name: "pack", value: one.pack, checked: at === 0 })), models = this.models ?? [];
    return section("start", t("migration.choose"), intro,
      buildTable(t("migration.choose"), [t("migration.network"), t("migration.licence"), t("calibration.rate.fnmr"), t("overview.column.fmr"), t("overview.column.worst")], models.map((one) => {
        const point = one.operating_points.find((/** @type {any} */ each) => each.false_match_rate <= COMPARED_FMR) ?? one.operating_points[0];
        return [h("label", { class: "check" }, choices[others.indexOf(one)] ?? h("span", { class: "badge" }, t("overview.in_use")), one.pack),
          [...new Set(Object.values(one.licences)), t(one.commercial_use ? "overview.commercial" : "overview.research")].join(", "),
          ...["false_non_match_rate", "false_match_rate", "worst_group_false_match_rate"].map((name) => (point[name] === null ? "–" : formatShare(point[name])))];
      })),
      h("label", { class: "check" }, share, t("migration.shadow")),
      !collection.policy.keep_crops && collection.faces > 0 && h("p", { class: "notice warn" }, t("migration.no_crops")),
      actions(button("migration.start", () => this.start(choices.find((one) => one.checked).value, share.checked ? 0.1 : 0), "primary")));
  }

  /** @param {string} pack @param {number} share */
  start(pack, share) {
    return this.act(() => call("POST", this.path, { json: { pack, shadow_share: share } }), "migration.started");
  }

  /** @param {any} state */
  showProgress(state) {
    const target = targetOf(state), step = target === state.active ? "over" : "before";
    const names = { now: this.packOf(state.active.contract_id), other: this.packOf(state.second.contract_id) };
    this.bar = h("progress", { "aria-label": t("migration.progress") });
    this.figures = h("p", { role: "status" });
    const compared = h("div", { class: "results" });
    fill(this.body,
      section("progress", t(`migration.${step}`, names), this.bar, this.figures,
        target.pending > 0 && h("p", { class: "hint" }, t("migration.waiting")), h("p", {}, t(`migration.${step}.text`, names)),
        actions(h("button", { type: "button", class: "primary", onclick: () => this.act(() => this.insist("POST", `${this.path}/switch`), "migration.switched") }, t(`migration.${step}.switch`, names)),
          button(`migration.${step}.finish`, () => this.finish(step, names), "danger"))),
      can("scores") && section("compare", t("migration.compare"), h("p", {}, t("migration.compare.text")),
        actions(button("migration.compare.start", () => load(compared, async () => fill(compared, ...await this.compare(names))))), compared),
      target.missing > target.pending && this.buildLeft(state));
    this.tell(target);
    if (target.pending) this.follow(this.bar);
  }

  /** @param {any} target How far it covers the faces. */
  tell({ faces, missing, pending }) {
    Object.assign(this.bar, { max: faces + missing || 1, value: faces });
    const told = [t("migration.done", { n: formatNumber(faces), all: formatNumber(faces + missing) }),
      pending && count("migration.pending", pending), missing > pending && count("migration.failed", missing - pending)].filter(Boolean).join(" · ");
    if (this.figures.textContent !== told) this.figures.textContent = told;
  }

  /** Read the progress until nothing is pending, or something else is shown. @param {HTMLElement} bar */
  async follow(bar) {
    await new Promise((resolve) => { setTimeout(resolve, PAUSE_MS); });
    if (!bar.isConnected) return;
    const state = await call("GET", this.path).catch(() => null);
    if (!bar.isConnected) return;
    if (state) this.tell(targetOf(state));
    if (state && !targetOf(state).pending) this.act(async () => {}, "migration.complete");
    else this.follow(bar);
  }

  /** Do something that leaves nobody behind; or all the same, where that was said. @param {string} method @param {string} path */
  async insist(method, path) {
    try {
      await call(method, path);
    } catch (/** @type {any} */ problem) {
      if (problem.code !== "transition_incomplete") throw problem;
      const { pending, persons } = problem.facts, text = t("migration.incomplete.text", { pending: formatNumber(pending), persons: formatNumber(persons) });
      if (!await confirmErasure({ title: t("migration.incomplete"), text, action: t("migration.leave") })) throw problem;
      await call(method, path, { query: { leave_behind: true } });
    }
  }

  /** @param {string} step @param {Record<string, string>} names */
  async finish(step, names) {
    const question = { title: t(`migration.${step}.finish.title`, names), text: t(`migration.${step}.finish.text`, names), action: t(`migration.${step}.finish`, names) };
    if (await confirmErasure(question)) await this.act(() => this.insist("DELETE", this.path), "migration.finished");
  }

  /** @param {() => Promise<any>} action @param {string} told */
  async act(action, told) {
    try {
      await action();
      await this.show();
      tellDone(this.trouble, told);
      this.querySelector("h1")?.focus();
    } catch (problem) {
      fill(this.trouble, problemBox(problem));
    }
  }

  /** @param {Record<string, string>} names @returns {Promise<any[]>} */
  async compare(names) {
    const { compared, agreed, active_wrong, second_wrong, disagreements, shadow } = await call("GET", `${this.path}/comparison`);
    const tell = async (/** @type {any} */ one) => h("div", {},
      one.verdict === "match" ? await linkPerson(one.person_id) : t(`verdict.${one.verdict}`), " ",
      h("span", { class: `badge ${one.right ? "good" : "bad"}` }, t(one.right ? "migration.right" : "migration.wrong")),
      one.similarity !== null && h("small", {}, t("migration.similar", { n: formatNumber(one.similarity, 3), threshold: formatNumber(one.threshold, 3) })));
    const rows = await Promise.all(disagreements.slice(0, SHOWN).map(async (/** @type {any} */ one) => Promise.all([linkPerson(one.person_id), tell(one.active), tell(one.second)])));
    return [h("p", {}, t("migration.compared", { compared: formatNumber(compared), agreed: formatNumber(agreed) }), " ",
      t("migration.wrongs", { ...names, active: formatNumber(active_wrong), second: formatNumber(second_wrong) })),
    shadow.compared > 0 && h("p", {}, t("migration.shadowed", { compared: formatNumber(shadow.compared), agreed: formatNumber(shadow.agreed) })),
    rows.length > 0 && buildTable(t("migration.differ"), [t("migration.face_of"), names.now, names.other], rows)].filter(Boolean);
  }

  /** Who is not found by the new network, and how that is mended. @param {any} state */
  buildLeft(state) {
    const list = h("ul", { class: "rows" }), outcomes = h("ul", {});
    load(list, async () => {
      const persons = await listAll(`${this.path}/left-behind`);
      fill(list, persons.map((one) => h("li", {}, h("div", {}, can("read") ? h("a", { href: `#/people/${one.person_id}` }, foreign(nameOf(one))) : foreign(nameOf(one)),
        h("span", { class: "hint" }, one.reasons.map((/** @type {string} */ reason) => tryText(`migration.reason.${reason}`, reason)).join(" "))))));
    });
    const supply = async (/** @type {File[]} */ files) => {
      for (const file of files) {
        const form = new FormData();
        form.append("photo", file);
        const told = await call("POST", `${this.path}/photos`, { form }).then(({ photos: [one] }) => tryText(`migration.photo.${one.outcome}`, tryText(`reason.${one.outcome}`, one.outcome)), (problem) => problem.message);
        if (!this.isConnected) return;
        outcomes.append(h("li", {}, foreign(file.name), `: ${told}`));
      }
      tellDone(this.trouble, "migration.supplied");
      try {
        this.tell(targetOf(await call("GET", this.path)));
      } catch (problem) {
        fill(this.trouble, problemBox(problem));
      }
    };
    return section("left", t("migration.left"), h("p", {}, t("migration.left.text")), list,
      h("div", { class: "sources" }, dropzone(supply, t("migration.supply"))), outcomes,
      actions(button("migration.retry", () => this.start(this.packOf(state.target_contract_id), state.shadow_share))));
  }
}

/** @param {any} state @returns {any} The side that the collection is moved to. */
function targetOf({ active, second, target_contract_id }) {
  return active.contract_id === target_contract_id ? active : second;
}

customElements.define("vultus-migration", Migration);
