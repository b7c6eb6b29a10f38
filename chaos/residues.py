"""F13: people are erased and their files scrubbed; is a byte of their templates, crop, name or ids left in any file?

The scanner must see what it is to miss later: everything that is stored, in tables and write-ahead log, before the
erasure; and every form that is searched for, stored or not, in a file planted beside them.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from tests.faces import portrait

from chaos.client import Client, draw_vectors
from chaos.outcome import Outcome, Plan
from chaos.service import Service, make_data_directory, run_command, run_service
from chaos.sql import connect, fetch_rows
from vultus.db.embedded.cluster import SUPERUSER
from vultus.errors import SignatureInvalidError
from vultus.sealing.signatures import verify_document
from vultus.services.people.receipts import RECEIPT

if TYPE_CHECKING:
    import random
    from pathlib import Path

BAR = "0 fingerprints of 41 erased persons in any file once they are scrubbed; all that is stored was seen there before"
SETTINGS = {"INFERENCE__WORKERS": "1", "JOBS__SCRUB_HOUR": "-1"}
PEOPLE = "/v1/collections/default/persons"
OVERLAP = 128
CHUNK_BYTES = 16 * 2**20

STORED = {"template as halves", "code", "name", "external id", "metadata", "crop", "photo digest"}
"""What the database stores as it is; the other forms are those in which it might leak."""


class ResidueScanner:
    """Searches files for bytes by what they are of: `kind/person`."""

    def __init__(self) -> None:
        self._patterns: dict[str, bytes] = {}

    @property
    def patterns(self) -> dict[str, bytes]:
        """The bytes that are searched for."""
        return self._patterns

    def add(self, kind: str, person: str, content: bytes) -> None:
        """Search for bytes too."""
        self._patterns[f"{kind}/{person}"] = content

    def add_template(self, person: str, text: str) -> None:
        """Search for a template, as PostgreSQL prints it, in five forms."""
        halves = np.array(json.loads(text), "<f2")[:12]
        self.add("template as halves", person, halves.tobytes())
        self.add("template as floats", person, halves.astype("<f4").tobytes())
        self.add("template as text", person, ",".join(text[1:].split(",")[:4]).encode())
        self.add("template as hexadecimal", person, halves.tobytes().hex().encode())

    def find(self, folder: Path) -> dict[str, set[str]]:
        """Return in which files bytes are found, by what they are of."""
        found: dict[str, set[str]] = defaultdict(set)
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            with path.open("rb") as file:
                before = b""
                while chunk := file.read(CHUNK_BYTES):
                    content = before + chunk
                    for name, pattern in self._patterns.items():
                        if pattern in content:
                            found[name].add(str(path.relative_to(folder)))
                    before = content[-OVERLAP:]
        return found


async def measure(plan: Plan) -> Outcome:
    """Enrol, erase, scrub beside the running server, and search every file; once more when the server has stopped."""
    outcome, scanner, chance = Outcome(), ResidueScanner(), plan.make_random()
    with make_data_directory() as data:
        async with run_service(SETTINGS, data) as service, service.open_client() as client:
            people = await _enrol_people(client, plan, chance, scanner)
            await _read_stored_forms(service, people, scanner)
            await _check_control(service, scanner, people, outcome)
            erasures = [
                await _erase_person(client, person_id, by_consent=at % 3 == 0)
                for at, person_id in enumerate(people.values())
            ]
            scrubbed = json.loads(await asyncio.to_thread(run_command, data, "scrub", "--json"))
            found = await asyncio.to_thread(scanner.find, data.parent)
            states = {(await client.http.get(path)).json()["state"] for path in erasures}
            outcome.check(states == {"scrubbed"}, f"states are {states}")
            await _check_receipt(client, erasures[0], outcome)
        stopped = await asyncio.to_thread(scanner.find, data.parent)
        for name in scanner.patterns:
            places = found.get(name, set()) | stopped.get(name, set())
            outcome.check(not places, f"{name} is in {', '.join(sorted(places)[:3])}")
    outcome.notes.append(
        f"{len(people)} of {plan.choose(1_000, 60) + 1} persons erased, {len(scanner.patterns)} fingerprints; the scrub"
        f" planted {scrubbed['planted']}, saw {scrubbed['seen_before']} and found {scrubbed['found_after']} in "
        f"{scrubbed['bytes'] / 2**20:.0f} MiB; longest lock {max(scrubbed['rewritten'].values()):.2f} s"
    )
    return outcome


async def _enrol_people(client: Client, plan: Plan, chance: random.Random, scanner: ResidueScanner) -> dict[str, str]:
    """Enrol persons by vectors and one from a photo with a crop; return the ids of those to be erased by name."""
    await client.http.patch("/v1/collections/default", json={"policy": {"keep_crops": True}})
    _, dimension = await client.fetch_space()
    vectors = draw_vectors(plan.choose(1_000, 60), dimension, plan.seed)
    words = {f"person-{at}": f"kanari{chance.getrandbits(96):024x}" for at in range(len(vectors))}
    (await client.enrol_vectors(dict(zip(words.values(), vectors, strict=True)))).raise_for_status()
    ids = {one["external_id"]: one["id"] for one in await client.list_persons()}
    erased = {}
    for name in chance.sample(sorted(words), plan.choose(40, 4)):
        erased[name] = ids[words[name]]
        scanner.add("external id", name, words[name].encode())
        fields = {kind: f"kanari{chance.getrandbits(96):024x}" for kind in ("name", "metadata")}
        change = {"name": fields["name"], "metadata": {"note": fields["metadata"]}}
        (await client.http.patch(f"{PEOPLE}/{erased[name]}", json=change)).raise_for_status()
        for kind, word in fields.items():
            scanner.add(kind, name, word.encode())
    photo, key = portrait(), f"kanari{chance.getrandbits(96):024x}"
    registered = await client.register_photo(photo, idempotency_key=key, name=f"kanari{chance.getrandbits(96):024x}")
    person = registered.raise_for_status().json()["person"]
    erased["photo"] = person["id"]
    scanner.add("name", "photo", person["name"].encode())
    scanner.add("idempotency key", "photo", key.encode())
    scanner.add("photo", "photo", photo[len(photo) // 2 :][:32])
    return erased


async def _read_stored_forms(service: Service, people: dict[str, str], scanner: ResidueScanner) -> None:
    """Search for what the database stores of the people, too."""
    for name, person_id in people.items():
        (face,) = await fetch_rows(
            service,
            "SELECT embedding::text, source_sha256, faces.code, crops.sealed FROM faces"
            " LEFT JOIN crops ON crops.face_id = faces.id WHERE faces.person_id = $1",
            person_id,
        )
        scanner.add_template(name, face[0])
        scanner.add("photo digest", name, face[1])
        if face[2] is not None:
            scanner.add("code", name, face[2][:24])
        if face[3] is not None:
            scanner.add("crop", name, face[3][64:96])


async def _check_control(service: Service, scanner: ResidueScanner, people: dict[str, str], outcome: Outcome) -> None:
    """See what is stored in tables and write-ahead log, and every form in a planted file."""
    async with connect(service, SUPERUSER) as connection:
        await connection.execute("CHECKPOINT")
    planted = service.data / "planted"
    planted.write_bytes(b"".join(scanner.patterns.values()))
    found = await asyncio.to_thread(scanner.find, service.data)
    planted.unlink()
    unseen = [name for name in scanner.patterns if "planted" not in found[name]]
    outcome.require_control(not unseen, f"{len(scanner.patterns)} fingerprints in a planted file")
    stored = [name for name in scanner.patterns if name.partition("/")[0] in STORED]
    places = {
        folder: [name for name in stored if any(file.startswith(f"postgres/{folder}/") for file in found[name])]
        for folder in ("base", "pg_wal")
    }
    outcome.require_control(
        all(len(seen) == len(stored) for seen in places.values()),
        f"{len(places['base'])} of {len(stored)} stored ones in table files and {len(places['pg_wal'])} in the "
        f"write-ahead log, of {len(people)} persons",
    )


async def _erase_person(client: Client, person_id: str, *, by_consent: bool) -> str:
    """Erase a person, or withdraw their only consent; return the path by which the erasure is followed."""
    path = f"{PEOPLE}/{person_id}"
    if by_consent:
        (consent,) = await client.list_items(f"{path}/consents")
        path = f"{path}/consents/{consent['id']}"
    answer = (await client.http.delete(path)).raise_for_status().json()
    return str(answer["erasure_path"])


async def _check_receipt(client: Client, path: str, outcome: Outcome) -> None:
    """Verify a receipt, and see it refused with one character changed."""
    receipt = (await client.http.get(f"{path}/receipt")).raise_for_status().content
    key = json.loads(receipt)["public_key"]
    said = verify_document(RECEIPT, receipt, public_key=key).content
    outcome.check((said["state"], said["destroyed"]["persons"]) == ("scrubbed", 1), f"the receipt says {said}")
    try:
        verify_document(RECEIPT, receipt.replace(b'"faces":1', b'"faces":2'), public_key=key)
        outcome.check(False, "a receipt with another number of faces stands")
    except SignatureInvalidError:
        outcome.check(True, "")
