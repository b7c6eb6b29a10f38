// Registers a person, recognises them and forgets them again; Node 20 or newer, no package.
import { randomUUID } from "node:crypto";
import { openAsBlob } from "node:fs";

const TRIES = 5;
const wait = (seconds: number) => new Promise((done) => setTimeout(done, seconds * 1000));

interface Problem { code: string; detail: string }
interface Face { verdict: "match" | "ambiguous" | "no_match" | "low_quality"; person: { name: string | null } | null }

/** What was asked for was refused; `code` is for programs, the text for people. */
class RefusedError extends Error {
  readonly code: string;
  constructor(problem: Problem) {
    super(problem.detail);
    this.code = problem.code;
  }
}

class Vultus {
  constructor(private readonly address: string, private readonly key: string) {}

  /** Sends a request until it is answered. One key for all tries: whatever it does is done once. */
  async request<T>(method: string, path: string, body?: FormData): Promise<T> {
    const headers = { Authorization: `Bearer ${this.key}`, "Idempotency-Key": randomUUID() };
    for (let left = TRIES - 1; ; left -= 1) {
      let answer: Response;
      let text: string;
      try {
        answer = await fetch(this.address + path, { method, headers, body: body ?? null });
        text = await answer.text();
      } catch (broken) {
        if (!left) throw broken;
        await wait(1);
        continue;
      }
      if (answer.ok) return (text ? JSON.parse(text) : undefined) as T;
      const problem = JSON.parse(text) as Problem;
      const isFull = [429, 503].includes(answer.status) && problem.code !== "worker_lost";
      if (!left || !(isFull || problem.code === "idempotency_in_flight")) throw new RefusedError(problem);
      await wait(Number(answer.headers.get("Retry-After") ?? 1));
    }
  }

  register(externalId: string, name: string, photo: Blob, purpose: string): Promise<{ person: { external_id: string } }> {
    const form = new FormData();
    form.append("photo", photo);
    form.append("external_id", externalId);
    form.append("name", name);
    form.append("consent_purpose", purpose);
    form.append("consent_recorded_by", "reception");
    return this.request("POST", "/v1/register", form);
  }

  async recognise(photo: Blob): Promise<Face[]> {
    const form = new FormData();
    form.append("photo", photo);
    return (await this.request<{ faces: Face[] }>("POST", "/v1/recognize", form)).faces;
  }

  erase(externalId: string): Promise<void> {
    return this.request("DELETE", `/v1/collections/default/persons/external_id:${encodeURIComponent(externalId)}`);
  }
}

const [address, file] = process.argv.slice(2);
const key = process.env.KEY;
if (!address || !file || !key) throw new Error("Usage: KEY=vultus_… node client.js http://127.0.0.1:8000 ada.jpg");
const vultus = new Vultus(address, key);
const photo = await openAsBlob(file);
try {
  const registered = await vultus.register("E-1017", "Ada", photo, "Entry to building A");
  console.log("registered", registered.person.external_id);
  for (const face of await vultus.recognise(photo)) console.log(face.verdict, face.person?.name ?? "");
  await vultus.erase("E-1017");
  console.log("after erasure:", ...(await vultus.recognise(photo)).map((face) => face.verdict));
} catch (refused) {
  if (!(refused instanceof RefusedError)) throw refused;
  console.error(`${refused.code}: ${refused.message}`);
  process.exitCode = 1;
}
