"""Bundles: a collection moves from one installation to another, and what is not as it was signed moves nothing."""

from __future__ import annotations

import asyncio
import json
import struct
import tarfile
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings, strategies
from tests.callers import CALLER
from tests.conftest import TEMPLATE, as_role
from tests.services.conftest import count_rows, expire, list_actions

from vultus.db.database import Database
from vultus.db.embedded.cluster import OWNER, SERVICE
from vultus.domain import Calibration, Collection, SpaceRegistry, Storage
from vultus.errors import ConflictError, InvalidInputError, PackNotLoadedError, SignatureInvalidError, VultusError
from vultus.sealing.custody import Custody
from vultus.sealing.key_ring import FileKeyRing
from vultus.sealing.key_store import KeyStore
from vultus.sealing.person_keys import PersonKeyFile
from vultus.sealing.signatures import encode_public_key
from vultus.services.bundles.export import BundleExporter
from vultus.services.bundles.importing import BundleImporter
from vultus.services.bundles.reading import BundleReading
from vultus.services.collections import CollectionService
from vultus.services.people.consents import ConsentService
from vultus.services.people.erasure import Eraser
from vultus.services.people.ledger import ErasureLedger
from vultus.settings import DatabaseSettings, JobSettings
from vultus.utils.age_files import make_identity, read_identities

if TYPE_CHECKING:
    from vultus.domain import FloatArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
CALIBRATION = Calibration(points=((0.01, 0.3), (0.001, 0.5)), margin=0.05, source="tests")
_numbers = count(1)


def make_keys(folder: Path) -> KeyStore:
    keys = KeyStore(folder / "keys.json", FileKeyRing(folder / "ring.key"))
    keys.create()
    return keys


def read_public_key(keys: KeyStore) -> str:
    return encode_public_key(keys.load().signing_key.public_key())


class Installation:
    """One of the two: a database, keys and a ledger of its own."""

    def __init__(self, database: Database, folder: Path, spaces: SpaceRegistry) -> None:
        self.database = database
        self.keys = make_keys(folder)
        database.use_keys(Custody(self.keys, PersonKeyFile(folder / "persons.keys", self.keys)))
        self.ledger = ErasureLedger.attach(database, folder / "erasures.jsonl")
        self.exporter = BundleExporter(database, spaces, self.keys)
        self.importer = BundleImporter(database, spaces, self.keys, folder / "erasures.jsonl", has_liveness=False)


@pytest.fixture
def here(database: Database, tmp_path: Path, spaces: SpaceRegistry) -> Installation:
    (folder := tmp_path / "here").mkdir()
    return Installation(database, folder, spaces)


@pytest.fixture
async def there(
    server_url: str, admin: asyncpg.Connection, tmp_path: Path, spaces: SpaceRegistry
) -> AsyncIterator[Installation]:
    name = f"bundles_{next(_numbers)}"
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {OWNER}")
    url = server_url.replace("/vultus?", f"/{name}?")
    database = await Database.connect(
        as_role(url, SERVICE), DatabaseSettings(pool_size=3), owner_url=as_role(url, OWNER)
    )
    (folder := tmp_path / "there").mkdir()
    yield Installation(database, folder, spaces)
    await database.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["open", "sealed"])
async def collection(here: Installation, collections: CollectionService, request: pytest.FixtureRequest) -> Collection:
    """The collection `home`, whose templates lie in the clear or sealed; its policy moves with it."""
    return await collections.create_collection(CALLER, "home", policy={"storage": request.param})


@pytest.fixture
async def people(
    here: Installation, collection: Collection, collections: CollectionService, enrol: Enrol, towards: Towards
) -> list[Any]:
    """Ada with two faces, Grace with one, Mary whose consent has ended and whom no sweep has erased yet."""
    async with here.database.transaction() as work:
        await collections.set_calibration(work, CALLER, collection.id, collection.space_id, CALIBRATION)
    ends = datetime.now(UTC) + timedelta(days=100)
    async with here.database.transaction() as work:
        found = [
            await enrol(work, collection, "ada", towards(0), towards(0, 0.2), expires_at=ends),
            await enrol(work, collection, "grace", towards(1)),
            await enrol(work, collection, "mary", towards(2)),
        ]
    await expire(here.database, found[2].consent)
    return found


async def search(installation: Installation, collection: Collection, probe: FloatArray) -> list[Any]:
    async with installation.database.transaction(read_only=True) as work:
        (result,) = await work.templates.search_exact(collection.id, collection.space_id, probe[None], 5)
    return [(one.person_id, one.external_id, one.name, one.face_id, one.similarity) for one in result.candidates]


