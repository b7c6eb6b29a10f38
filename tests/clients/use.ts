/** Registers and recognises with the generated client; prints the verdict and the person. */
import { readFileSync } from "node:fs";
import { client } from "./client/client.gen";
import { listPersons, recognize, register } from "./client/sdk.gen";

const [address, key, path] = process.argv.slice(2);
client.setConfig({ baseUrl: address, auth: key });

async function main(): Promise<void> {
  const photo = new Blob([readFileSync(path)], { type: "image/jpeg" });
  const registered = await register({
    body: { photo: [photo], name: "Ada", external_id: "E-1017", metadata: '{"floor": 2}', consent_purpose: "Tests", consent_recorded_by: "tests" },
    throwOnError: true,
  });
  const found = await recognize({ body: { photo }, throwOnError: true });
  const persons = await listPersons({ path: { collection: "default" }, throwOnError: true });
  const refused = await recognize({ body: { photo, limit: 51 } });
  const face = found.data.faces[0];
  console.log(JSON.stringify({
    verdict: face.verdict,
    person: face.person?.id === registered.data.person.id,
    reasons: face.reasons,
    listed: persons.data.items.length,
    code: refused.error?.code,
  }));
}

void main();
