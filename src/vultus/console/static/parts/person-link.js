// A person of whom an answer tells the id alone.

import { call, personPath } from "./api.js";
import { foreign, h } from "./h.js";
import { can, session } from "./session.js";
import { nameOf } from "./verdicts.js";

/** @param {string} id @returns {Promise<HTMLElement>} By name where the key may read. */
export async function linkPerson(id) {
  const person = can("read") ? await call("GET", personPath(session.collection, id)).catch(() => null) : null;
  return person ? h("a", { href: `#/people/${id}` }, foreign(nameOf(person))) : h("code", {}, id);
}
