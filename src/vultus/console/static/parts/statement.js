// The sentence a person agrees to, in their own language: to be read by somebody, by themselves, or by the browser.

import { fill, foreign, h } from "./h.js";
import { session } from "./session.js";
import { LANGUAGES, getLanguage, readTexts, t } from "./words.js";

const NUMBER = 1;  // of the wording, as docs/console.md has it: another wording gets another number
const voices = globalThis.speechSynthesis;

export class Statement extends HTMLElement {
  language = getLanguage();
  purpose = "";
  ends = "";
  /** @type {Record<string, string>} */
  texts = {};
  offer = () => { this.voice.hidden = !this.findVoice(); };

  connectedCallback() {
    this.chosen = h("select", { onchange: () => this.choose(this.chosen.value) },
      Object.entries(LANGUAGES).map(([code, name]) => h("option", { value: code, selected: code === this.language, lang: code }, name)));
    this.quote = h("blockquote");
    this.voice = h("button", { type: "button", hidden: true, onclick: () => (voices.speaking ? this.hush() : this.speak()) }, t("statement.speak"));
    fill(this, this.quote, h("div", { class: "actions" },
      h("label", {}, t("statement.language"), this.chosen),
      h("button", { type: "button", onclick: () => this.enlarge() }, t("statement.large")), this.voice));
    voices?.addEventListener("voiceschanged", this.offer);
    this.choose(this.language);
  }

  disconnectedCallback() {
    voices?.removeEventListener("voiceschanged", this.offer);
    this.hush();
  }

  /** Which wording it is, for the record of the consent. */
  get reference() {
    return t("statement.reference", { n: NUMBER, language: LANGUAGES[/** @type {keyof typeof LANGUAGES} */ (this.language)] });
  }

  /** @param {string} language */
  async choose(language) {
    const texts = await readTexts(language).catch(() => null);
    if (!texts) this.chosen.value = this.language;
    if (this.chosen.value !== language) return;
    Object.assign(this, { texts, language });
    this.offer();
    this.say(this.purpose, this.ends);
    this.dispatchEvent(new Event("change"));
  }

  /** @param {string} purpose @param {string} ends A day, or nothing. */
  say(purpose, ends) {
    Object.assign(this, { purpose, ends });
    this.hush();
    if (!this.texts.title) return;
    const { policy, retention_days: most } = session.collections.find((one) => one.name === session.collection) ?? {};
    const days = [...(ends ? [Date.parse(`${ends}T12:00:00`)] : []), ...(most ? [Date.now() + most * 86_400_000] : [])];
    const text = (/** @type {string} */ part) => this.texts[`enrol.statement.${part}`];
    const until = new Intl.DateTimeFormat(this.language, { dateStyle: "long" });
    this.quote.lang = this.language;
    fill(this.quote, text("1"), " ", foreign(purpose || "…"), /[.…]$/.test(purpose || "…") ? " " : ". ", policy?.keep_crops ?? true ? `${text("crop")} ` : "",
      days.length ? text("until").replace("{day}", until.format(Math.min(...days))) : text("open"), " ", text("2"));
  }

  /** Of this machine alone: other voices would send the sentence to whoever offers them. */
  findVoice() {
    return voices?.getVoices().find((one) => one.localService && one.lang.startsWith(this.language));
  }

  speak() {
    const spoken = new SpeechSynthesisUtterance(this.quote.textContent);
    Object.assign(spoken, { voice: this.findVoice(), lang: this.language, onend: () => this.hush(), onerror: () => this.hush() });
    voices.speak(spoken);
    this.voice.textContent = t("statement.stop");
  }

  hush() {
    voices?.cancel();
    this.voice.textContent = t("statement.speak");
  }

  enlarge() {
    const dialog = h("dialog", { class: "reading", "aria-label": t("statement.large"), onclose: () => dialog.remove() },
      this.quote.cloneNode(true), h("div", { class: "actions" }, h("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, t("close"))));
    document.body.append(dialog);
    dialog.showModal();
  }
}

customElements.define("vultus-statement", Statement);
