// Follows events with the key in a header, which `EventSource` cannot send: none is lost, and none comes twice.

import { Problem, request } from "./api.js";

const SILENCE = 40_000;   // ms; the server says something every 15 seconds
const FIRST_PAUSE = 500;  // ms, then twice as long each time
const LAST_PAUSE = 8000;

/**
 * @param {string} collection
 * @param {string} position Of the last event that is known.
 * @param {object} follower
 * @param {(event: any) => void} follower.receive
 * @param {(isOpen: boolean) => void} follower.say Whether events arrive.
 * @param {(problem: Problem) => void} follower.end It cannot go on from where it was.
 * @returns {() => void} Ends it.
 */
export function followEvents(collection, position, { receive, say, end }) {
  let isOver = false, stopper = new AbortController();

  /** @param {ReadableStream<Uint8Array<ArrayBuffer>>} body */
  async function read(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ;) {
      const patience = setTimeout(() => stopper.abort(), SILENCE);
      const { done, value } = await reader.read().finally(() => clearTimeout(patience));
      if (done || isOver) return;
      const parts = (text + value).split("\n\n");
      text = parts.pop() ?? "";
      for (const part of parts) {
        const id = /^id: (.+)$/m.exec(part);
        if (!id) continue;
        position = id[1];
        receive(JSON.parse(/^data: (.+)$/m.exec(part)?.[1] ?? ""));
      }
    }
  }

  async function follow() {
    for (let pause = FIRST_PAUSE; !isOver; pause = Math.min(2 * pause, LAST_PAUSE)) {
      try {
        stopper = new AbortController();
        const { body } = await request("GET", "events/stream", { query: { collection }, after: position, signal: stopper.signal });
        say(true);
        pause = FIRST_PAUSE;
        if (body) await read(body);
      } catch (error) {
        if (!isOver && error instanceof Problem && error.facts.status < 500 && error.facts.status !== 429) return end(error);
      }
      if (isOver) return;
      say(false);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
  follow();
  return () => { isOver = true; stopper.abort(); };
}
