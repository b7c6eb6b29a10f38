"""A database as version 339ad15 left it, in the middle of a migration, is upgraded and used by today's services."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import numpy as np
import pytest
from sqlalchemy import text
from tests.callers import CALLER
from tests.galleries import people
from tests.packs import FIRST, PACKS, SECOND, describe_pipeline

from vultus.db import migrate
from vultus.db.database import Database
from vultus.domain import Crop, FloatArray, Role, SearchMode, Verdict
from vultus.errors import KeyRingError
from vultus.index.coding import CODE_BITS, Quantizer
from vultus.models.pipelines import PipelineRegistry
from vultus.models.workers.pool import AnalysisPool
from vultus.models.workers.worker import ThreadWorkerGroup
from vultus.services.crop_vault import CropVault
from vultus.services.jobs import PartialFailureError
from vultus.services.migration.backfill import record_outcome
from vultus.services.old_seals import OLD_KEY_FILE, OldSeals
from vultus.services.wiring import Services, build_services
from vultus.settings import DatabaseSettings, IndexSettings, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from vultus.domain import Decision

REVISION = "0006"
"""The schema of version 339ad15."""

PERSONS = 600
COLLECTION = UUID(int=1)
ADA, BOB = 0, 1
"""Rows of two persons who are not migrated yet: one has a crop, the backfill of the other has failed."""

GRANTED = datetime(2026, 1, 2, tzinfo=UTC)
RULE = {
    "min_score": 0.9,
    "min_size_px": 40,
    "min_sharpness": 10,
    "max_yaw_deg": 30,
    "max_pitch_deg": 25,
    "min_brightness": 0.0,
    "max_brightness": 1.0,
    "min_network_score": 0.0,
}
POLICY = {
    "enrol": RULE,
    "recognize": RULE,
    "threshold": None,
    "target_fmr": 0.0001,
    "target_fpir": None,
    "margin": 0.001,
    "keep_crops": True,
    "fusion": "best",
    "liveness": "off",
}
CALIBRATIONS = {
    FIRST: {
        "points": [[0.01, 0.92], [0.0001, 0.95]],
        "margin": 0.01,
        "source": "measured on this collection",
        "logistic": [177.9, -162.27],
    }
}
ANSWERS = {
    FIRST: {"verdict": "match", "person_id": str(UUID(int=1000)), "similarity": 0.9712, "threshold": 0.95},
    SECOND: {"verdict": "no_match", "person_id": None, "similarity": 0.2, "threshold": 0.4142},
}

# What that version made of the inputs below; neither its codes nor its crops are made again by an upgrade.
CODE = bytes.fromhex(
    "cf5cdfe2d20a0ea3415b7c936f7e53eb04feafb6b028b7c36e63699c1ec994c8d607f1146022023363f16c8e8b5d200c6685ca7898074566"
    "6cb8a0b1d4a0dd253bc343756d3859cd8108fe197c33033487de7b6224a9bdf217b4def9ab4fd3fa7c1bc1747c05a78eba111e7e25a45892"
    "3678feb1456a3b3a8a1dccb5f0e53862899c"
)
CROP_KEY, CROP_KEY_ID = bytes(range(32)), "4364fa3d9a0f2951"
SEALED_CROP = bytes.fromhex(
    "000102030405060708090a0b47025624c5e5c25b8d41d7cbb1e9f82de2f6f4599117335c480f8af1726dca7d9cbed1c9be7abd2627728045ad"
)
WEBHOOK = UUID(int=8)
SEALED_SECRET = bytes.fromhex(
    "add3cc08cfa2ed89cac368f7adbd78e5eaa5a951cde81710bed527a6cd121e8bdb80f93f4fda77b7c84b54accb5aecd632"
)
KEY = "vultus_" + "o" * 43

INDEX = IndexSettings.model_construct(**IndexSettings().model_dump() | {"exact_limit": 500, "watch_share": 0.0})


@dataclass
class Upgraded:
    """The database at today's schema, today's services, and the vectors that the old version stored."""

    database: Database
    services: Services
    first: FloatArray
    second: FloatArray

    async def search(self, vector: FloatArray, space_id: str) -> tuple[Decision, str | None]:
        """Return the decision about a vector, and the external id of the nearest person."""
        found = await self.services.recognizer.search(CALLER, vector, space_id=space_id, reference="staff", limit=3)
        return found.decision, found.candidates[0].external_id if found.candidates else None

    async def backfill(self, row: int) -> bool:
        """Store the template that the second network made of a person's face."""
        return await record_outcome(self.database, COLLECTION, face_id(row), SECOND, self.second[row])


