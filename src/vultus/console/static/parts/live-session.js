// A client of the protocol in /asyncapi.json: camera → canvas → JPEG → WebSocket, and back come tracks.

import { call } from "./api.js";
import { h } from "./h.js";
import { t, tryText } from "./words.js";

const PROTOCOL = "vultus.live.v1";
const QUALITY = 0.8;
const MAX_UNDER_WAY = 2;            // one is processed while the next is on its way
const PATIENCE = 1000;              // ms: for an answer to a frame, and for the tracks on show
const WINDOW = 2000;                // ms: of which the figures tell
const MAX_RETRIES = 5;
const RESUMED = new Set([1001, 1005, 1006, 1011, 4440, 4443]);

/**
 * @typedef {object} Listener
 * @property {(text: string) => void} say What became of the session.
 * @property {(result: any) => void} show Tracks of a frame.
 * @property {() => void} clear Nothing is known of the present picture.
 * @property {() => void} end The session is over.
 */

export class LiveSession {
  isOpen = false;
  isEncoding = false;
  isOver = false;
  sequence = 0;
  dropped = 0;
  retries = 0;
  interval = 0;
  nextAt = 0;
  shownAt = 0;
  token = "";
  /** @type {WebSocket | null} */
  socket = null;
  /** @type {Map<number, number>} When each frame was sent that was not answered yet. */
  underWay = new Map();
  /** @type {{ at: number, took: number }[]} */
  answers = [];

  /** @param {HTMLVideoElement} video That plays. @param {Listener} listener */
  constructor(video, listener) {
    this.video = video;
    this.listener = listener;
    this.picture = h("canvas", { width: video.videoWidth, height: video.videoHeight });
    this.brush = this.picture.getContext("2d");
  }

  /** @param {string} collection */
  async start(collection) {
    const { ticket } = await call("POST", "live/tickets", { json: { collection } });
    if (this.isOver) return;
    this.connect(`ticket.${ticket}`);
    this.sendFrames();
  }

  stop() {
    this.isOver = true;
    if (this.socket && this.socket.readyState <= WebSocket.OPEN) this.socket.close(1000);
  }

  /** Frames a second, and milliseconds from a frame to its answer: the middle, and the 95th percentile. */
  get figures() {
    const took = this.answers.map((one) => one.took).sort((one, other) => one - other);
    const at = (/** @type {number} */ share) => took[Math.floor(share * (took.length - 1))] ?? 0;
    return { rate: (1000 * took.length) / WINDOW, middle: at(0.5), slow: at(0.95), dropped: this.dropped };
  }

  /** @param {string} secret */
  connect(secret) {
    const url = new URL("v1/live", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, [PROTOCOL, secret]);
    socket.onmessage = (event) => this.receive(JSON.parse(event.data));
    socket.onclose = (event) => this.close(event);
    Object.assign(this, { socket, isOpen: false, underWay: new Map(), sequence: 0, nextAt: 0 });
  }

  /** @param {any} message */
  receive(message) {
    if (this.isOver) return;
    if (message.type === "welcome") {
      Object.assign(this, { isOpen: true, token: message.resume_token, retries: 0, interval: 1000 / message.frames_per_second });
      this.listener.say(t(message.resumed ? "live.resumed" : "live.connected"));
      return;
    }
    const now = performance.now(), sentAt = this.underWay.get(message.sequence) ?? now;
    for (const sequence of this.underWay.keys()) if (sequence <= message.sequence) this.underWay.delete(sequence);
    this.dropped += message.dropped;
    if (message.type === "refused") {
      if (message.code === "overloaded") this.dropped += 1;  // the next frame comes anyway
      else this.listener.say(tryText(`problem.${message.code}`, message.detail));
      return;
    }
    this.shownAt = now;
    this.answers = [...this.answers.filter((one) => now - one.at < WINDOW), { at: now, took: now - sentAt }];
    this.listener.show(message);
  }

  /** @param {CloseEvent} event */
  close(event) {
    if (this.isOver) return;
    this.isOpen = false;
    this.listener.clear();
    if (this.token && RESUMED.has(event.code) && this.retries++ < MAX_RETRIES) {
      this.listener.say(t("live.broken"));
      setTimeout(() => this.isOver || this.connect(`resume.${this.token}`), 500 * this.retries);
      return;
    }
    this.isOver = true;
    this.listener.say(event.code === 1012 ? t("live.server_stops") : t("live.closed", { reason: event.reason || event.code }));
    this.listener.end();
  }

  sendFrames() {
    if (this.isOver) return;
    requestAnimationFrame(() => this.sendFrames());
    const now = performance.now();
    if (now - this.shownAt > PATIENCE) this.listener.clear();
    const awaited = [...this.underWay.values()].filter((sentAt) => now - sentAt < PATIENCE).length;
    if (!this.isOpen || this.isEncoding || awaited >= MAX_UNDER_WAY || this.video.readyState < 2 || now < this.nextAt) return;
    this.nextAt = Math.max(this.nextAt + this.interval, now);
    this.isEncoding = true;
    const capturedAt = Date.now(), { socket } = this;
    this.brush.drawImage(this.video, 0, 0, this.picture.width, this.picture.height);
    this.picture.toBlob(async (/** @type {Blob | null} */ blob) => {
      const file = blob && await blob.arrayBuffer();
      this.isEncoding = false;
      if (file && socket === this.socket && this.isOpen && !this.isOver) this.sendFrame(file, capturedAt);
    }, "image/jpeg", QUALITY);
  }

  /** @param {ArrayBuffer} file @param {number} capturedAt */
  sendFrame(file, capturedAt) {
    const frame = new Uint8Array(16 + file.byteLength), head = new DataView(frame.buffer);
    head.setBigUint64(0, BigInt(++this.sequence));
    head.setBigUint64(8, BigInt(capturedAt));
    frame.set(new Uint8Array(file), 16);
    this.underWay.set(this.sequence, performance.now());
    this.socket?.send(frame);
  }
}
