"use strict";

// A client of the protocol in /asyncapi.json: camera → canvas → JPEG → WebSocket, and tracks drawn over the picture.
const PROTOCOL = "vultus.live.v1";
const WIDTH = 640, HEIGHT = 480, QUALITY = 0.8;
const MAX_UNDER_WAY = 2;            // one is processed while the next is on its way
const PATIENCE = 1000;              // ms: for an answer to a frame, and for the tracks on show
const LABEL_WIDTH = 200;            // px: of a name, unless its face is wider
const RESUMED = new Set([1001, 1005, 1006, 1011, 4440, 4443]);
const COLOURS = { match: "#2da44e", ambiguous: "#d4a72c", not_live: "#cf222e" };
const SENTENCES = { 1012: "The server stops or is started anew. Start again in a moment." };

const find = (id) => document.getElementById(id);
const video = find("video"), overlay = find("overlay"), pen = overlay.getContext("2d");
const picture = document.createElement("canvas"), brush = picture.getContext("2d");
let session = null;

function say(text) { find("status").textContent = text; }

async function makeTicket(key, collection) {
  const answer = await fetch("v1/live/tickets", {
    method: "POST",
    headers: { "Authorization": `Bearer ${key}`, "Content-Type": "application/json" },
    body: JSON.stringify({ collection }),
  });
  const body = await answer.json().catch(() => ({ detail: `The server answered with status ${answer.status}.` }));
  if (!answer.ok) throw new Error(body.detail);
  return body.ticket;
}

function connect(secret) {
  const url = new URL("v1/live", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url, [PROTOCOL, secret]);
  socket.binaryType = "arraybuffer";
  socket.onmessage = (event) => receive(JSON.parse(event.data));
  socket.onclose = (event) => closed(event);
  Object.assign(session, { socket, open: false, underWay: new Map(), sequence: 0, nextAt: 0 });
}

function receive(message) {
  if (!session) return;
  if (message.type === "welcome") {
    const interval = 1000 / message.frames_per_second;
    Object.assign(session, { open: true, token: message.resume_token, triedAgain: 0, interval });
    say(message.resumed ? "Connected again; the tracks go on." : "Connected.");
    return;
  }
  const sentAt = session.underWay.get(message.sequence);
  for (const sequence of session.underWay.keys()) if (sequence <= message.sequence) session.underWay.delete(sequence);
  session.dropped += message.dropped;
  if (message.type === "refused") {
    if (message.code === "overloaded") session.dropped += 1;  // the next frame comes anyway
    else say(message.detail);
    return;
  }
  const now = performance.now();
  session.shownAt = now;
  session.answers.push({ at: now, took: now - sentAt });
  session.answers = session.answers.filter((one) => now - one.at < 2000);
  draw(message);
  showFigures();
}

function closed(event) {
  if (!session) return;
  session.open = false;
  clear();
  if (session.token && RESUMED.has(event.code) && session.triedAgain++ < 5) {
    say("The connection broke; trying again.");
    setTimeout(() => { if (session) connect(`resume.${session.token}`); }, 500 * session.triedAgain);
    return;
  }
  say(SENTENCES[event.code] || `Closed: ${event.reason || "the connection broke"} (${event.code})`);
  stop();
}

function send() {
  if (!session) return;
  requestAnimationFrame(send);
  const now = performance.now();
  if (now - session.shownAt > PATIENCE) clear();
  const awaited = [...session.underWay.values()].filter((sentAt) => now - sentAt < PATIENCE).length;
  if (!session.open || session.encoding || awaited >= MAX_UNDER_WAY || video.readyState < 2) return;
  if (now < session.nextAt) return;
  session.nextAt = Math.max(session.nextAt + session.interval, now);
  session.encoding = true;
  const current = session, capturedAt = Date.now();
  brush.drawImage(video, 0, 0, WIDTH, HEIGHT);
  picture.toBlob(async (blob) => {
    const file = blob && await blob.arrayBuffer();
    current.encoding = false;
    if (!file || current !== session || !session.open) return;
    const frame = new Uint8Array(16 + file.byteLength), head = new DataView(frame.buffer);
    head.setBigUint64(0, BigInt(++session.sequence));
    head.setBigUint64(8, BigInt(capturedAt));
    frame.set(new Uint8Array(file), 16);
    session.underWay.set(session.sequence, performance.now());
    session.socket.send(frame);
  }, "image/jpeg", QUALITY);
}

function draw(result) {
  overlay.width = result.width;
  overlay.height = result.height;
  pen.lineWidth = 3;
  pen.font = "bold 18px system-ui, sans-serif";
  for (const track of result.tracks) {
    const { left, top, right, bottom } = track.box;
    const name = track.person ? track.person.name || track.person.external_id || track.person.id : track.verdict || "…";
    const width = Math.min(pen.measureText(name).width + 12, Math.max(LABEL_WIDTH, right - left));
    pen.strokeStyle = pen.fillStyle = COLOURS[track.verdict] || "#8c959f";
    pen.strokeRect(left, top, right - left, bottom - top);
    pen.save();
    pen.beginPath();
    pen.rect(left - 1.5, bottom, width, 26);
    pen.fill();
    pen.clip();                     // a name, however long or high, covers no other one
    pen.fillStyle = "#fff";
    pen.fillText(name, left + 5, bottom + 19);
    pen.restore();
  }
  document.body.dataset.names = result.tracks.map((one) => one.person ? one.person.name || one.person.id : "").join("|");
}

function clear() {
  pen.clearRect(0, 0, overlay.width, overlay.height);
  document.body.dataset.names = "";
}

function showFigures() {
  const took = session.answers.map((one) => one.took).sort((a, b) => a - b);
  const rate = took.length / 2, at = (share) => Math.round(took[Math.floor(share * (took.length - 1))]);
  find("figures").textContent =
    `${rate.toFixed(1)} frames a second · ${at(0.5)} ms in the middle, ${at(0.95)} ms at the 95th percentile · ` +
    `${session.dropped} dropped`;
}

async function start(event) {
  event.preventDefault();
  const key = find("key").value.trim(), collection = find("collection").value;
  find("key").value = "";
  find("start").disabled = true;
  try {
    if (!navigator.mediaDevices) throw new Error("Browsers give a camera only to pages of HTTPS, or of this machine.");
    say("Asking for the camera.");
    const camera = await navigator.mediaDevices.getUserMedia({ video: { width: WIDTH, height: HEIGHT } });
    session = { camera, answers: [], dropped: 0, triedAgain: 0, token: null, encoding: false };
    video.srcObject = camera;
    await video.play();
    Object.assign(picture, { width: WIDTH, height: HEIGHT });
    connect(`ticket.${await makeTicket(key, collection)}`);
    find("stop").disabled = false;
    send();
  } catch (error) {
    say(error.message);
    stop();
  }
}

function stop() {
  const ended = session;
  session = null;
  clear();
  find("start").disabled = false;
  find("stop").disabled = true;
  if (!ended) return;
  ended.camera.getTracks().forEach((track) => track.stop());
  if (ended.socket && ended.socket.readyState <= WebSocket.OPEN) ended.socket.close(1000);
}

find("form").addEventListener("submit", start);
find("stop").addEventListener("click", () => { stop(); say("Stopped."); });