def person_id(row: int) -> UUID:
    return UUID(int=1000 + row)


def consent_id(row: int) -> UUID:
    return UUID(int=2000 + row)


def face_id(row: int) -> UUID:
    return UUID(int=0x31 if row == ADA else 3000 + row)  # the crop was sealed for Ada's


async def write_as_before(connection: asyncpg.Connection, first: FloatArray, second: FloatArray) -> None:
    """Write what version 339ad15 had written, with the statements of that version."""
    partition = f"faces_{COLLECTION.hex}"
    await connection.execute(
        f"CREATE TABLE {partition} (LIKE faces INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)"
    )
    for column in ("embedding", "source_sha256", "code"):
        await connection.execute(f"ALTER TABLE {partition} ALTER {column} SET STATISTICS 0")
    await connection.execute(f"ALTER TABLE faces ATTACH PARTITION {partition} FOR VALUES IN ('{COLLECTION}')")
    await connection.execute(
        "INSERT INTO collections (id, name, contract_id, policy, second_contract_id, calibrations)"
        " VALUES ($1, 'staff', $2, $3, $4, $5)",
        *(COLLECTION, FIRST, json.dumps(POLICY), SECOND, json.dumps(CALIBRATIONS)),
    )
    rows = range(PERSONS)
    await connection.executemany(
        "INSERT INTO persons (id, collection_id, external_id, name, metadata) VALUES ($1, $2, $3, $4, $5)",
        [(person_id(row), COLLECTION, f"E-{row}", f"Person {row}", '{"floor": 2}') for row in rows],
    )
    await connection.executemany(
        "INSERT INTO consents (id, collection_id, person_id, purpose, recorded_by, granted_at)"
        " VALUES ($1, $2, $3, 'entry', 'reception', $4)",
        [(consent_id(row), COLLECTION, person_id(row), GRANTED) for row in rows],
    )
    centre = first.mean(axis=0)
    codes = Quantizer(centre).encode_vectors(first)
    await connection.execute(
        "INSERT INTO codings (collection_id, contract_id, centre, bits) VALUES ($1, $2, $3::text::halfvec, $4)",
        *(COLLECTION, FIRST, str(centre.tolist()), CODE_BITS),
    )
    templates = [(row, FIRST, first[row], codes[row].tobytes()) for row in rows]
    templates += [(row, SECOND, second[row], None) for row in rows if row not in {ADA, BOB}]
    await connection.executemany(
        "INSERT INTO faces (collection_id, id, person_id, consent_id, consent_expires_at, contract_id, embedding,"
        " size_px, sharpness, brightness, yaw_deg, pitch_deg, roll_deg, score, source_sha256, code)"
        " VALUES ($1, $2, $3, $4, 'infinity', $5, $6::text::halfvec, 120, 50, 0.5, 1, -2, 3, 0.75, $7, $8)",
        [
            (
                *(COLLECTION, face_id(row), person_id(row), consent_id(row), space_id, str(vector.tolist())),
                hashlib.sha256(str(row).encode()).digest(),
                code,
            )
            for row, space_id, vector, code in templates
        ],
    )
    await connection.execute(
        "INSERT INTO transitions (collection_id, contract_id, shadow_share, begun_at, shadow_compared, shadow_agreed)"
        " VALUES ($1, $2, 0.5, $3, 2, 1)",
        *(COLLECTION, SECOND, GRANTED),
    )
    await connection.execute(
        "INSERT INTO carry_failures (collection_id, face_id, contract_id, reason) VALUES ($1, $2, $3, 'no_crop')",
        *(COLLECTION, face_id(BOB), SECOND),
    )
    await connection.execute(
        "INSERT INTO shadow_disagreements (id, collection_id, kind, active_person_id, answers)"
        " VALUES ($1, $2, 'match_no_match', $3, $4)",
        *(UUID(int=5), COLLECTION, person_id(ADA), json.dumps(ANSWERS)),
    )
    await connection.execute(
        "INSERT INTO crops (collection_id, face_id, person_id, consent_id, consent_expires_at, key_id, sealed)"
        " VALUES ($1, $2, $3, $4, 'infinity', $5, $6)",
        *(COLLECTION, face_id(ADA), person_id(ADA), consent_id(ADA), CROP_KEY_ID, SEALED_CROP),
    )
    await connection.execute(
        "INSERT INTO api_keys (id, name, role, secret_sha256) VALUES ($1, 'door', 'recognize', $2)",
        *(UUID(int=6), hashlib.sha256(KEY.encode()).digest()),
    )
    await connection.execute(
        "INSERT INTO audit (id, actor, action, collection_id, detail) VALUES ($1, 'cli', 'transition.begun', $2, $3)",
        *(UUID(int=7), COLLECTION, json.dumps({"contract_id": SECOND})),
    )
    await connection.execute(f"ANALYZE {partition}")


