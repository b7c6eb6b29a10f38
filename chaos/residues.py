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

BAR = "0 fingerprints of 82 erased persons in any file once they are scrubbed; all that is stored was seen there before"
SETTINGS = {"INFERENCE__WORKERS": "1", "JOBS__SCRUB_HOUR": "-1"}
STORAGES = ("open", "sealed")
"""How templates lie in the database, a collection each."""

OVERLAP = 128
CHUNK_BYTES = 16 * 2**20

STORED = {"template as halves", "code", "sealed template", "name", "external id", "metadata", "crop", "photo digest"}
"""What the database stores as it is; the other forms are those in which it might leak."""

HalfArray = np.ndarray[tuple[int], np.dtype[np.float16]]
Person = tuple[str, str]
"""Path, and a name for what is reported."""


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

    def add_template(self, person: str, template: HalfArray, *, is_open: bool) -> None:
        """Search for the first numbers of a template in five forms, of which an open one is stored in the first."""
        halves = template[:12]
        self.add("template as halves" if is_open else "unsealed template", person, halves.tobytes())
        self.add("template as floats", person, halves.astype("<f4").tobytes())
        self.add("template as text", person, ",".join(str(one) for one in halves[:4].astype("<f4")).encode())
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
            people = [
                person
                for storage in STORAGES
                for person in await _enrol_people(service, client, storage, plan, chance, scanner)
            ]
            await _check_control(service, scanner, outcome)
            erasures = [
                await _erase_person(client, path, by_consent=at % 3 == 0) for at, (path, _) in enumerate(people)
            ]
            for (_, name), (_, state) in zip(people, erasures, strict=True):
                expected = "unreadable" if name.startswith("sealed") else "unfindable"
                outcome.check(state == expected, f"{name} is answered as {state}")
            scrubbed = json.loads(await asyncio.to_thread(run_command, data, "scrub", "--json"))
            found = await asyncio.to_thread(scanner.find, data.parent)
            states = {(await client.http.get(path)).json()["state"] for path, _ in erasures}
            outcome.check(states == {"scrubbed"}, f"states are {states}")
            await _check_receipt(client, erasures[0][0], outcome)
        stopped = await asyncio.to_thread(scanner.find, data.parent)
        for name in scanner.patterns:
            places = found.get(name, set()) | stopped.get(name, set())
            outcome.check(not places, f"{name} is in {', '.join(sorted(places)[:3])}")
    outcome.notes.append(
        f"{len(people)} of {len(STORAGES) * (_count_persons(plan) + 1)} persons erased, half of them sealed;"
        f" {len(scanner.patterns)} fingerprints; the scrub planted {scrubbed['planted']}, saw {scrubbed['seen_before']}"
        f" and found {scrubbed['found_after']} in {scrubbed['bytes'] / 2**20:.0f} MiB; longest lock"
        f" {max(scrubbed['rewritten'].values()):.2f} s"
    )
    return outcome


def _count_persons(plan: Plan) -> int:
    return plan.choose(1_000, 60)


