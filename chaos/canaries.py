"""F17: does anything a caller sends, or the vector made of it, turn up in a log, a metric or the audit record?

A word of its own is sent in every place a caller can write to, at the most talkative level, through refusals, failing
and slow SQL, killed workers and a killed PostgreSQL. Then everything is read that operators pass on: what the server
and PostgreSQL printed, metrics, audit record, OpenAPI document, and every other file outside the database's own. The
audit record holds on purpose what values a person had, for as long as they are there, and how they consented: both are
left out, and nothing else of it.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import signal
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from PIL import Image
from tests.faces import astronaut

from chaos.client import CONSENT, Client, draw_vectors
from chaos.outcome import Outcome, Plan
from chaos.service import Service, run_service
from chaos.sql import connect
from vultus.cli.serving import FIRST_KEY_FILE
from vultus.db.embedded.cluster import SUPERUSER

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from vultus.domain import FloatArray

RECORDED_ON_PURPOSE = ("changes", "consent", "consents_ended")
"""What an entry of the audit record tells of values and consents."""

BAR = "0 hits"
SETTINGS = {"LOG__LEVEL": "DEBUG", "DATABASE__STATEMENT_TIMEOUT_MS": "1000", "INFERENCE__WORKERS": "1"}
PERSONS = "/v1/collections/default/persons"
DATABASE_FOLDERS = {"base", "global", "pg_wal", "pg_xact"}
"""Where PostgreSQL keeps what it was asked to keep."""

TALKATIVE = (
    "log_min_duration_statement = 0",
    "log_parameter_max_length = -1",
    "log_statement = 'all'",
    "log_error_verbosity = 'default'",  # without it a line has no details, and so no parameters
)


class Canaries:
    """Words that occur nowhere else, by the place they were sent to.

    Args:
        chance: Draws them.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._forms: dict[str, list[bytes]] = {}

    @property
    def places(self) -> list[str]:
        """Where words were sent."""
        return list(self._forms)

    def make(self, place: str) -> str:
        """Return a new word for a place; it has letters and digits only, which no encoding of text changes."""
        word = f"kanari{self._chance.getrandbits(96):024x}"
        self.add(place, word)
        return word

    def add(self, place: str, word: str) -> None:
        """Search for a word too: as text, UTF-16, hexadecimal, and base64 whatever stands before it."""
        raw = word.encode()
        encoded = [base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4] for shift in range(3)]
        self._forms[place] = [raw, word.encode("utf-16-le"), raw.hex().encode(), *encoded]

    def add_vector(self, place: str, vector: FloatArray) -> None:
        """Search for a vector too: as binary numbers of 32 and 16 bits, their base64, and decimals."""
        numbers = vector[:4].astype("<f4").tobytes(), vector[:4].astype("<f2").tobytes()
        halves = vector[:4].astype("<f2").astype(float)
        decimals = [f"{value:.5f}"[:8].encode() for value in (*vector[1:4], *halves[1:4])]
        self._forms[place] = [*numbers, base64.b64encode(vector.astype("<f4").tobytes())[:40], *decimals]

    def find(self, sinks: dict[str, bytes]) -> dict[str, str]:
        """Return the places whose word occurs in anything, with where."""
        return {
            place: next(name for name, content in sinks.items() for form in forms if form in content)
            for place, forms in self._forms.items()
            if any(form in content for content in sinks.values() for form in forms)
        }


async def measure(plan: Plan) -> Outcome:
    """Send the canaries and look for them."""
    outcome, chance = Outcome(), plan.make_random()
    async with run_service(SETTINGS) as service, service.open_client() as client:
        await _check_control(service, client, chance, outcome)
        canaries = Canaries(chance)
        canaries.add("first administrator's key", service.key)
        mode = stat.S_IMODE((service.data / FIRST_KEY_FILE).stat().st_mode)
        outcome.check(mode == 0o600, f"{FIRST_KEY_FILE} has the mode {mode:o}")
        await _send_texts(client, canaries)
        await _send_refused(client, canaries)
        await _send_vectors(client, canaries, plan.seed)
        await _break_things(service, client, canaries)
        found = canaries.find(await _collect_sinks(service, client))
        for place in canaries.places:
            outcome.check(place not in found, f"{place} is in {found.get(place)}")
    return outcome