@pytest.fixture
async def upgraded(bare_database_url: str, tmp_path: Path) -> AsyncIterator[Upgraded]:
    first, second = (people(PERSONS, 1, seed=seed)[:, 0] for seed in (1, 2))
    await migrate.upgrade_schema(bare_database_url, REVISION)
    connection = await asyncpg.connect(bare_database_url.replace("+asyncpg", ""))
    await write_as_before(connection, first, second)
    await connection.close()

    await migrate.upgrade_schema(bare_database_url)

    (tmp_path / "crops.key").write_bytes(CROP_KEY)
    database = await Database.connect(bare_database_url, DatabaseSettings(pool_size=3))
    settings = Settings(data_dir=tmp_path).model_copy(update={"index": INDEX})
    pipelines = PipelineRegistry(*map(describe_pipeline, PACKS))
    async with AnalysisPool(settings.inference, ThreadWorkerGroup(pipelines, 1)) as pool:
        services = build_services(settings, database, pool, pipelines.spaces)
        yield Upgraded(database, services, first, second)
        services.candidate_engine.close()
    await database.close()


async def test_everything_is_read_as_it_was_written(upgraded: Upgraded) -> None:
    services = upgraded.services
    collection, persons, faces = await services.collections.get_collection_with_counts(CALLER, "staff")
    person = await services.persons.get_person(CALLER, "staff", person_id(ADA))
    (consent,) = await services.consents.list_consents(CALLER, "staff", person_id(ADA), after=None, limit=9)
    (face,) = await services.persons.list_faces(CALLER, "staff", person_id(2), after=None, limit=9)
    (entry,) = await services.audit.list_entries(CALLER, after=None, limit=9)
    key = await services.access.authenticate(KEY)

    assert (collection.id, persons, faces) == (COLLECTION, PERSONS, PERSONS)
    assert (collection.space_id, collection.second_space_id, collection.search) == (FIRST, SECOND, SearchMode.AUTO)
    assert (collection.policy.margin, collection.policy.keep_crops, collection.policy.enrol.min_size_px) == (
        *(0.001, True),
        40,
    )
    assert collection.calibrations[FIRST].points == ((0.01, 0.92), (0.0001, 0.95))
    assert (person.external_id, person.name, person.metadata) == ("E-0", "Person 0", {"floor": 2})
    assert (consent.granted_at, consent.expires_at, consent.withdrawn_at) == (GRANTED, None, None)
    assert (face.contracts, face.quality.size_px, face.source_sha256) == (
        (FIRST, SECOND),
        120,
        hashlib.sha256(b"2").hexdigest(),
    )
    assert (entry.action, entry.detail) == ("transition.begun", {"contract_id": SECOND})
    assert (key.name, key.role) == ("door", Role.RECOGNIZE)


