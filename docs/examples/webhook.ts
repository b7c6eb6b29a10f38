// Receives events: verifies the signature, answers at once, works afterwards; Node 20 or newer, no package.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingHttpHeaders } from "node:http";

const TOLERANCE_S = 300;
const secret = Buffer.from((process.env.WEBHOOK_SECRET ?? "").replace(/^whsec_/, ""), "base64");
const seen = new Set<string>(); // in a program of yours: in the database, with what the event caused

interface Event { id: string; type: string; data: Record<string, unknown> }

/** Tells whether Vultus signed these bytes within the last minutes; while a secret is rotated there are two signatures. */
function isSigned(headers: IncomingHttpHeaders, body: Buffer): boolean {
  const [id, time, signatures] = ["id", "timestamp", "signature"].map((name) => String(headers[`webhook-${name}`] ?? ""));
  if (!(Math.abs(Date.now() / 1000 - Number(time)) <= TOLERANCE_S)) return false;
  const expected = createHmac("sha256", secret).update(`${id}.${time}.`).update(body).digest();
  return signatures!.split(" ").some((signature) => {
    const given = Buffer.from(signature.replace(/^v1,/, ""), "base64");
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
}

createServer(async (request, response) => {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  const body = Buffer.concat(parts); // as it came, before any parser
  const isOurs = isSigned(request.headers, body);
  response.writeHead(isOurs ? 204 : 400).end();
  if (!isOurs) return;
  const event = JSON.parse(body.toString()) as Event;
  if (seen.has(event.id)) return; // an event may come more than once
  seen.add(event.id);
  console.log(event.type, event.data);
}).listen(Number(process.env.PORT ?? 9000), "127.0.0.1");
