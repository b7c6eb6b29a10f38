// Files that the page makes, for the reader to keep.

import { h } from "./h.js";

/** @param {string} name @param {string} text @param {string} kind Such as `text/csv`. */
export function saveFile(name, text, kind) {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