async def test_persons_are_found_in_sql_and_by_the_index_that_its_codes_give(
    upgraded: Upgraded, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = [await upgraded.search(upgraded.first[row], FIRST) for row in range(20)]
    monkeypatch.setattr(Quantizer, "encode_vectors", None)  # its codes are loaded, not made again
    with pytest.raises(PartialFailureError):  # the other space, without codes, has to wait
        await upgraded.services.indexes.update_indexes()
    monkeypatch.undo()

    assert upgraded.services.indexes.get_sizes()[COLLECTION, FIRST] == PERSONS
    monkeypatch.setattr(upgraded.services.searcher, "search_exact", None)
    by_index = [await upgraded.search(upgraded.first[row], FIRST) for row in range(20)]

    assert [external_id for _, external_id in by_index] == [f"E-{row}" for row in range(20)]
    assert {decision.verdict for decision, _ in by_index} == {Verdict.MATCH}
    assert by_index == exact


async def test_the_migration_is_continued_to_its_end(upgraded: Upgraded) -> None:
    migrations = upgraded.services.migrations
    state = await migrations.get_state(CALLER, "staff")
    (ada, bob) = await migrations.list_unmigrated_persons(CALLER, "staff", after=None, limit=9)
    shadow = (await upgraded.services.space_comparer.compare(CALLER, "staff", 5)).shadow
    assert (state.migration.target_space_id, state.migration.begun_at, state.crops) == (SECOND, GRANTED, 1)
    assert (state.second.faces, state.second.pending, state.second.failed) == (PERSONS - 2, 1, {"no_crop": 1})
    assert [(one.id, one.reasons) for one in (ada, bob)] == [(person_id(ADA), ()), (person_id(BOB), ("no_crop",))]
    assert (shadow.share, shadow.compared, shadow.agreed) == (0.5, 2, 1)
    assert shadow.disagreements[0].answers == ANSWERS

    await migrations.start(CALLER, "staff", pack=PACKS[SECOND], shadow_share=0.0)  # once more, for what failed
    assert [await upgraded.backfill(row) for row in (ADA, BOB, BOB)] == [True, True, False]
    cutover = await migrations.cut_over(CALLER, "staff", allow_unmigrated=False)
    decision, found = await upgraded.search(upgraded.second[ADA], SECOND)
    finished = await migrations.finish(CALLER, "staff", allow_unmigrated=False)

    assert cutover.collection.policy.margin == pytest.approx(0.004)
    assert (decision.verdict, found) == (Verdict.MATCH, "E-0")
    assert (finished.removed_space_id, finished.templates, finished.faces_lost) == (FIRST, PERSONS, 0)
    await upgraded.services.indexes.update_indexes()
    assert upgraded.services.indexes.get_sizes() == {(COLLECTION, SECOND): PERSONS}


async def test_what_one_key_sealed_is_sealed_anew(
    upgraded: Upgraded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    services, file = upgraded.services, tmp_path / OLD_KEY_FILE
    async with upgraded.database.transaction() as work:
        await work._session.execute(
            text(
                "INSERT INTO webhooks (id, name, url, with_names, sealed_secret, position)"
                " VALUES (:id, 'a', 'b', false, :sealed, 0)"
            ),
            {"id": WEBHOOK, "sealed": SEALED_SECRET},
        )
    seals = OldSeals(upgraded.database, services.secret_vault, file)

    async def open_all() -> tuple[Crop, bytes]:
        async with upgraded.database.transaction(read_only=True) as work:
            stored = await work.crops.find_crop(COLLECTION, face_id(ADA))
            (sealed,) = await work.webhooks.get_sealed_secrets(WEBHOOK)
        assert stored is not None
        crop = await CropVault(services.custody).open_crop(stored, collection_id=COLLECTION, face_id=face_id(ADA))
        return crop, services.secret_vault.unseal(sealed, f"webhook:{WEBHOOK}")

    file.rename(tmp_path / "away")
    await seals.replace()
    assert f"{file} cannot be read" in caplog.text
    with pytest.raises(KeyRingError, match=r"crops\.key"):
        await open_all()
    (tmp_path / "away").rename(file)
    for _ in range(2):
        await seals.replace()
        crop, secret = await open_all()
        assert (crop.jpeg, crop.box.left, crop.box.bottom, secret) == (b"a small photo", 1, 4, b"a signing key")
    assert "seals nothing in this database any more: delete it" in caplog.text
    async with upgraded.database.transaction(read_only=True) as work:
        assert list(await work.person_keys.load_slots([person_id(ADA), person_id(BOB)])) == [person_id(ADA)]


def test_a_vector_has_the_code_it_had() -> None:
    """Otherwise the stored codes need a migration that deletes them."""
    steps = np.arange(128)
    vector = np.cos(steps * steps)
    vector = (vector / np.linalg.norm(vector)).astype(np.float32)

    code = Quantizer((0.05 * np.sin(steps)).astype(np.float32)).encode_vectors(vector[None])[0]
    before = np.frombuffer(CODE, np.uint8)

    # A number at the boundary of a quantization step may fall on either side of it.
    assert np.unpackbits(code[:-2] ^ before[:-2]).sum() <= 2
    assert abs(code[-2:].astype(int) - before[-2:].astype(int)).max() <= 1