async def _enrol_people(
    service: Service, client: Client, storage: str, plan: Plan, chance: random.Random, scanner: ResidueScanner
) -> list[Person]:
    """Enrol persons by vectors, and one from a photo with a crop, in a collection; return those to be erased."""
    policy = {"storage": storage, "keep_crops": True}
    (await client.http.post("/v1/collections", json={"name": storage, "policy": policy})).raise_for_status()
    _, dimension = await client.fetch_space()
    vectors = draw_vectors(_count_persons(plan), dimension, plan.seed + STORAGES.index(storage))
    words = [_draw_word(chance) for _ in vectors]
    (await client.enrol_vectors(dict(zip(words, vectors, strict=True)), storage)).raise_for_status()
    people = f"/v1/collections/{storage}/persons"
    ids = {one["external_id"]: one["id"] for one in await client.list_persons(storage)}
    erased = []
    for at in chance.sample(range(len(words)), plan.choose(40, 3)):
        name, path = f"{storage}-{at}", f"{people}/{ids[words[at]]}"
        word, note = _draw_word(chance), _draw_word(chance)
        (await client.http.patch(path, json={"name": word, "metadata": {"note": note}})).raise_for_status()
        for kind, content in (("external id", words[at]), ("name", word), ("metadata", note)):
            scanner.add(kind, name, content.encode())
        erased.append((path, name))
    photo, key, word = portrait(mirror=storage == "sealed"), _draw_word(chance), _draw_word(chance)
    answer = await client.register_photo(photo, idempotency_key=key, name=word, collection=storage)
    erased.append((f"{people}/{answer.raise_for_status().json()['person']['id']}", f"{storage}-photo"))
    for kind, content in (("name", word), ("idempotency key", key)):
        scanner.add(kind, f"{storage}-photo", content.encode())
    scanner.add("photo", f"{storage}-photo", photo[len(photo) // 2 :][:32])
    for path, name in erased:
        await _read_stored_forms(service, client, path, name, scanner)
    return erased


def _draw_word(chance: random.Random) -> str:
    return f"kanari{chance.getrandbits(96):024x}"


async def _read_stored_forms(service: Service, client: Client, path: str, name: str, scanner: ResidueScanner) -> None:
    """Search for what the database stores of a person, too."""
    exported = (await client.http.get(f"{path}/export", params={"vectors": "true"})).raise_for_status().json()
    (row,) = await fetch_rows(
        service,
        "SELECT faces.embedding::text, faces.sealed, source_sha256, faces.code, crops.sealed FROM faces"
        " LEFT JOIN crops ON crops.face_id = faces.id WHERE faces.person_id = $1",
        path.rpartition("/")[2],
    )
    embedding, sealed, digest, code, crop = row
    scanner.add_template(name, np.array(exported["templates"][0]["vector"], "<f2"), is_open=embedding is not None)
    for kind, content in (
        ("sealed template", sealed and sealed[-48:]),
        ("photo digest", digest),
        ("code", code and code[:24]),
        ("crop", crop and crop[64:96]),
    ):
        if content is not None:
            scanner.add(kind, name, content)


async def _check_control(service: Service, scanner: ResidueScanner, outcome: Outcome) -> None:
    """See what is stored in tables and write-ahead log, and every form in a planted file; see no unsealed template."""
    async with connect(service, SUPERUSER) as connection:
        await connection.execute("CHECKPOINT")
    planted = service.data / "planted"
    planted.write_bytes(b"".join(scanner.patterns.values()))
    found = await asyncio.to_thread(scanner.find, service.data)
    planted.unlink()
    unseen = [name for name in scanner.patterns if "planted" not in found[name]]
    outcome.require_control(not unseen, f"{len(scanner.patterns)} fingerprints in a planted file")
    stored = [name for name in scanner.patterns if name.partition("/")[0] in STORED]
    for folder, where in (("base", "table files"), ("pg_wal", "the write-ahead log")):
        seen = [name for name in stored if any(file.startswith(f"postgres/{folder}/") for file in found[name])]
        outcome.require_control(len(seen) == len(stored), f"{len(seen)} of {len(stored)} stored ones in {where}")
    for name in scanner.patterns:
        if name.startswith("unsealed template"):
            outcome.check(found[name] == {"planted"}, f"{name} is in {found[name]}, though it is stored sealed")


async def _erase_person(client: Client, path: str, *, by_consent: bool) -> tuple[str, str]:
    """Erase a person, or withdraw their only consent; return the path by which it is followed, and its state."""
    if by_consent:
        (consent,) = await client.list_items(f"{path}/consents")
        path = f"{path}/consents/{consent['id']}"
    answer = (await client.http.delete(path)).raise_for_status().json()
    return answer["erasure_path"], answer["state"]


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