async def _check_control(service: Service, client: Client, chance: random.Random, outcome: Outcome) -> None:
    """Let PostgreSQL log statements with their values, and see a name and a vector there; then stop it again."""
    canaries = Canaries(chance)
    _, dimension = await client.fetch_space()
    (vector,) = draw_vectors(1, dimension, chance.randrange(2**32))
    canaries.add_vector("vector", vector)
    name = canaries.make("name")
    async with connect(service, SUPERUSER) as connection:
        for setting in TALKATIVE:
            await connection.execute(f"ALTER SYSTEM SET {setting}")
        await connection.execute("SELECT pg_reload_conf()")
        await asyncio.sleep(0.5)
        await _post_person(client, name=name)
        values = "[" + ",".join(f"{value:.6f}" for value in vector) + "]"
        await connection.execute(f"SELECT '{values}'")
        await connection.execute("ALTER SYSTEM RESET ALL")
        await connection.execute("SELECT pg_reload_conf()")
        await asyncio.sleep(0.5)
    found = canaries.find(await _collect_sinks(service, client))
    outcome.require_control(
        found.keys() == {"name", "vector"}, "name and vector in a log that PostgreSQL was told to write"
    )
    log = service.data / "postgres" / "server.log"
    os.truncate(log, 0)


async def _post_person(client: Client, **fields: Any) -> httpx.Response:
    return await client.http.post(PERSONS, json={"name": "Ada", "consent": CONSENT} | fields)


async def _send_texts(client: Client, canaries: Canaries) -> None:
    """Register and recognise with a word in every field, header and part of the photo."""
    make = canaries.make
    photo = _make_photo(exif=make("EXIF description"), comment=make("JPEG comment"))
    fields = {
        "name": make("name"),
        "external_id": make("external id"),
        "metadata": f'{{"{make("metadata key")}": "{make("metadata value")}"}}',
        "consent_purpose": make("purpose"),
        "consent_recorded_by": make("recorded by"),
        "consent_evidence_ref": make("evidence"),
        "allow_lookalike": "true",
    }
    files = {"photo": (f"{make('file name')}.jpg", photo, "image/jpeg")}
    headers = {name: make(name) for name in ("Idempotency-Key", "User-Agent", "Referer", "X-Forwarded-For", "X-Other")}
    headers["Cookie"] = f"session={make('cookie')}"
    registered = await client.http.post("/v1/register", data=fields, files=files, headers=headers)
    registered.raise_for_status()
    (await client.http.post("/v1/recognize", files=files, headers=headers)).raise_for_status()
    person = registered.json()["person"]["id"]
    changes = {"name": make("changed name"), "metadata": {"note": make("changed metadata")}}
    (await client.http.patch(f"{PERSONS}/{person}", json=changes)).raise_for_status()
    (await client.http.get(PERSONS, params={"external_id": make("query")})).raise_for_status()
    (await client.http.post("/v1/collections", json={"name": make("collection's name")})).raise_for_status()
    key_id, secret = await client.create_key(role="recognize")
    canaries.add("key", secret)
    async with Client(client.http.base_url.port or 0, secret) as caller:
        (await caller.http.get("/v1/version")).raise_for_status()
    (await client.http.delete(f"/v1/keys/{key_id}")).raise_for_status()
    async with Client(client.http.base_url.port or 0, secret) as caller:  # revoked now
        await caller.http.get("/v1/version")


