// The public API, with the key of the session.

/** What the API answered instead: problem details after RFC 9457. */
export class Problem extends Error {
  /** @param {string} code @param {string} detail @param {Record<string, any>} [facts] */
  constructor(code, detail, facts = {}) {
    super(detail);
    this.code = code;
    this.facts = facts;
  }
}

let secret = "";
/** @type {(problem: Problem) => void} */
let onKeyEnd = () => {};

/** @param {string} key */
export function useKey(key) {
  secret = key;
}

/** @param {(problem: Problem) => void} listener Called when the key is accepted no more. */
export function watchKey(listener) {
  onKeyEnd = listener;
}

/**
 * @typedef {{ query?: Record<string, any>, json?: any, form?: FormData, repeatAs?: string, after?: string, signal?: AbortSignal }} Options
 * `repeatAs`: the same word makes a repeated request have one effect; `after`: the last event that was received.
 */

/**
 * Call an operation and return its answer.
 * @param {string} method
 * @param {string} path Below `v1/`.
 * @param {Options} [options]
 * @returns {Promise<any>}
 */
export async function call(method, path, options) {
  const answer = await request(method, path, options);
  return answer.status === 204 ? null : answer.json().catch(() => ({}));
}

/**
 * Call an operation whose answer is a picture or a stream.
 * @param {string} method
 * @param {string} path
 * @param {Options} [options]
 */
export async function request(method, path, { query = {}, json, form, repeatAs, after, signal } = {}) {
  const address = new URL(`v1/${path}`, document.baseURI);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") address.searchParams.set(name, String(value));
  }
  /** @type {Record<string, string>} */
  const headers = {};
  if (secret) headers.Authorization = `Bearer ${secret}`;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  if (repeatAs) headers["Idempotency-Key"] = repeatAs;
  if (after) headers["Last-Event-ID"] = after;
  const answer = await send(address, { method, headers, signal, body: form ?? (json === undefined ? undefined : JSON.stringify(json)) });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  const problem = new Problem(body.code ?? "internal", body.detail ?? answer.statusText, body);
  if (answer.status === 401) onKeyEnd(problem);
  throw problem;
}

/** @param {URL} address @param {RequestInit} request */
async function send(address, request) {
  try {
    return await fetch(address, request);
  } catch {
    throw new Problem("unreachable", "");
  }
}

/**
 * Return everything that an operation lists, page by page.
 * @param {string} path
 * @param {Record<string, any>} [query]
 * @returns {Promise<any[]>}
 */
export async function listAll(path, query) {
  const found = [];
  let cursor = null;
  do {
    const page = await call("GET", path, { query: { ...query, limit: 500, cursor } });
    found.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor);
  return found;
}

/** A word of 128 random bits; `crypto.randomUUID` is missing on pages without HTTPS. */
export function makeWord() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");
}

/** @param {string} collection @param {string} [person] */
export function personPath(collection, person) {
  const people = `collections/${encodeURIComponent(collection)}/persons`;
  return person === undefined ? people : `${people}/${encodeURIComponent(person)}`;
}
