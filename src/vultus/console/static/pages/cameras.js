// Cameras and videos that the server watches: how they are doing, and what they show.

import { call, listAll, request } from "../parts/api.js";
import { button, emptyBox, isolate, pageHead } from "../parts/controls.js";
import { announce, confirmErasure } from "../parts/dialogs.js";
import { field, openForm } from "../parts/forms.js";
import { fill, foreign, h, icon } from "../parts/h.js";
import { problemBox } from "../parts/problem.js";
import { can, session } from "../parts/session.js";
import { formatMoment, formatNumber, t, tryText } from "../parts/words.js";

const EACH = 3000;  // ms
/** @type {Record<string, string>} */
const KINDS = { running: "good", lost: "bad", connecting: "warn" };
const NUMBERS = ["min_face_px", "idle_fps", "fps"];

class Cameras extends HTMLElement {
  /** @type {Map<string, any>} */
  cards = new Map();
  turn = 0;
  wake = () => document.hidden || this.watch();

  connectedCallback() {
    this.list = h("ul", { class: "cameras" });
    this.trouble = h("div", {});
    this.state = h("div", {});  // of the list
    fill(this, pageHead("cameras", mayChange() && button("cameras.add", () => this.edit(null), "primary")), this.trouble, this.state, this.list);
    document.addEventListener("visibilitychange", this.wake);
    this.watch();
  }

  disconnectedCallback() {
    this.turn += 1;
    document.removeEventListener("visibilitychange", this.wake);
    for (const card of this.cards.values()) URL.revokeObjectURL(card.picture.src);
  }

  /** Look again and again, as long as somebody can see it. */
  async watch() {
    const turn = (this.turn += 1);
    while (turn === this.turn && !document.hidden) {
      await this.refresh();
      await new Promise((resolve) => setTimeout(resolve, EACH));
    }
  }

  async refresh() {
    const { turn } = this;
    try {
      const sources = await listAll("sources");
      if (turn !== this.turn) return;
      fill(this.state, sources.length === 0 && emptyBox("cameras.none", mayChange() ? "cameras.none.add" : "cameras.none.read"));
      for (const [id, card] of this.cards) if (!sources.some((one) => one.id === id)) {
        card.row.remove();
        this.cards.delete(id);
      }
      sources.forEach((one) => this.show(one));
      for (const one of sources) if (turn === this.turn) await this.takePicture(one);
    } catch (error) {
      if (turn === this.turn) fill(this.state, problemBox(error));
    }
  }

  /** @param {any} source */
  show(source) {
    const card = this.cards.get(source.id) ?? buildCard(source);
    if (!card.row.isConnected) this.list.append(card.row);
    this.cards.set(source.id, card);
    fill(card.text, ...describe(source));
    card.source = source;
    if (card.enabled === source.enabled) return;
    card.enabled = source.enabled;
    const isFocused = card.actions.contains(document.activeElement), { name } = source;
    fill(card.actions,
      mayChange() && button(source.enabled ? "cameras.pause" : "cameras.resume", () => this.attempt(source.enabled ? "cameras.paused" : "cameras.resumed",
        () => call("PATCH", `sources/${source.id}`, { json: { enabled: !source.enabled } })), "quiet", name),
      mayChange() && button("cameras.change", () => this.edit(card.source), "quiet", name),
      h("a", { class: "button quiet", href: `#/events?source=${source.id}`, "aria-label": `${t("events")}: ${name}` }, t("events")),
      can("configure") && button("cameras.delete", () => this.delete(source), "quiet danger", name));
    if (isFocused) card.actions.querySelector("button").focus();
  }

  /** @param {string} outcome Of the catalogue. @param {() => Promise<any>} action */
  async attempt(outcome, action) {
    fill(this.trouble);
    try {
      await action();
      announce(t(outcome));
      await this.refresh();
    } catch (error) {
      fill(this.trouble, problemBox(error));
      this.trouble.scrollIntoView({ block: "center" });
    }
  }

  /** @param {any} source None for a new one. */
  async edit(source) {
    if (await openCameraForm(source)) await this.attempt("cameras.saved", async () => {});
  }

  /** @param {any} source */
  async delete({ id, name }) {
    if (!await confirmErasure({ title: t("cameras.delete.title", { name: isolate(name) }), text: t("cameras.delete.text"), action: t("cameras.delete") })) return;
    await this.attempt("cameras.deleted", () => call("DELETE", `sources/${id}`));
    this.querySelector("h1")?.focus();
  }

  /** What a source shows now, if it is on the screen. @param {any} source */
  async takePicture({ id, status }) {
    const card = this.cards.get(id);
    if (!card) return;
    const { row, picture, placeholder } = card, { top, bottom } = row.getBoundingClientRect(), before = picture.src;
    if (!can("live") || bottom < 0 || top > innerHeight || document.hidden) return;
    const taken = status.state === "running" && await request("GET", `sources/${id}/snapshot`).then((answer) => answer.blob()).catch(() => null);
    if (!this.isConnected) return;
    picture.hidden = !taken;
    placeholder.hidden = Boolean(taken);
    if (taken) picture.src = URL.createObjectURL(taken);
    else picture.removeAttribute("src");
    if (before) URL.revokeObjectURL(before);
  }
}

function mayChange() {
  return can("configure") && can("live");
}

/** @param {any} source */
function buildCard({ name }) {
  const picture = h("img", { alt: t("cameras.alt", { name }), hidden: true }), text = h("div", {}), actions = h("div", { class: "actions" });
  const placeholder = h("div", { class: "placeholder" }, icon("cameras"), h("span", {}, t(can("live") ? "cameras.no_picture" : "cameras.may_not_see")));
  return { row: h("li", {}, h("div", { class: "stage" }, picture, placeholder), text, actions), picture, placeholder, text, actions };
}

/** @param {any} source */
function describe({ name, address, collection_id: collection, enabled, status: { state, since, fps, problem } }) {
  const known = session.collections.find((one) => one.id === collection);
  return [
    h("div", { class: "badges" }, h("h2", {}, foreign(name)), h("span", { class: `badge ${KINDS[state] ?? ""}` }, t(`cameras.state.${enabled ? state : "paused"}`))),
    h("p", { class: "hint" }, t("cameras.since", { time: formatMoment(since) }),
      state === "running" && [" · ", t("cameras.fps", { n: formatNumber(fps, 1) })]),
    problem && h("p", { class: "remedy" }, tryText(`source.${problem.code}`, problem.description)),
    h("p", { class: "hint" }, foreign(address), known && [" · ", foreign(known.name)]),
  ];
}

/**
 * @param {any} source None for a new one.
 * @returns {Promise<any>} As it is now; undefined where nothing was changed.
 */
function openCameraForm(source) {
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

customElements.define("vultus-cameras", Cameras);
