// An address that shows nothing to this key.

import { fill, h } from "../parts/h.js";
import { t } from "../parts/words.js";

class Nothing extends HTMLElement {
  connectedCallback() {
    fill(this, h("h1", { tabindex: "-1" }, t("nothing")), h("p", {}, t("nothing.text")));
  }
}

customElements.define("vultus-nothing", Nothing);