async def _send_refused(client: Client, canaries: Canaries) -> None:
    """Send requests that are refused, each with a word where it is wrong."""
    make, http = canaries.make, client.http
    await http.get(f"/v1/{make('unknown path')}")
    await http.get(f"/v1/collections/{make('unknown collection')}")
    await http.get(f"{PERSONS}/{make('no id')}")
    await http.get("/v1/version", params={make("unknown parameter"): "1"})
    await http.get(PERSONS, params={"cursor": make("cursor")})
    await http.get("/v1/version", headers={"Authorization": f"Bearer {make('wrong key')}"})
    await http.get("/v1/version", headers={"Authorization": "Bearer vultus_" + make("wrong key of the right shape")})
    await http.get("/v1/version", headers={"Authorization": f"Basic {make('basic')}"})
    await http.get("/v1/version", headers={"Authorization": "", "X-API-Key": make("wrong X-API-Key")})
    await http.post(PERSONS, content=f'{{"name": "{make("broken JSON")}"'.encode())
    await _post_person(client, **{make("unknown member"): 1})
    await _post_person(client, name=[make("wrong type")])
    await _post_person(client, name=make("name too long") * 20)
    await _post_person(client, consent=CONSENT | {"expires_at": make("no date")})
    await _post_person(client, name=make("name with a control character") + "\0")
    await client.recognize_photo(make("no image").encode())
    await client.recognize_photo(_make_photo(exif=make("EXIF of a damaged photo"))[:4_000])
    await client.recognize_photo(_make_photo(), collection=make("collection that is not there"))
    twice = make("external id given twice")
    await _post_person(client, external_id=twice)
    await _post_person(client, external_id=twice)  # a unique constraint of PostgreSQL
    with suppress(httpx.HTTPError):
        await http.request(make("METHOD").upper(), "/v1/version")


async def _send_vectors(client: Client, canaries: Canaries, seed: int) -> None:
    """Enrol a vector, search for it, read one of a photo, and send one that is refused."""
    _, dimension = await client.fetch_space()
    enrolled, refused = draw_vectors(2, dimension, seed)
    canaries.add_vector("enrolled vector", enrolled)
    canaries.add_vector("refused vector", refused)
    (await client.enrol_vectors({canaries.make("external id beside a vector"): enrolled})).raise_for_status()
    (await client.search_vector(enrolled)).raise_for_status()
    await client.search_vector(np.append(refused, 1.0).astype(np.float32))
    photo = {"photo": ("photo.jpg", _make_photo(), "image/jpeg")}
    (face,) = (await client.http.post("/v1/embeddings", files=photo)).raise_for_status().json()["faces"]
    canaries.add_vector("vector of a photo", np.asarray(face["vector"], np.float32))


async def _break_things(service: Service, client: Client, canaries: Canaries) -> None:
    """Meet a lock beyond the statement timeout, a killed worker, and a killed PostgreSQL."""
    make = canaries.make
    async with connect(service) as connection, connection.transaction():
        await connection.execute("LOCK TABLE persons IN ACCESS EXCLUSIVE MODE")
        await _post_person(client, name=make("name during a slow statement"))
    photo = _make_photo(exif=make("EXIF for a killed worker"))
    asked = asyncio.create_task(client.recognize_photo(photo))
    await asyncio.sleep(0.02)
    os.kill(service.list_processes()[-1].pid, signal.SIGKILL)
    await asked
    os.kill(service.find_postgres()[0].pid, signal.SIGKILL)
    await _post_person(client, name=make("name while PostgreSQL is gone"))
    await service.wait_until_ready()
    await _post_person(client, name=make("name after PostgreSQL's recovery"))


async def _collect_sinks(service: Service, client: Client) -> dict[str, bytes]:
    sinks = {str(path.relative_to(service.data)): path.read_bytes() for path in _list_files(service.data)}
    for path in ("/metrics", "/openapi.json", "/v1/health/ready", "/v1/models"):
        sinks[path] = (await client.http.get(path)).content
    audit = await client.list_items("/v1/audit")
    if not audit:
        raise RuntimeError("The audit record is empty; nothing was sent.")
    for entry in audit:
        for name in RECORDED_ON_PURPOSE:
            entry["detail"].pop(name, None)
    return sinks | {"/v1/audit": repr(audit).encode()}


def _list_files(data: Path) -> Iterator[Path]:
    """Yield the files of a data directory without weights, programs, the first key, and what the database stores."""
    for folder, names, files in os.walk(data):
        names[:] = [name for name in names if name not in DATABASE_FOLDERS | {"graphs"} and "programs" not in name]
        yield from (path for name in files if name != FIRST_KEY_FILE and (path := data / folder / name).is_file())


def _make_photo(exif: str = "", comment: str = "") -> bytes:
    image = Image.fromarray(astronaut())
    tags = Image.Exif()
    tags[0x010E] = exif  # ImageDescription
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=92, exif=tags, comment=comment.encode())
    return stream.getvalue()