async def read_everything(installation: Installation, collection: Collection, person_id: Any) -> tuple[Any, ...]:
    async with installation.database.transaction(read_only=True) as work:
        person = await work.persons.get_person(collection.id, person_id)
        consents = await work.consents.list_consents(collection.id, person_id, None, 9)
        faces = await work.faces.list_faces(collection.id, person_id, collection.space_id, None, 9)
    return replace(person, updated_at=person.created_at), consents, faces


async def test_a_collection_arrives_with_everything_and_answers_a_search_as_before(
    here: Installation, there: Installation, collection: Collection, people: list[Any], tmp_path: Path, towards: Towards
) -> None:
    secret, recipient = make_identity()
    (identity := tmp_path / "key").write_text(secret)
    file = tmp_path / "home.bundle"
    counts = await here.exporter.export_collection(CALLER, "home", file, recipients=(recipient,))
    opened: dict[str, Any] = {"identities": read_identities(identity), "signed_by": read_public_key(here.keys)}

    report = await there.importer.import_bundle(CALLER, file, **opened)
    again = await there.importer.import_bundle(CALLER, file, **opened)

    assert (counts.persons, counts.consents, counts.faces) == (2, 2, 3)
    assert (report.is_new, report.persons, report.consents, report.faces) == (True, 2, 2, 3)
    assert (again.is_new, again.persons, again.known) == (False, 0, 2)
    async with here.database.transaction(read_only=True) as work:
        kept = await work.collections.get_collection(collection.id)
    assert replace(report.collection, created_at=kept.created_at, updated_at=kept.updated_at) == kept
    assert kept.calibrations == {collection.space_id: CALIBRATION}
    sealed = await count_rows(there.database, "faces WHERE sealed IS NOT NULL")
    assert sealed == (3 if collection.policy.storage == "sealed" else 0)
    for one in people[:2]:
        assert await read_everything(there, collection, one.person.id) == await read_everything(
            here, collection, one.person.id
        )
    probe = towards(0, 0.1)
    assert await search(there, collection, probe) == await search(here, collection, probe)
    assert (await list_actions(here.database))[-1] == "collection.exported"
    assert (await list_actions(there.database))[-2:] == ["collection.created", "collection.imported"]


async def test_whoever_was_erased_or_withdrew_there_does_not_come_back(
    here: Installation, there: Installation, collection: Collection, people: list[Any], tmp_path: Path
) -> None:
    file, signed_by = tmp_path / "home.bundle", read_public_key(here.keys)
    await here.exporter.export_collection(CALLER, "home", file, recipients=())
    await there.importer.import_bundle(CALLER, file, signed_by=signed_by)
    ada, grace, _ = people
    await Eraser(there.database, JobSettings()).erase(CALLER, "home", ada.person.id)
    await ConsentService(there.database).withdraw_consent(CALLER, "home", grace.person.id, grace.consent.id)

    report = await there.importer.import_bundle(CALLER, file, signed_by=signed_by)

    assert (report.persons, report.erased + report.lapsed) == (0, 2)
    assert await count_rows(there.database, "persons") == 0


