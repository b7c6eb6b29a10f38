// Signing in with an API key.

import { fill, h } from "../parts/h.js";
import { problemBox } from "../parts/problem.js";
import { session, signIn } from "../parts/session.js";
import { t } from "../parts/words.js";

class SignIn extends HTMLElement {
  connectedCallback() {
    const key = h("input", { type: "password", id: "key", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "key-hint" });
    const keep = h("input", { type: "checkbox", id: "keep" });
    const button = h("button", { class: "primary" }, t("sign_in"));
    const trouble = h("div", {});
    fill(trouble, session.notice);
    session.notice = null;
    fill(this,
      h("img", { src: "console-assets/mark.svg", alt: "", width: 56, height: 56 }),
      h("h1", { tabindex: "-1" }, t("sign_in.title")),
      h("p", {}, t("sign_in.text")),
      trouble,
      h("form", { onsubmit: async (/** @type {Event} */ event) => {
        event.preventDefault();
        button.disabled = true;
        try {
          await signIn(key.value.trim(), keep.checked);
          this.dispatchEvent(new CustomEvent("signed-in", { bubbles: true }));
        } catch (error) {
          fill(trouble, problemBox(error));
          button.disabled = false;
          key.select();
        }
      } },
        h("label", {}, t("sign_in.key"), key),
        h("p", { class: "hint", id: "key-hint" }, t("sign_in.hint")),
        h("label", { class: "check" }, keep, t("sign_in.keep")),
        button));
    key.focus();
  }
}

customElements.define("vultus-sign-in", SignIn);
