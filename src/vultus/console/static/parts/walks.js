// What was seen of somebody from when they came until they left, put together from events in any order.

/**
 * @typedef {object} Walk
 * @property {string[]} tracks
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
    const tracks = new Set([data.track_id, ...(data.track_ids ?? [])]);
    const known = new Set([...tracks].map((one) => this.byTrack.get(one)).filter((one) => one !== undefined));
    const [walk = { tracks: [], steps: new Map(), person: null, band: null, origin: data.origin_id, isSource: data.origin === "source", since: data.at, until: data.at }, ...joined] = known;
    for (const one of joined) {
      for (const [step, what] of one.steps) walk.steps.set(step, what);
      one.tracks.forEach((track) => tracks.add(track));
      Object.assign(walk, { person: walk.person ?? one.person, band: walk.band ?? one.band });
    }
    walk.steps.set(id, { type, at: data.at });
    walk.person = data.person_id ?? walk.person;
    walk.band = data.band ?? walk.band;
    walk.tracks = [...new Set([...walk.tracks, ...tracks])];
    walk.tracks.forEach((track) => this.byTrack.set(track, walk));
    const times = [data.since, ...[...walk.steps.values()].map((one) => one.at)].filter(Boolean).sort();
    walk.since = times[0] < walk.since ? times[0] : walk.since;
    walk.until = times.at(-1) > walk.until ? times.at(-1) : walk.until;
    return { walk, joined };
  }

  /** @param {Walk} walk */
  remove(walk) {
    for (const track of walk.tracks) if (this.byTrack.get(track) === walk) this.byTrack.delete(track);
  }

  get all() {
    return new Set(this.byTrack.values());
  }
}

/** @param {Walk} walk @param {string} type */
export function went(walk, type) {
  return [...walk.steps.values()].some((one) => one.type === type);
}
