"""F15: a data directory is stolen without the key ring; does it give a template or a crop away, or link collections?

The thief has the files, a PostgreSQL to run them with, and the program. The controls: an open collection gives every
template and links its people, and with the custody folder what was sealed opens too.
"""

from __future__ import annotations

import subprocess
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import numpy as np
from scipy.stats import rankdata
from tests.packs import SECOND, describe_pipeline

from chaos.outcome import Bar, Outcome, Plan
from chaos.service import make_data_directory
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.domain import Box, Crop, FloatArray, Principal
from vultus.main import open_database
from vultus.models.pipelines import PipelineRegistry
from vultus.sealing.custody import open_custody
from vultus.sealing.envelopes import (
    OVERHEAD_BYTES,
    TAG_BYTES,
    SealBrokenError,
    build_crop_context,
    build_template_context,
    open_value,
    read_slot,
)
from vultus.services.crop_vault import CropVault
from vultus.services.enrolment.bulk import VectorBatch
from vultus.services.people.consents import ConsentGrant
from vultus.services.people.rekeying import rekey_persons
from vultus.services.search.request import build_query
from vultus.services.wiring import Services, build_services
from vultus.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

BAR = (
    "no vector passes, mean cosine beyond the strangers' mean ≤ 0.15, two collections unlinkable (AUC ≤ 0.55), no crop"
    " opens; re-keying changes no decision"
)
OPERATOR = Principal.from_process("chaos")
COLLECTIONS = {"open": "open", "also-open": "open", "staff": "sealed", "visitors": "sealed"}
SPREAD, DEVIATIONS = 25.0, 4.75
"""Of drawn faces: how fast a coordinate's variance falls; how far above the strangers' mean cosine the threshold is."""

PHOTO_NOISE = 0.05
WAYS, WEIGHTED_WAYS = 5, 2
KEY_BYTES, MAX_KEY_FILE_BYTES, TRIED_VALUES = 32, 16_384, 20


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Drawn people: (n, d) float32 vectors of length 1, and the cosine from which two photos are of one person."""

    vectors: FloatArray
    mean: FloatArray
    threshold: float

    @classmethod
    def draw(cls, count: int, seed: int) -> People:
        """Draw people, and the threshold from strangers."""
        drawn = np.random.default_rng(seed).standard_normal((count + 1_000, 128)) * np.exp(-np.arange(128) / 2 / SPREAD)
        vectors = _normalise(drawn)
        strangers = vectors[count:]
        pairs = (strangers[:500] @ strangers[500:].T).ravel()
        threshold = float(pairs.mean() + DEVIATIONS * pairs.std())
        return cls(vectors[:count], strangers.mean(axis=0), threshold)

    def photograph(self, seed: int) -> FloatArray:
        """Return another photo of each."""
        noise = np.random.default_rng(seed).standard_normal(self.vectors.shape) * PHOTO_NOISE
        return _normalise(self.vectors + noise * np.abs(self.vectors).mean())


@dataclass(frozen=True, slots=True, eq=False)
class StolenValue:
    """A template or crop as it lies in the stolen database: either plain or sealed."""

    collection: str
    external_id: str
    person_id: UUID
    context: bytes
    plain: FloatArray | None
    sealed: bytes


async def measure(plan: Plan) -> Outcome:
    """Enrol the same people in every collection, steal the files, and try to make something of them."""
    outcome, people = Outcome(), People.draw(plan.choose(1_000, 300), plan.seed)
    with make_data_directory() as data:
        settings = Settings(data_dir=data)
        async with _open_services(settings) as services:
            photos = {}
            for at, (name, storage) in enumerate(COLLECTIONS.items()):
                policy = {"threshold": people.threshold, "storage": storage}
                await services.collections.create_collection(OPERATOR, name, policy=policy)
                photos[name] = people.photograph(plan.seed + at)
                await _enrol(services, name, photos[name])
            await _keep_crops(services, "staff", plan.choose(80, 20))
        stolen = data.parent / "stolen"
        _copy_files(data, stolen)
        templates, crops = await _read_database(stolen)
        _rebuild_templates(people, photos, templates, outcome)
        _link_collections(templates, outcome)
        _try_keys(stolen, [*templates, *crops], outcome)
        _open_with_custody(settings, photos, templates, crops, outcome)
    await _rekey(plan, outcome)
    return outcome


@asynccontextmanager
async def _open_services(settings: Settings) -> AsyncIterator[Services]:
    pool: Any = None  # no photo is analysed
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings, migrates=True))
        services = build_services(settings, database, pool, PipelineRegistry(describe_pipeline(SECOND)).spaces)
        stack.callback(services.candidate_engine.close)
        yield services


async def _enrol(services: Services, collection: str, vectors: FloatArray) -> None:
    for start in range(0, len(vectors), 5_000):
        part = vectors[start : start + 5_000]
        names = [f"person-{start + at}" for at in range(len(part))]
        batch = VectorBatch(
            collection, services.spaces.default.id, names, [None] * len(names), part, ConsentGrant("Test", "chaos")
        )
        await services.bulk_registrar.register(OPERATOR, batch)


async def _keep_crops(services: Services, name: str, count: int) -> None:
    """Keep a made-up crop of some persons' faces."""
    vault = CropVault(services.custody)
    async with services.database.transaction() as work:
        collection = await work.collections.get_collection_by_name(name)
        await work.lock_collection(collection.id)
        for person in await work.persons.list_persons(collection.id, after=None, limit=count):
            (face,) = await work.faces.list_faces(collection.id, person.id, collection.space_id, None, 1)
            (consent,) = await work.consents.list_live_consents(collection.id, person.id)
            crop = Crop(b"\xff\xd8" + person.id.bytes * 40, Box(0, 0, 1, 1))
            await vault.save_crops(work, [(face, crop)], consent)


