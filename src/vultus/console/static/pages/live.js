// The camera, with names on the faces.

import { openCamera } from "../parts/camera.js";
import { announce } from "../parts/dialogs.js";
import { fill, foreign, h, icon } from "../parts/h.js";
import { LiveSession } from "../parts/live-session.js";
import { problemBox } from "../parts/problem.js";
import { Problem } from "../parts/api.js";
import { session } from "../parts/session.js";
import { headline, kindOf, nameOf } from "../parts/verdicts.js";
import { formatNumber, formatTime, t } from "../parts/words.js";

const COLOURS = { good: "#1a7f4b", warn: "#8a5a00", bad: "#ad2118", "": "#565c6e" };
const MAX_HISTORY = 30;
const NOBODY = "nobody";  // and nothing is drawn
const MEASURED_EACH = 500;  // ms

class Live extends HTMLElement {
  /** @type {LiveSession | null} */
  session = null;
  /** @type {MediaStream | null} */
  camera = null;
  /** @type {Map<string, string>} What was last told of each track. */
  told = new Map();
  inView = "";
  measuredAt = 0;

  connectedCallback() {
    this.video = h("video", { muted: true, playsinline: true, "aria-label": t("camera.picture") });
    this.video.muted = true;
    this.overlay = h("canvas", { "aria-hidden": "true" });
    this.pen = this.overlay.getContext("2d");
    this.button = h("button", { type: "button", class: "primary", onclick: () => (this.camera ? this.stop(t("live.stopped")) : this.start()) });
    this.status = h("p", { role: "status" }, t("live.text"));
    this.trouble = h("div", {});
    this.figures = h("p", { class: "hint figures" });
    this.tracks = h("ul", { class: "tracks" });
    this.history = h("ol", { class: "history" });
    fill(this,
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, t("live")), this.button),
      this.status, this.trouble,
      h("div", { class: "live" },
        h("div", {}, this.stage = h("div", { class: "stage" }, this.video, this.overlay, this.placeholder = h("div", { class: "placeholder" }, icon("camera"))), this.figures),
        h("div", {},
          h("section", { "aria-labelledby": "in-view" }, h("h2", { id: "in-view" }, t("live.in_view")), this.tracks),
          this.past = h("section", { "aria-labelledby": "happened", hidden: true }, h("h2", { id: "happened" }, t("live.history")), this.history))));
    this.showButton();
    this.clear();
  }

  disconnectedCallback() {
    this.stop("");
  }

  showButton() {
    this.placeholder.hidden = this.camera !== null;
    fill(this.button, icon(this.camera ? "live" : "camera"), t(this.camera ? "live.stop" : "live.start"));
  }

  async start() {
    this.button.disabled = true;
    fill(this.trouble);
    try {
      this.say(t("live.asking"));
      this.camera = await openCamera({ width: { ideal: 640 }, height: { ideal: 480 } });
      if (!this.isConnected) return this.stop("");
      this.camera.getTracks().forEach((track) => { track.onended = () => this.stop(t("live.stopped")); });
      this.video.srcObject = this.camera;
      await this.video.play();
      if (!this.camera) throw new Error();
      this.stage.style.aspectRatio = `${this.video.videoWidth} / ${this.video.videoHeight}`;
      this.session = new LiveSession(this.video, {
        say: (text) => this.say(text), show: (result) => this.show(result), clear: () => this.clear(), end: () => this.stop(""),
      });
      await this.session.start(session.collection);
    } catch (error) {
      this.stop(t("live.stopped"));
      fill(this.trouble, problemBox(error instanceof Problem ? error : new Problem("camera", error instanceof Error ? error.message : "")));
    }
    this.button.disabled = false;
    this.showButton();
  }

  /** @param {string} reason Told, unless it was already. */
  stop(reason) {
    this.session?.stop();
    this.session = null;
    this.camera?.getTracks().forEach((track) => track.stop());
    this.camera = null;
    this.told.clear();
    this.clear();
    this.figures.textContent = "";
    this.showButton();
    if (reason) this.say(reason);
  }

  /** @param {string} text */
  say(text) {
    this.status.textContent = text;
  }

  /** @param {any} result */
  show(result) {
    this.draw(result);
    this.list(result.tracks);
    this.remember(result.tracks);
    const now = performance.now();
    if (!this.session || now < this.measuredAt + MEASURED_EACH) return;
    this.measuredAt = now;
    const { rate, middle, slow, dropped } = this.session.figures;
    this.figures.textContent = t("live.figures", {
      rate: formatNumber(rate, 1), middle: formatNumber(middle), slow: formatNumber(slow), dropped: formatNumber(dropped),
    });
  }

  /** @param {any} result */
  draw(result) {
    const { overlay, pen } = this;
    if (overlay.width !== result.width || overlay.height !== result.height) Object.assign(overlay, { width: result.width, height: result.height });
    pen.clearRect(0, 0, overlay.width, overlay.height);
    const size = Math.round(result.width / 32);
    pen.lineWidth = size / 7;
    pen.font = `600 ${size}px system-ui, sans-serif`;
    for (const track of result.tracks) {
      const { left, top, right, bottom } = track.box;
      const name = track.person ? nameOf(track.person) : track.verdict ? t(`verdict.${track.verdict}`) : "…";
      const width = Math.min(pen.measureText(name).width + size, Math.max(10 * size, right - left));
      pen.strokeStyle = pen.fillStyle = COLOURS[/** @type {keyof typeof COLOURS} */ (kindOf(track.verdict))];
      pen.strokeRect(left, top, right - left, bottom - top);
      pen.save();
      pen.beginPath();
      pen.rect(left - pen.lineWidth / 2, bottom, width, size * 1.5);
      pen.fill();
      pen.clip();  // a name, however long or high, covers no other one
      pen.fillStyle = "#fff";
      pen.fillText(name, left + size / 3, bottom + size * 1.1);
      pen.restore();
    }
  }

  /** Who is in view, for those who read instead of look. @param {any[]} tracks */
  list(tracks) {
    const names = tracks.map((one) => (one.person ? nameOf(one.person) : "")).join("|");
    const inView = `${names} ${tracks.map((one) => `${one.track_id}${one.verdict}`).join()}`;
    if (inView === this.inView) return;
    this.inView = inView;
    this.dataset.names = names;
    fill(this.tracks, tracks.length ? tracks.map((one) =>
      h("li", {}, h("span", { class: `badge ${kindOf(one.verdict)}` }, headline(one)), h("span", { class: "hint" }, t("live.since", { time: formatTime(one.first_seen_at) }))))
      : h("li", { class: "hint" }, t("live.nobody")));
  }

  /** What each track went through, newest first. @param {any[]} tracks */
  remember(tracks) {
    const present = new Map(tracks.map((one) => [one.track_id, one]));
    for (const track of tracks) {
      const now = track.person?.id ?? track.verdict ?? "none";
      if (this.told.get(track.track_id) === now) continue;
      this.told.set(track.track_id, now);
      this.tell(headline(track), kindOf(track.verdict));
      if (track.person) announce(t("live.seen", { name: nameOf(track.person) }));
    }
    for (const id of this.told.keys()) if (!present.has(id)) {
      this.told.delete(id);
      this.tell(t("live.gone"), "");
    }
  }

  /** @param {Node | string} text @param {string} kind */
  tell(text, kind) {
    this.past.hidden = false;
    this.history.prepend(h("li", {}, h("time", {}, formatTime(new Date().toISOString())), h("span", { class: `badge ${kind}` }, text)));
    while (this.history.children.length > MAX_HISTORY) this.history.lastChild.remove();
  }

  clear() {
    if (this.inView === NOBODY) return;
    this.pen.clearRect(0, 0, this.overlay.width, this.overlay.height);
    this.list([]);
    this.inView = NOBODY;
  }
}

customElements.define("vultus-live", Live);
