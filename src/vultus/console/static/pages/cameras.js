// Cameras and videos that the server watches: how they are doing, and what they show.

import { call, listAll, request } from "../parts/api.js";
import { openCameraForm } from "../parts/camera-form.js";
import { announce, confirmErasure } from "../parts/dialogs.js";
import { fill, foreign, h, icon } from "../parts/h.js";
import { problemBox } from "../parts/problem.js";
import { can, session } from "../parts/session.js";
import { formatMoment, formatNumber, t, tryText } from "../parts/words.js";

const EACH = 3000;  // ms
const KINDS = { running: "good", lost: "bad", connecting: "warn" };

class Cameras extends HTMLElement {
  /** @type {Map<string, ReturnType<typeof buildCard>>} */
  cards = new Map();
  turn = 0;
  wake = () => document.hidden || this.watch();

  connectedCallback() {
    this.list = h("ul", { class: "cameras", "aria-busy": "true" });
    this.trouble = h("div", {});
    fill(this,
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, t("cameras")),
        mayChange() && h("button", { type: "button", class: "primary", onclick: () => this.edit(null) }, t("cameras.add"))),
      this.trouble, this.list);
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
      await this.refresh(turn);
      await new Promise((resolve) => setTimeout(resolve, EACH));
    }
  }

  async refresh(turn = this.turn) {
    try {
      const sources = await listAll("sources");
      if (turn !== this.turn) return;
      fill(this.trouble, sources.length ? null : h("div", { class: "empty" }, h("h2", {}, t("cameras.none")),
        h("p", {}, t(mayChange() ? "cameras.none.add" : "cameras.none.read"))));
      this.show(sources);
      for (const source of sources) if (turn === this.turn) await this.takePicture(source);
    } catch (error) {
      if (turn === this.turn) fill(this.trouble, problemBox(error));
    }
    this.list.removeAttribute("aria-busy");
  }

  /** @param {any[]} sources */
  show(sources) {
    for (const [id, card] of this.cards) if (!sources.some((one) => one.id === id)) {
      card.row.remove();
      this.cards.delete(id);
    }
    for (const source of sources) {
      const card = this.cards.get(source.id) ?? this.addCard(source);
      fill(card.text, ...describe(source));
      if (card.enabled !== source.enabled) this.offer(card, source);
      Object.assign(card, { enabled: source.enabled, source });
    }
  }

  /** @param {any} source */
  addCard(source) {
    const card = buildCard(source);
    this.cards.set(source.id, card);
    this.list.append(card.row);
    return card;
  }

  /** @param {any} card @param {any} source */
  offer(card, source) {
    const isFocused = card.actions.contains(document.activeElement);
    /** @param {string} text @param {() => any} act @param {string} [kind] */
    const button = (text, act, kind = "quiet") => h("button", { type: "button", class: kind, "aria-label": `${t(text)}: ${source.name}`, onclick: act }, t(text));
    fill(card.actions,
      mayChange() && button(source.enabled ? "cameras.pause" : "cameras.resume", () => this.attempt(async () => {
        await call("PATCH", `sources/${source.id}`, { json: { enabled: !source.enabled } });
        announce(t(source.enabled ? "cameras.paused" : "cameras.resumed"));
      })),
      mayChange() && button("cameras.change", () => this.edit(card.source)),
      h("a", { class: "button quiet", href: `#/events?source=${source.id}`, "aria-label": `${t("events")}: ${source.name}` }, t("events")),
      can("configure") && button("cameras.delete", () => this.delete(card.source), "quiet danger"));
    if (isFocused) card.actions.querySelector("button").focus();
  }

  /** @param {() => Promise<any>} action */
  async attempt(action) {
    try {
      await action();
      await this.refresh();
    } catch (error) {
      fill(this.trouble, problemBox(error));
      this.trouble.scrollIntoView({ block: "center" });
    }
  }

  /** @param {any} source None for a new one. */
  async edit(source) {
    const done = await openCameraForm(source);
    if (done) await this.attempt(async () => announce(t("cameras.saved")));
  }

  /** @param {any} source */
  async delete(source) {
    if (!await confirmErasure({ title: t("cameras.delete.title", { name: `\u2068${source.name}\u2069` }), text: t("cameras.delete.text"), action: t("cameras.delete") })) return;
    await this.attempt(() => call("DELETE", `sources/${source.id}`));
    this.querySelector("h1")?.focus();
  }

  /** What a source shows now, if it is on the screen. @param {any} source */
  async takePicture(source) {
    const card = this.cards.get(source.id), { top = 0, bottom = 0 } = card?.row.getBoundingClientRect() ?? {};
    if (!card || !can("live") || bottom < 0 || top > innerHeight || document.hidden) return;
    const before = card.picture.src;
    let picture = null;
    if (source.status.state === "running") {
      picture = await request("GET", `sources/${source.id}/snapshot`).then((answer) => answer.blob()).catch(() => null);
    }
    if (!this.isConnected) return;
    card.picture.hidden = !picture;
    card.placeholder.hidden = picture !== null;
    if (picture) card.picture.src = URL.createObjectURL(picture);
    else card.picture.removeAttribute("src");
    if (before) URL.revokeObjectURL(before);
  }
}

function mayChange() {
  return can("configure") && can("live");
}

/** @param {any} source */
function buildCard(source) {
  const picture = h("img", { alt: t("cameras.alt", { name: source.name }), hidden: true });
  const placeholder = h("div", { class: "placeholder" }, icon("cameras"), h("span", {}, t(can("live") ? "cameras.no_picture" : "cameras.may_not_see")));
  const text = h("div", {}), actions = h("div", { class: "actions" });
  const row = h("li", {}, h("div", { class: "stage" }, picture, placeholder), text, actions);
  return { row, picture, placeholder, text, actions, enabled: null, source };
}

/** @param {any} source */
function describe({ name, address, collection_id: collection, status, enabled }) {
  const state = enabled ? status.state : "paused", { problem } = status;
  const known = session.collections.find((one) => one.id === collection);
  return [
    h("div", { class: "badges" }, h("h2", {}, foreign(name)),
      h("span", { class: `badge ${KINDS[/** @type {keyof typeof KINDS} */ (state)] ?? ""}` }, t(`cameras.state.${state}`))),
    h("p", { class: "hint" }, t("cameras.since", { time: formatMoment(status.since) }),
      state === "running" && [" · ", t("cameras.fps", { n: formatNumber(status.fps, 1) })],
      state === "running" && status.dropped > 0 && [" · ", t("cameras.dropped", { n: formatNumber(status.dropped) })]),
    problem && h("p", { class: "remedy" }, tryText(`source.${problem.code}`, problem.description)),
    h("p", { class: "hint" }, foreign(address), known && [" · ", foreign(known.name)]),
  ];
}

customElements.define("vultus-cameras", Cameras);