async def test_a_part_that_grows_too_large_is_split(
    here: Installation, there: Installation, collection: Collection, people: list[Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("vultus.services.bundles.export.MAX_PART_BYTES", 1)
    await here.exporter.export_collection(CALLER, "home", file := tmp_path / "home.bundle", recipients=())

    report = await there.importer.import_bundle(CALLER, file, signed_by=read_public_key(here.keys))

    with tarfile.open(file) as tar:
        assert [name for name in tar.getnames() if "people" in name] == ["people.00000.jsonl", "people.00001.jsonl"]
    assert (report.persons, report.faces) == (2, 3)


async def test_a_sealed_collection_may_be_open_where_it_arrives_but_not_where_it_is(
    here: Installation, there: Installation, collection: Collection, people: list[Any], tmp_path: Path
) -> None:
    await here.exporter.export_collection(CALLER, "home", file := tmp_path / "home.bundle", recipients=())
    signed_by = read_public_key(here.keys)

    report = await there.importer.import_bundle(CALLER, file, signed_by=signed_by, storage=Storage.OPEN)

    assert report.collection.policy.storage is Storage.OPEN
    assert await count_rows(there.database, "faces WHERE embedding IS NOT NULL") == 3
    with pytest.raises(ConflictError, match="leave out --storage"):
        await there.importer.import_bundle(CALLER, file, signed_by=signed_by, storage=Storage.SEALED)


async def test_whoever_is_erased_while_a_bundle_is_read_does_not_come_back(
    here: Installation, collection: Collection, people: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its two readings, when the ledger was read already."""
    file = tmp_path / "home.bundle"
    await here.exporter.export_collection(CALLER, "home", file, recipients=())
    check = here.importer._check

    async def check_and_erase(*given: Any) -> Any:
        found = await check(*given)
        await Eraser(here.database, JobSettings()).erase(CALLER, "home", people[0].person.id)
        return found

    monkeypatch.setattr(here.importer, "_check", check_and_erase)

    report = await here.importer.import_bundle(CALLER, file)

    assert (report.persons, report.erased, report.known) == (0, 1, 1)


async def test_an_id_that_is_taken_in_another_collection_becomes_another_one_always_the_same(
    here: Installation, there: Installation, collection: Collection, people: list[Any], tmp_path: Path, enrol: Enrol,
    towards: Towards,
) -> None:  # fmt: skip
    file, signed_by = tmp_path / "home.bundle", read_public_key(here.keys)
    await here.exporter.export_collection(CALLER, "home", file, recipients=())
    async with there.database.transaction() as work:
        other = await work.collections.add_collection("other", collection.space_id, collection.policy)
        await work.bulk.add_moved([replace(people[0].person, collection_id=other.id, external_id="somebody")], [])

    report = await there.importer.import_bundle(CALLER, file, signed_by=signed_by)
    again = await there.importer.import_bundle(CALLER, file, signed_by=signed_by)

    assert (report.persons, again.persons, again.known) == (2, 0, 2)
    async with there.database.transaction(read_only=True) as work:
        assert (await work.persons.get_person(other.id, "somebody")).id == people[0].person.id
        assert (await work.persons.get_person(collection.id, "ada")).id != people[0].person.id


async def test_what_is_there_already_is_not_changed_and_another_owner_of_an_external_id_refuses_all(
    here: Installation, there: Installation, collection: Collection, people: list[Any], tmp_path: Path, enrol: Enrol,
    towards: Towards,
) -> None:  # fmt: skip
    file, signed_by = tmp_path / "home.bundle", read_public_key(here.keys)
    await here.exporter.export_collection(CALLER, "home", file, recipients=())
    async with there.database.transaction() as work:
        await work.collections.add_collection("home", collection.space_id, collection.policy)
    with pytest.raises(ConflictError, match="--name"):
        await there.importer.import_bundle(CALLER, file, signed_by=signed_by)
    days = (datetime.now(UTC) - people[0].consent.granted_at).days + 10
    async with there.database.transaction() as work:
        target = await work.collections.add_collection(
            "target", collection.space_id, collection.policy, days, collection_id=collection.id
        )
        grace = await enrol(work, target, "grace", towards(3))
    with pytest.raises(ConflictError, match="'grace'"):
        await there.importer.import_bundle(CALLER, file, signed_by=signed_by)
    assert await count_rows(there.database, "persons") == 1
    await Eraser(there.database, JobSettings()).erase(CALLER, "target", grace.person.id)

    report = await there.importer.import_bundle(CALLER, file, signed_by=signed_by)

    assert (report.collection.name, report.persons) == ("target", 2)
    async with there.database.transaction(read_only=True) as work:
        (consent,) = await work.consents.list_consents(target.id, people[0].person.id, None, 9)
    assert consent.expires_at == consent.granted_at + timedelta(days=days)


async def test_a_bundle_of_another_signer_of_an_unknown_space_or_of_a_deleted_collection_is_refused(
    here: Installation, there: Installation, collection: Collection, collections: CollectionService,
    people: list[Any], tmp_path: Path, spaces: SpaceRegistry,
) -> None:  # fmt: skip
    file, signed_by = tmp_path / "home.bundle", read_public_key(here.keys)
    await here.exporter.export_collection(CALLER, "home", file, recipients=())
    with pytest.raises(SignatureInvalidError):
        await there.importer.import_bundle(CALLER, file)
    others = SpaceRegistry(next(one for one in spaces if one.id != collection.space_id))
    stranger = BundleImporter(there.database, others, there.keys, tmp_path / "x.jsonl", has_liveness=False)
    with pytest.raises(PackNotLoadedError):
        await stranger.import_bundle(CALLER, file, signed_by=signed_by)
    assert await count_rows(there.database, "collections") == 0

    await collections.delete_collection(CALLER, "home")
    with pytest.raises(ConflictError, match="deleted here"):
        await here.importer.import_bundle(CALLER, file)


KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEY_TEXT = b64encode(KEY.public_key().public_bytes_raw()).decode()
CONSENT: dict[str, Any] = {"id": str(UUID(int=2)), "purpose": "entry", "recorded_by": "desk", "evidence_ref": "form 7",
           "granted_at": "2026-01-02T03:04:05Z", "expires_at": None}  # fmt: skip
FACE: dict[str, Any] = {"id": str(UUID(int=3)), "consent_id": str(UUID(int=2)), "created_at": "2026-01-02T03:04:06Z",
        "score": 0.9, "size_px": 90, "sharpness": 50, "brightness": 0.5, "yaw_deg": 1, "pitch_deg": 2, "roll_deg": 3,
        "source_sha256": "ab" * 32}  # fmt: skip
PERSON: dict[str, Any] = {"id": str(UUID(int=1)), "external_id": "7", "name": "Ada", "metadata": {"floor": 3},
          "created_at": "2026-01-02T03:04:05+01:00", "consents": [CONSENT], "faces": [FACE]}  # fmt: skip


def vary_person(external_id: str = "8", consent_id: str = str(UUID(int=12)), face_id: str = str(UUID(int=13))) -> Any:
    """Return another person, who shares with `PERSON` what is given."""
    consent, face = {**CONSENT, "id": consent_id}, {**FACE, "id": face_id, "consent_id": consent_id}
    return {**PERSON, "id": str(UUID(int=11)), "external_id": external_id, "consents": [consent], "faces": [face]}


def write_by_hand(
    file: Path,
    space_id: str,
    *,
    person: Mapping[str, Any] = PERSON,
    others: Sequence[Mapping[str, Any]] = (),
    length: float = 1.0,
    counts: int = 0,
    **collection: Any,
) -> Path:
    """Write a bundle as docs/bundle.md says, by nothing of the product."""
    header = {
        "format": "vultus-bundle", "version": 1, "made_at": "2026-01-02T00:00:00Z", "made_by": "hand",
        "collection": {"id": str(UUID(int=9)), "name": "moved", "policy": {"threshold": 0.4, "keep_crops": False},
                       "calibration": None, "retention_days": None, "search": "exact", **collection},
        "space": {"id": space_id, "network": "n", "weights_sha256": "w", "preprocessing": "p", "dimension": 8},
    }  # fmt: skip
    members, people = {"bundle.json": json.dumps(header).encode()}, [person, *others]
    for part, one in enumerate(people):
        members[f"people.{part:05}.jsonl"] = json.dumps(one).encode() + b"\n"
        members[f"vectors.{part:05}.f16"] = struct.pack("<8e", length, *[0.0] * 7)
    number = counts or len(people)
    members["counts.json"] = json.dumps({"persons": number, "consents": number, "faces": number}).encode()
    digests = json.dumps({"sha256": {name: sha256(content).hexdigest() for name, content in members.items()}}).encode()
    signed = {"kind": "bundle", "content": {"digests_sha256": sha256(digests).hexdigest()},
              "installation": str(UUID(int=8)), "public_key": KEY_TEXT}  # fmt: skip
    signature = b64encode(KEY.sign(write_canonical(signed))).decode()
    members |= {"digests.json": digests, "signature.json": write_canonical({**signed, "signature": signature}) + b"\n"}
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
    return file


def write_canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


async def test_a_stranger_can_write_a_bundle(there: Installation, collection: Collection, tmp_path: Path) -> None:
    file = write_by_hand(tmp_path / "hand.bundle", collection.space_id)

    report = await there.importer.import_bundle(CALLER, file, signed_by=KEY_TEXT)

    assert (report.persons, report.consents, report.faces) == (1, 1, 1)
    assert (report.collection.policy.threshold, report.collection.search.value) == (0.4, "exact")
    (found,) = await search(there, report.collection, np.eye(8, dtype=np.float32)[0])
    assert found[:4] == (UUID(int=1), "7", "Ada", UUID(int=3))


async def test_who_is_not_seen_ends_where_the_collection_ended_them(
    there: Installation, collection: Collection, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    for days, arriving in ((40, 0), (10, 1)):
        seen_at = now - timedelta(days=days)
        person = {**PERSON, "consents": [{**CONSENT, "seen_at": seen_at.isoformat()}]}
        file = write_by_hand(tmp_path / f"{days}", collection.space_id, person=person, unseen_days=30)

        report = await there.importer.import_bundle(CALLER, file, signed_by=KEY_TEXT)

        assert (report.persons, report.lapsed) == (arriving, 1 - arriving)
    async with there.database.transaction(read_only=True) as work:
        (consent,) = await work.consents.list_consents(report.collection.id, UUID(int=1), None, 9)
    assert consent.seen_at == seen_at
    assert consent.granted_until is None
    assert consent.expires_at == report.collection.compute_unseen_end(seen_at)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"person": {**PERSON, "name": " Ada"}}, "as texts are kept"),
    ({"person": {**PERSON, "consents": []}}, "rests on no consent"),
    ({"person": {**PERSON, "faces": [FACE, FACE]}}, "two faces of one source"),
    ({"person": {**PERSON, "faces": []}}, "0 faces"),
    ({"person": {**PERSON, "id": 1}}, "a person in it is none"),
    ({"length": 0.5}, "not the length 1"),
    ({"length": float("nan")}, "not the length 1"),
    ({"others": [PERSON]}, "same person twice"),
    ({"others": [vary_person(external_id="7")]}, "same external id twice"),
    ({"others": [vary_person(consent_id=CONSENT["id"])]}, "same consent twice"),
    ({"others": [vary_person(face_id=FACE["id"])]}, "same face twice"),
    ({"person": {**PERSON, "consents": [{**CONSENT, "granted_at": "2200-01-02T03:04:05Z"}]}}, "in the future"),
    ({"person": {**PERSON, "consents": [{**CONSENT, "seen_at": "2200-01-02T03:04:05Z"}]}}, "in the future"),
    ({"person": {**PERSON, "consents": [{**CONSENT, "granted_at": "2026-01-02T03:04:05"}]}}, "a time zone"),
    ({"person": {**PERSON, "faces": [{**FACE, "created_at": "2026-01-02T03:04:05"}]}}, "a time zone"),
    ({"person": {**PERSON, "created_at": "0001-01-02T03:04:05Z"}}, "between the years"),
    ({"person": {**PERSON, "faces": [{**FACE, "score": 1e308}]}}, r"<= 1000000000.0.*score"),
    ({"person": {**PERSON, "faces": [{**FACE, "source_sha256": "ab" * 32 + "\n"}]}}, "source_sha256"),
    ({"name": "two words"}, "collection's name"),
    ({"name": str(UUID(int=5))}, "look like an id"),
    ({"policy": {"threshold": "high"}}, "policy of collection 'moved' is none"),
    ({"policy": {"target_fmr": 0}}, "target_fmr is 0"),
    ({"calibration": {"points": [[0.1]], "margin": 0.1, "source": "x"}}, "calibration of collection 'moved'"),
    ({"calibration": {"points": [], "margin": 0.1, "source": "x"}}, "no rates and cosines"),
    ({"calibration": {"points": 7}}, "calibration of collection 'moved'"),
    ({"counts": 2}, "what its counts.json says"),
]


async def test_a_bundle_that_is_signed_and_wrong_is_refused_in_a_sentence(
    there: Installation, spaces: SpaceRegistry, tmp_path: Path
) -> None:
    for number, (changes, words) in enumerate(WRONG):
        file = write_by_hand(tmp_path / f"{number}.bundle", spaces.default.id, **changes)
        with pytest.raises(InvalidInputError, match=words):
            await there.importer.import_bundle(CALLER, file, signed_by=KEY_TEXT)

    assert await count_rows(there.database, "collections") == 0


async def test_a_face_whose_id_another_person_has_gets_another_one(
    there: Installation, spaces: SpaceRegistry, tmp_path: Path
) -> None:
    for person in (PERSON, vary_person(face_id=FACE["id"])):
        file = write_by_hand(tmp_path / person["id"], spaces.default.id, person=person)

        report = await there.importer.import_bundle(CALLER, file, signed_by=KEY_TEXT)

        assert (report.persons, report.faces) == (1, 1)


@given(at=strategies.integers(0, 10**9), change=strategies.integers(0, 255))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_and_half_a_bundle_are_found(tmp_path: Path, at: int, change: int) -> None:
    """A change of 0 cuts the file off there. Padding, which nobody reads, may be other: that is the same bundle."""
    content = bytearray(write_by_hand(tmp_path / "whole", "space").read_bytes())
    place = at % 8192  # behind that it is padding
    if change:
        content[place] ^= change
    else:
        del content[place:]
    (file := tmp_path / "changed").write_bytes(content)

    async def read() -> list[Any]:
        reading = BundleReading(file, (), KEY_TEXT, lambda _count: None)
        return [people async for people, _ in reading.read_parts()]

    try:
        found = asyncio.run(read())
    except VultusError:
        return
    assert [[one.name for one in people] for people in found] == [["Ada"]]
