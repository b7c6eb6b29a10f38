// What was seen of somebody from when they came until they left, put together from events in any order.

/**
 * @typedef {object} Walk
 * @property {Set<string>} tracks
 * @property {string} origin Session or source.
 * @property {boolean} isSource
 * @property {string | null} person
 * @property {string | null} band How clearly they matched.
 * @property {string} since
 * @property {string} until Last news of it.
 * @property {Map<string, { type: string, at: string }>} steps By the id of the event.
 */

export class Walks {
  /** @type {Map<string, Walk>} */
  byTrack = new Map();

  /**
   * Take an event about a track.
   * @param {any} event
   * @returns {{ walk: Walk, joined: Walk[] }} What it belongs to, and walks that are a part of that now.
   */
  add({ id, type, data }) {
    const { track_id: last, track_ids: others = [], origin_id: origin, at } = data;
    const found = new Set([last, ...others].flatMap((one) => this.byTrack.get(one) ?? []));
    const [walk = { tracks: new Set(), steps: new Map(), person: null, band: null, origin, isSource: data.origin === "source", since: at, until: at }, ...joined] = found;
    for (const one of joined) {
      one.steps.forEach((step, key) => walk.steps.set(key, step));
      one.tracks.forEach((track) => walk.tracks.add(track));
      walk.person ??= one.person;
      walk.band ??= one.band;
    }
    walk.steps.set(id, { type, at });
    walk.person = data.person_id ?? walk.person;
    walk.band = data.band ?? walk.band;
    for (const track of [last, ...others]) walk.tracks.add(track);
    walk.tracks.forEach((track) => this.byTrack.set(track, walk));
    const times = [walk.since, walk.until, data.since ?? at, ...[...walk.steps.values()].map((one) => one.at)].sort();
    Object.assign(walk, { since: times[0], until: times.at(-1) });
    return { walk, joined };
  }

  /** @param {Walk} walk */
  remove(walk) {
    for (const track of walk.tracks) if (this.byTrack.get(track) === walk) this.byTrack.delete(track);
  }
}

/** @param {Walk} walk @param {string} type */
export function went(walk, type) {
  return [...walk.steps.values()].some((one) => one.type === type);
}