def _copy_files(data: Path, stolen: Path) -> None:
    """Copy a folder with the owners of its files, for PostgreSQL refuses those of others."""
    subprocess.run(["cp", "-a", data, stolen], check=True)


async def _read_database(stolen: Path) -> tuple[list[StolenValue], list[StolenValue]]:
    """Start PostgreSQL on the stolen files, and read templates and crops."""
    owners = "JOIN persons ON persons.id = person_id JOIN collections ON collections.id = {}.collection_id"
    with EmbeddedPostgres(stolen) as server:
        server.start()
        connection = await asyncpg.connect(server.superuser_url.replace("+asyncpg", ""))
        try:
            faces = await connection.fetch(
                "SELECT collections.name, external_id, person_id, faces.collection_id, faces.id, faces.contract_id,"
                f" embedding::text AS plain, sealed FROM faces {owners.format('faces')} ORDER BY faces.number"
            )
            kept = await connection.fetch(
                "SELECT collections.name, external_id, person_id, crops.collection_id, face_id AS id, sealed"
                f" FROM crops {owners.format('crops')}"
            )
        finally:
            await connection.close()
    templates = [
        StolenValue(
            row["name"],
            row["external_id"],
            row["person_id"],
            build_template_context(row["collection_id"], row["person_id"], row["id"], row["contract_id"]),
            None if row["plain"] is None else np.fromstring(row["plain"].strip("[]"), np.float32, sep=","),
            row["sealed"] or b"",
        )
        for row in faces
    ]
    crops = [
        StolenValue(
            row["name"],
            row["external_id"],
            row["person_id"],
            build_crop_context(row["collection_id"], row["person_id"], row["id"]),
            None,
            row["sealed"],
        )
        for row in kept
    ]
    return templates, crops


def _rebuild_templates(
    people: People, photos: dict[str, FloatArray], templates: list[StolenValue], outcome: Outcome
) -> None:
    """Take what is stored for a vector, in every way there is, and compare it with the true one."""
    seen = [value for value in templates if value.plain is not None]
    rebuilt = sum(_cosine(value.plain, photos[value.collection][_number(value)]) > 0.999 for value in seen)
    outcome.require_control(rebuilt == len(seen) > 0, f"{rebuilt} of {len(seen)} templates of open collections read")
    sealed = [value for value in templates if value.plain is None]
    ways = [np.stack([_view(value, way) for value in sealed]) for way in range(WAYS)]
    enrolled = np.stack([photos[value.collection][_number(value)] for value in sealed])
    worst = 0.0
    for vectors in ways:
        centred = [_cosine(one - people.mean, true - people.mean) for one, true in zip(vectors, enrolled, strict=True)]
        worst = max(worst, abs(float(np.mean(centred))))
    for at, true in enumerate(enrolled):
        best = max(_cosine(vectors[at], true) for vectors in ways)
        outcome.check(best < people.threshold, f"a template of {sealed[at].external_id} was rebuilt, cosine {best:.3f}")
    outcome.bars.append(Bar("mean cosine beyond the strangers' mean", worst, 0.15))


def _link_collections(templates: list[StolenValue], outcome: Outcome) -> None:
    """Tell by what is stored whether two templates of different collections are of one person."""

    def compute_auc(first: str, second: str) -> float:
        best = 0.0
        for way in range(WAYS):
            sides = []
            for name in (first, second):
                found = sorted((value for value in templates if value.collection == name), key=_number)
                sides.append(_normalise(np.stack([_view(value, way) for value in found])))
            cosines = sides[0] @ sides[1].T
            genuine = np.eye(len(cosines), dtype=bool)
            ranks = rankdata(np.concatenate([cosines[genuine], cosines[~genuine]]))
            count = genuine.sum()
            area = (ranks[:count].sum() - count * (count + 1) / 2) / (count * (~genuine).sum())
            best = max(best, area, 1 - area)
        return float(best)

    control = compute_auc("open", "also-open")
    outcome.require_control(control > 0.99, f"people of two open collections are linked, AUC {control:.3f}")
    outcome.bars.append(Bar("AUC of linking two sealed collections", compute_auc("staff", "visitors"), 0.55))


