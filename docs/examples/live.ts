// Sends pictures, JPEG or WebP, as a live session and prints who is in them; a browser, or Node 22 or newer (20: --experimental-websocket).
import { readFile } from "node:fs/promises";

interface Track { track_id: string; verdict: string | null; person: { name: string | null } | null }
interface Message { type: string; sequence: number; detail?: string; tracks?: Track[]; frames_per_second: number }

const [address, ...files] = process.argv.slice(2);
const key = process.env.KEY;
if (!address || !files.length || !key) throw new Error("Usage: KEY=vultus_… node live.js http://127.0.0.1:8000 one.jpg two.jpg …");

// A ticket opens one session, once: make it where the key is, and give the page the ticket alone.
const answer = await fetch(`${address}/v1/live/tickets`, {
  method: "POST",
  headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
  body: JSON.stringify({ collection: "default" }),
});
const { ticket, detail } = (await answer.json()) as { ticket?: string; detail?: string };
if (!ticket) throw new Error(detail);

const socket = new WebSocket(`${address.replace(/^http/, "ws")}/v1/live`, ["vultus.live.v1", `ticket.${ticket}`]);
let pause = 0;
let sequence = 0;

async function sendNext(): Promise<void> {
  const file = files[sequence];
  if (!file) return socket.send(JSON.stringify({ type: "bye" }));
  const picture = await readFile(file);
  const frame = new DataView(new ArrayBuffer(16 + picture.length)); // number and time, big-endian, then the picture
  frame.setBigUint64(0, BigInt((sequence += 1)));
  frame.setBigUint64(8, BigInt(Date.now()));
  new Uint8Array(frame.buffer).set(picture, 16);
  socket.send(frame);
}

socket.onmessage = (event) => {
  const message = JSON.parse(String(event.data)) as Message;
  if (message.type === "welcome") pause = 1000 / message.frames_per_second;
  else if (message.type === "refused") console.log(message.sequence, message.detail);
  else if (message.type !== "result") return;
  for (const track of message.tracks ?? []) console.log(message.sequence, track.person?.name ?? track.verdict ?? "…", track.track_id);
  setTimeout(() => void sendNext(), pause); // the next frame when an answer came
};
socket.onclose = (event) => {
  if (event.code !== 1000) throw new Error(`closed: ${event.code} ${event.reason}`);
};
