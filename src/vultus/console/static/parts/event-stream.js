// Follows events with the key in a header, which `EventSource` cannot send: none is lost, and none comes twice.

import { Problem, request } from "./api.js";

const SILENCE = 40_000;   // ms; the server says something every 15 seconds
const FIRST_PAUSE = 500;  // ms, then twice as long each time
const LAST_PAUSE = 8000;

/**
 * @typedef {object} Follower
 * @property {(event: any) => void} receive
 * @property {(isOpen: boolean) => void} say Whether events arrive.
 * @property {(problem: Problem) => void} end The stream cannot go on from where it was.
 */

export class EventStream {
  isOver = false;
  stopper = new AbortController();

  /** @param {string} collection @param {string} position Of the last event that is known. @param {Follower} follower */
  constructor(collection, position, follower) {
    this.collection = collection;
    this.position = position;
    this.follower = follower;
  }

  stop() {
    this.isOver = true;
    this.stopper.abort();
  }

  async follow() {
    for (let pause = FIRST_PAUSE; !this.isOver; pause = Math.min(2 * pause, LAST_PAUSE)) {
      try {
        this.stopper = new AbortController();
        const { body } = await request("GET", "events/stream", { query: { collection: this.collection }, after: this.position, signal: this.stopper.signal });
        this.follower.say(true);
        pause = FIRST_PAUSE;
        if (body) await this.read(body);
      } catch (error) {
        const status = error instanceof Problem ? error.facts.status : 0;
        if (!this.isOver && status >= 400 && status < 500 && status !== 429) return this.follower.end(/** @type {Problem} */ (error));
      }
      if (this.isOver) return;
      this.follower.say(false);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  /** @param {ReadableStream<Uint8Array<ArrayBuffer>>} body */
  async read(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ;) {
      const patience = setTimeout(() => this.stopper.abort(), SILENCE);
      const { done, value } = await reader.read().finally(() => clearTimeout(patience));
      if (done || this.isOver) return;
      const parts = (text + value).split("\n\n");
      text = parts.pop() ?? "";
      parts.forEach((part) => this.take(part));
    }
  }

  /** @param {string} part Lines of fields. */
  take(part) {
    const fields = Object.fromEntries(part.split("\n").map((line) => [line.split(": ", 1)[0], line.slice(line.indexOf(": ") + 2)]));
    if (!fields.id) return;
    this.position = fields.id;
    this.follower.receive(JSON.parse(fields.data));
  }
}
