// The frame around every page: who is signed in, where one is, and how it looks.

import { watchKey } from "./parts/api.js";
import { confirmLeaving } from "./parts/dialogs.js";
import { fill, foreign, h, icon } from "./parts/h.js";
import { chooseCollection, recallKey, session, signIn, signOut } from "./parts/session.js";
import { LANGUAGES, getLanguage, setLanguage, t } from "./parts/words.js";
import { THEMES, getTheme, setTheme } from "./parts/theme.js";
import { problemBox } from "./parts/problem.js";
import { findPage, listPages } from "./pages/routes.js";
import "./pages/sign-in.js";

class App extends HTMLElement {
  /** @type {(HTMLElement & { isDirty?: boolean }) | null} The page on show; `isDirty` where it holds what would be lost. */
  page = null;
  address = "";

  connectedCallback() {
    addEventListener("hashchange", () => this.moveOn());
    addEventListener("beforeunload", (event) => this.isDirty && event.preventDefault());
    watchKey((problem) => session.key && this.leave(problem));
    this.addEventListener("signed-in", () => this.render());
    this.addEventListener("collections-changed", () => this.querySelector(".collection")?.replaceWith(this.buildCollectionChooser()));
    this.begin();
  }

  /** Go on with the key that the tab keeps; it is kept while the server is away. */
  async begin() {
    try {
      const kept = recallKey();
      if (kept) await signIn(kept, true);
    } catch (/** @type {any} */ problem) {
      if (problem.facts?.status === 401) return this.leave(problem);
      session.notice = problemBox(problem, () => this.begin());
    }
    this.render();
  }

  /** @param {unknown} [problem] Why, unless they chose to. */
  leave(problem) {
    signOut();
    closeDialogs();
    session.notice = problem ? problemBox(problem) : null;
    this.render();
  }

  get isDirty() {
    return Boolean(this.page?.isConnected && this.page.isDirty);
  }

  /** @returns {Promise<boolean>} Whether nothing would be lost, or somebody said that it may be. */
  async mayLeave() {
    if (!this.isDirty) return true;
    if (!await confirmLeaving()) return false;
    this.page = null;
    return true;
  }

  /** Show the page of the address, which stays the old one until somebody said that they leave it. */
  async moveOn() {
    const wanted = location.hash;
    if (this.isDirty) {
      history.replaceState(null, "", this.address);
      if (!document.querySelector("dialog[open]") && await this.mayLeave()) location.hash = wanted;
    } else this.showPage();
  }

  render() {
    if (!session.key) {
      document.title = t("title");
      fill(this, h("main", { class: "entrance" }, h("vultus-sign-in"), h("div", { class: "choices" }, ...this.buildChoices())));
      return;
    }
    const main = h("main", { id: "main", tabindex: "-1" });
    fill(this,
      h("a", { class: "skip", href: "#", onclick: (/** @type {Event} */ event) => { event.preventDefault(); main.focus(); } }, t("skip")),
      h("header", {}, h("a", { class: "brand", href: "#/" }, h("img", { src: "console-assets/mark.svg", alt: "", width: 28, height: 28 }), "Vultus"),
        this.buildCollectionChooser(), this.buildMenu()),
      this.buildNavigation(),
      main,
      h("div", { id: "announcer", role: "status", class: "visually-hidden" }));
    this.showPage();
  }

  showPage() {
    const main = this.querySelector("#main");
    if (!main) return;
    /** @type {HTMLElement | null} */ (this.querySelector("#rare"))?.hidePopover();
    closeDialogs();
    const { page, element } = findPage(location.hash);
    for (const link of this.querySelectorAll("nav a")) {
      if (link.getAttribute("data-path") === page.path) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    this.page = element;
    this.address = location.hash || "#/";
    document.title = `${t(page.title)} · ${t("title")}`;
    const notice = session.notice;
    session.notice = null;
    fill(main, notice, element);
    scrollTo(0, 0);
    /** @type {HTMLElement | null} */ (main.querySelector("h1"))?.focus();
  }

  /** Where the screen is small, what is not for every day is behind a button. */
  buildNavigation() {
    const pages = listPages();
    /** @param {import("./pages/routes.js").Page} page */
    const buildLink = (page) => h("a", { href: `#/${page.path}`, "data-path": page.path }, icon(page.icon), h("span", {}, t(page.title)));
    const rare = pages.filter((page) => !page.isDaily).map(buildLink);
    return h("nav", { "aria-label": t("nav.label") },
      pages.filter((page) => page.isDaily).map(buildLink),
      rare.length > 0 && h("button", { type: "button", class: "quiet", popovertarget: "rare" }, icon("more"), h("span", {}, t("nav.more"))),
      rare.length > 0 && h("div", { id: "rare", popover: true }, rare));
  }

  buildCollectionChooser() {
    const choose = h("select", { onchange: async () => {
      if (!await this.mayLeave()) choose.value = session.collection;
      else if (choose.value !== session.collection) {
        chooseCollection(choose.value);
        this.showPage();
      }
    } },
      session.collections.map((one) => h("option", { value: one.name, selected: one.name === session.collection }, one.name)));
    return h("label", { class: "collection" }, h("span", {}, t("collection")), choose);
  }

  buildMenu() {
    return [
      h("button", { type: "button", class: "quiet", popovertarget: "menu", "aria-label": t("menu") }, icon("settings")),
      h("div", { id: "menu", popover: true, class: "menu" },
        h("p", { class: "hint" }, t("menu.signed_in"), " ", h("strong", {}, foreign(session.key.name))),
        ...this.buildChoices(),
        h("button", { type: "button", onclick: async () => await this.mayLeave() && this.leave() }, t("sign_out"))),
    ];
  }

  /** Language and theme, which are the browser's to remember. */
  buildChoices() {
    const language = h("select", { onchange: () => setLanguage(language.value).catch((problem) => {
      language.value = getLanguage();
      this.querySelector("main")?.prepend(problemBox(problem));
    }) },
      Object.entries(LANGUAGES).map(([code, name]) => h("option", { value: code, selected: code === getLanguage(), lang: code }, name)));
    const theme = h("select", { onchange: () => setTheme(theme.value) },
      THEMES.map((name) => h("option", { value: name, selected: name === getTheme() }, t(`theme.${name}`))));
    return [h("label", {}, t("language"), language), h("label", {}, t("theme"), theme), h("a", { href: "manual" }, t("manual"))];
  }
}

/** Those of a page that is left: what they asked is not done, and a camera ends. */
function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
}

customElements.define("vultus-app", App);
