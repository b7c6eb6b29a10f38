// Who is signed in, what their key may do, and which collection they look at.

import { call, listAll, useKey } from "./api.js";

const KEPT_AS = "vultus.key";
const COLLECTION_AS = "vultus.collection";

/** @type {{ key: any, collections: any[], collection: string, notice: any }} */
export const session = { key: null, collections: [], collection: "default", notice: null };

/** @param {string} permission */
export function can(permission) {
  return session.key !== null && session.key.permissions.includes(permission);
}

/**
 * Ask the API what a key may do, and go on with it.
 * @param {string} secret
 * @param {boolean} keep For as long as the tab is open; else in this page's memory alone.
 */
export async function signIn(secret, keep) {
  useKey(secret);
  try {
    const key = await call("GET", "key");
    session.collections = await readCollections(key);
    session.key = key;
  } catch (error) {
    useKey("");
    throw error;
  }
  if (keep) sessionStorage.setItem(KEPT_AS, secret);
  else sessionStorage.removeItem(KEPT_AS);
  const before = sessionStorage.getItem(COLLECTION_AS);
  const names = session.collections.map((one) => one.name);
  session.collection = [before, "default", names[0]].find((one) => one && names.includes(one)) ?? "default";
}

/** @param {any} [key] @returns {Promise<any[]>} The collections that it sees. */
export async function readCollections(key = session.key) {
  return key.permissions.includes("recognize") ? listAll("collections") : nameCollections(key);
}

export function signOut() {
  useKey("");
  sessionStorage.removeItem(KEPT_AS);
  Object.assign(session, { key: null, collections: [], notice: null });
}

/** @param {string} secret That the key has from now on. */
export function renewSecret(secret) {
  useKey(secret);
  if (recallKey()) sessionStorage.setItem(KEPT_AS, secret);
}

export function recallKey() {
  return sessionStorage.getItem(KEPT_AS);
}

/** @param {string} name */
export function chooseCollection(name) {
  session.collection = name;
  sessionStorage.setItem(COLLECTION_AS, name);
}

/** @param {string} id @returns {string} */
export function nameCollection(id) {
  return session.collections.find((one) => one.id === id)?.name ?? `…${id.slice(-6)}`;
}

/** @param {any} key One that may not list collections. */
function nameCollections(key) {
  return (key.collections ?? ["default"]).map((/** @type {string} */ name) => ({ name }));
}