def _try_keys(stolen: Path, values: list[StolenValue], outcome: Outcome) -> None:
    """Try everything in the stolen files that may be a key, but the pages of tables."""
    tried = [value for value in values if value.sealed][:TRIED_VALUES] + [
        value for value in values if value.context.startswith(b"crop")
    ]
    keys = set(_list_key_candidates(stolen))
    for value in tried:
        opened = any(_open_or_none(value, key) is not None for key in keys)
        outcome.check(not opened, f"a {value.context[:4].decode()} of {value.external_id} opened")
    outcome.notes.append(f"{len(keys):,} strings of the stolen files tried as keys of {len(tried)} templates and crops")


def _open_with_custody(
    settings: Settings,
    photos: dict[str, FloatArray],
    templates: list[StolenValue],
    crops: list[StolenValue],
    outcome: Outcome,
) -> None:
    """Open everything with the custody folder that was not stolen."""
    keys, opened = open_custody(settings).person_keys, 0
    sealed = [value for value in (*templates, *crops) if value.sealed]
    for value in sealed:
        (key,) = keys.find_keys([(read_slot(value.sealed), value.person_id)])
        plain = None if key is None else _open_or_none(value, key)
        if plain is None:
            continue
        if value.context.startswith(b"crop"):
            opened += value.person_id.bytes * 40 in plain
        else:
            true = photos[value.collection][_number(value)]
            opened += _cosine(np.frombuffer(plain, "<f2").astype(np.float32), true) > 0.999
    outcome.require_control(opened == len(sealed) > 0, f"{opened} of {len(sealed)} open with the custody folder")


async def _rekey(plan: Plan, outcome: Outcome) -> None:
    """Give everybody of a gallery another key, without photos, and compare what searches decide."""
    count = plan.choose(10_000, 300)
    people = People.draw(count, plan.seed + 1)
    probes = np.concatenate([people.photograph(7)[:: max(1, count // 250)], People.draw(250, 99).vectors])
    with make_data_directory() as data:
        async with _open_services(Settings(data_dir=data)) as services:
            policy = {"threshold": people.threshold, "storage": "sealed"}
            collection = await services.collections.create_collection(OPERATOR, "staff", policy=policy)
            await _enrol(services, "staff", people.photograph(3))
            await services.indexes.update_indexes()

            least = people.threshold

            async def decide() -> list[list[tuple[UUID, float]]]:
                space = services.spaces.default
                found = await services.searcher.search(build_query(collection, space, probes, 3))
                return [
                    [(one.person_id, round(one.similarity, 6)) for one in result.candidates if one.similarity >= least]
                    for result in found
                ]

            before = await decide()
            async with services.database.transaction(read_only=True) as work:
                persons = [one.id for one in await work.persons.list_persons(collection.id, after=None, limit=count)]
            keys = {slot for slot, _ in services.custody.person_keys.list_keys()}
            for start in range(0, len(persons), 1_000):
                async with services.database.transaction(writes_to="staff") as work:
                    await work.lock_collection(collection.id)
                    await rekey_persons(work, collection.id, persons[start : start + 1_000])
            await services.key_destroyer.destroy_spent_keys()
            replaced = len(keys - {slot for slot, _ in services.custody.person_keys.list_keys()})
            outcome.require_control(len(persons) == count == replaced, f"{replaced} of {count} keys were replaced")
            for first, second in zip(before, await decide(), strict=True):
                outcome.check(first == second, "a search decided otherwise after re-keying")
            named = sum(map(bool, before))
            outcome.require_control(named > len(before) / 4, f"{named} of {len(before)} probes named before and after")


def _view(value: StolenValue, way: int) -> FloatArray:
    """Return what is stored as a vector: plain, or sealed bytes taken for 128 numbers; nonsense becomes 0.

    The ways: float16 of either byte order, the same with every number's weight alike, and the signs of bytes.
    """
    if value.plain is not None:
        return value.plain
    body = value.sealed[OVERHEAD_BYTES - TAG_BYTES : -TAG_BYTES]
    kind = ("<f2", ">f2", "<f2", ">f2", "i1")[way]
    numbers = np.frombuffer(body, kind)[: len(body) // 2].astype(np.float32)
    clean = np.nan_to_num(np.clip(numbers, -1e4, 1e4), nan=0.0)
    return clean if way < WEIGHTED_WAYS else np.sign(clean)


def _list_key_candidates(stolen: Path) -> Iterator[bytes]:
    for path in stolen.rglob("*"):
        if not path.is_file() or path.stat().st_size > MAX_KEY_FILE_BYTES or "base" in path.relative_to(stolen).parts:
            continue
        content = path.read_bytes()
        for start in range(max(0, len(content) - KEY_BYTES + 1)):
            yield content[start : start + KEY_BYTES]


def _open_or_none(value: StolenValue, key: bytes) -> bytes | None:
    try:
        return open_value(value.sealed, key=key, context=value.context)
    except SealBrokenError:
        return None


def _number(value: StolenValue) -> int:
    return int(value.external_id.removeprefix("person-"))


def _cosine(first: Any, second: Any) -> float:
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second) or 1.0))


def _normalise(vectors: NDArray[Any]) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths, lengths, 1)).astype(np.float32)
