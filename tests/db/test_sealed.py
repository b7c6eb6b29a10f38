"""Sealed templates: the same answers as open ones, and nothing without the keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from tests.callers import CALLER
from tests.db.test_search import brute_force

from vultus import main
from vultus.db.database import Database
from vultus.domain import Fusion, Storage
from vultus.errors import KeyRingError
from vultus.sealing.custody import Custody
from vultus.sealing.envelopes import read_slot
from vultus.sealing.key_ring import FileKeyRing
from vultus.sealing.person_keys import HEADER_BYTES, SLOT_BYTES
from vultus.services.people.erasure import Eraser, delete_face
from vultus.services.people.key_destruction import KeyDestroyer
from vultus.services.people.rekeying import rekey_persons
from vultus.settings import DatabaseSettings, JobSettings, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.domain import Collection, DecisionPolicy, FloatArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
SETTINGS = DatabaseSettings(pool_size=5)


@pytest.fixture
async def sealed(database: Database, policy: DecisionPolicy) -> Collection:
    async with database.transaction() as work:
        return await work.collections.add_collection("sealed", "contract", replace(policy, storage=Storage.SEALED))


def make_units(seed: int, count: int) -> FloatArray:
    vectors = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


async def seal_some(database: Database, collection: Collection, limit: int = 1_000) -> int:
    """Seal an open collection, and some of its templates."""
    async with database.transaction() as work:
        policy = replace(collection.policy, storage=Storage.SEALED)
        await work.collections.update_collection(collection.id, policy=policy)
        return (await work.templates.seal_open_templates(collection.id, 0, limit))[0]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    owned=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    probes=st.integers(1, 3),
    limit=st.integers(1, 10),
    fusion=st.sampled_from(Fusion),
    sealed=st.integers(0, 100),
)
async def test_open_sealed_and_half_sealed_collections_answer_alike(
    database: Database,
    policy: DecisionPolicy,
    enrol: Enrol,
    seed: int,
    owned: list[int],
    probes: int,
    limit: int,
    fusion: Fusion,
    sealed: int,
) -> None:
    """Same persons, faces and gallery size, and cosines within a millionth, by every reader."""
    vectors, given_probes = make_units(seed, sum(owned)), make_units(seed + 1, probes)
    owners: list[UUID] = []
    async with database.transaction() as work:
        open_policy = replace(policy, storage=Storage.OPEN)
        collection = await work.collections.add_collection(str(uuid4()), "contract", open_policy)
        for at, count in enumerate(owned):
            own = vectors[len(owners) : len(owners) + count]
            owners += [(await enrol(work, collection, f"p{at}", *own)).person.id] * count
    newest = await read_last_number(database, collection)

    async def read_all() -> list[Any]:
        async with database.transaction(read_only=True) as work:
            store, key = work.templates, (collection.id, "contract")
            proposed = [np.arange(newest - 5, newest - 2)] * probes
            return [
                await store.search_exact(*key, given_probes, limit, fusion),
                await store.rescore_proposals(*key, given_probes, proposed, newest - 3, limit, fusion),
                await store.find_person_similarity(collection.id, owners[0], "contract", given_probes[0], fusion),
                await store.list_person_templates(collection.id, owners[0]),
                [one async for one in store.stream_templates(*key, owners)],
            ]

    before = await read_all()
    await seal_some(database, collection, sealed)
    after = await read_all()

    for was, now in zip(before[:2], after[:2], strict=True):
        for open_result, sealed_result in zip(was, now, strict=True):
            assert sealed_result.gallery_size == open_result.gallery_size
            assert [one.person_id for one in sealed_result.candidates] == [
                one.person_id for one in open_result.candidates
            ]
            assert [one.face_id for one in sealed_result.candidates] == [one.face_id for one in open_result.candidates]
            np.testing.assert_allclose(
                [one.similarity for one in sealed_result.candidates],
                [one.similarity for one in open_result.candidates],
                atol=1e-6,
            )
    assert before[2] is not None
    assert after[2][0] == pytest.approx(before[2][0], abs=1e-6)
    assert after[2][1] == before[2][1]
    for was, now in zip(before[3:], after[3:], strict=True):
        assert [one[:-1] for one in was] == [one[:-1] for one in now]
        np.testing.assert_array_equal([one[-1] for one in was], [one[-1] for one in now])
    expected, _ = brute_force(vectors, owners, given_probes[0], limit, Fusion.BEST, 0)
    if fusion is Fusion.BEST:
        np.testing.assert_allclose([one.similarity for one in after[0][0].candidates], expected, atol=1e-5)


async def read_last_number(database: Database, collection: Collection) -> int:
    async with database.transaction(read_only=True) as work:
        return await work.codes.get_last_template_number(collection.id)


async def search(database: Database, collection: Collection, probe: FloatArray) -> list[str | None]:
    async with database.hot_queries() as hot:
        (found,) = await hot.templates.search_exact(collection.id, "contract", probe[None], 5)
    return [one.external_id for one in found.candidates]


async def read_sealed(database: Database, face_id: UUID) -> bytes:
    async with database.transaction(read_only=True) as work:
        query = text("SELECT sealed FROM faces WHERE id = :id")
        return bytes((await work._session.execute(query, {"id": face_id})).scalar_one())


async def write_sealed(database: Database, face_id: UUID, value: bytes) -> None:
    async with database.transaction() as work:
        statement = text("UPDATE faces SET sealed = :value WHERE id = :id")
        await work._session.execute(statement, {"id": face_id, "value": value})


async def test_a_stolen_database_gives_no_vector(
    database: Database, sealed: Collection, enrol: Enrol, towards: Towards
) -> None:
    vector = make_units(1, 1)[0]
    async with database.transaction() as work:
        await enrol(work, sealed, "ada", vector)
    async with database.transaction(read_only=True) as work:
        (row,) = (await work._session.execute(text("SELECT faces::text FROM faces"))).scalars()
        assert (await work._session.execute(text("SELECT count(*) FROM codings"))).scalar_one() == 0
    for order in "<>":
        assert vector.astype(f"{order}f2").tobytes().hex() not in row
        assert vector.astype(f"{order}f2")[:4].tobytes().hex() not in row

    stolen = Database(database._engine, database.owner_address, SETTINGS)
    try:
        with pytest.raises(KeyRingError, match="without the custody"):
            await search(stolen, sealed, vector)
    finally:
        stolen._health.close()
        stolen._hot_connections.close()


async def test_a_missing_file_of_keys_is_an_error_and_never_nobody(
    database: Database, sealed: Collection, enrol: Enrol, towards: Towards, custody: Custody
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, sealed, "ada", towards(0))
    custody.person_keys.path.rename(custody.person_keys.path.with_name("away"))
    database.use_keys(Custody.open(custody.person_keys.path.parent, custody.keys.ring))

    for _ in range(2):
        with pytest.raises(KeyRingError, match="are missing"):
            await search(database, sealed, towards(0))
        async with database.transaction(read_only=True) as work:
            with pytest.raises(KeyRingError, match="are missing"):
                await work.templates.find_person_similarity(sealed.id, ada.person.id, "contract", towards(0))


@pytest.mark.parametrize("lost", ["custody/keys.json", "custody/persons.keys", "ring.json"])
async def test_a_server_says_at_its_start_which_keys_are_missing(
    lost: str,
    database: Database,
    sealed: Collection,
    enrol: Enrol,
    towards: Towards,
    custody: Custody,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with database.transaction() as work:
        await enrol(work, sealed, "ada", towards(0))
    chosen = Settings(data_dir=tmp_path)
    await main._prepare_keys(database, chosen, custody, serves=True)
    assert caplog.text == ""

    (tmp_path / lost).rename(tmp_path / "away")
    new = database.use_keys(Custody.open(tmp_path / "custody", FileKeyRing(tmp_path / "ring.json")))
    await main._prepare_keys(database, chosen, new, serves=True)

    assert str(tmp_path / lost) in caplog.text


async def test_an_older_file_of_keys_is_noticed_at_the_start(
    database: Database,
    sealed: Collection,
    enrol: Enrol,
    towards: Towards,
    custody: Custody,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with database.transaction() as work:
        await enrol(work, sealed, "ada", towards(0))
    older = custody.person_keys.path.read_bytes()
    async with database.transaction() as work:
        await enrol(work, sealed, "bob", towards(1))
    custody.person_keys.path.write_bytes(older)
    await main._prepare_keys(database, Settings(data_dir=tmp_path), custody, serves=True)
    assert "keys of 2 persons, most of them the newest, 1 are not in" in caplog.text


async def test_another_installations_custody_folder_seals_nothing(
    database: Database, sealed: Collection, enrol: Enrol, towards: Towards, tmp_path: Path
) -> None:
    other = Custody.open(tmp_path / "other", FileKeyRing(tmp_path / "other" / "ring.json"))
    other.keys.create()
    own = database._seal.custody
    assert own is not None
    database.use_keys(other)
    async with database.transaction() as work:
        await work.person_keys.ensure_installation_keys()
    database.use_keys(own)  # while nothing is sealed
    async with database.transaction() as work:
        await enrol(work, sealed, "ada", towards(0))
    database.use_keys(other)

    with pytest.raises(KeyRingError, match="belongs to installation"):
        async with database.transaction() as work:
            await enrol(work, sealed, "bob", towards(1))
    assert other.person_keys.list_keys() == []


async def test_what_was_moved_to_another_face_person_or_collection_does_not_open(
    database: Database,
    sealed: Collection,
    policy: DecisionPolicy,
    enrol: Enrol,
    towards: Towards,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, sealed, "ada", towards(0), towards(1))
        bob = await enrol(work, sealed, "bob", towards(2))
        other = await work.collections.add_collection("other", "contract", replace(policy, storage=Storage.SEALED))
        eve = await enrol(work, other, "eve", towards(3))
    stolen = await read_sealed(database, ada.faces[0].id)

    for face, collection, owner in (
        (ada.faces[1], sealed, ada),
        (bob.faces[0], sealed, bob),
        (eve.faces[0], other, eve),
    ):
        await write_sealed(database, face.id, stolen)
        async with database.transaction(read_only=True) as work:
            with pytest.raises(KeyRingError):
                await work.templates.list_person_templates(collection.id, owner.person.id)
    assert await search(database, sealed, towards(0)) == ["ada"]
    assert await search(database, other, towards(0)) == []
    assert caplog.text.count("cannot be opened: its key is lost") == 3


async def test_who_is_erased_is_unreadable_in_every_copy(
    database: Database, sealed: Collection, enrol: Enrol, towards: Towards, custody: Custody
) -> None:
    """The row is put back as a backup would, with its person: the key is not."""
    async with database.transaction() as work:
        ada = await enrol(work, sealed, "ada", towards(0))
    copy = await read_sealed(database, ada.faces[0].id)
    destroyer = KeyDestroyer.attach(database, custody.person_keys)
    await Eraser(database, JobSettings()).erase(CALLER, sealed.name, ada.person.id)

    assert await search(database, sealed, towards(0)) == []
    assert custody.person_keys.list_keys() == []
    assert custody.person_keys.find_keys([(read_slot(copy), ada.person.id)]) == [None]
    assert await destroyer.destroy_spent_keys() == 0


async def test_a_deleted_face_and_a_withdrawn_consent_leave_no_key_that_opens_them(
    database: Database, sealed: Collection, enrol: Enrol, towards: Towards, custody: Custody
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, sealed, "ada", towards(0), towards(1))
    copies = [await read_sealed(database, face.id) for face in ada.faces]
    KeyDestroyer.attach(database, custody.person_keys)
    async with database.transaction() as work:
        await delete_face(work, sealed.id, ada.person.id, ada.faces[0].id, principal=CALLER)

    assert custody.person_keys.find_keys([(read_slot(one), ada.person.id) for one in copies]) == [None, None]
    assert await search(database, sealed, towards(1)) == ["ada"]
    async with database.transaction() as work:
        await delete_face(work, sealed.id, ada.person.id, ada.faces[1].id, principal=CALLER)
    assert custody.person_keys.list_keys() == []
    async with database.transaction() as work:
        assert await work.person_keys.load_slots([ada.person.id]) == {}


async def test_a_key_that_other_keys_wrap_is_not_taken_for_lost(
    database: Database, sealed: Collection, enrol: Enrol, towards: Towards, custody: Custody
) -> None:
    """With an older keys.json, say: the person's other face is there once the right one is."""
    async with database.transaction() as work:
        ada = await enrol(work, sealed, "ada", towards(0), towards(1))
    ((slot, _),) = custody.person_keys.list_keys()
    with custody.person_keys.path.open("r+b") as file:
        file.seek(HEADER_BYTES + slot * SLOT_BYTES + 16)
        file.write((7).to_bytes(4, "little"))

    with pytest.raises(KeyRingError):
        async with database.transaction() as work:
            await delete_face(work, sealed.id, ada.person.id, ada.faces[0].id, principal=CALLER)

    async with database.transaction(read_only=True) as work:
        assert await work.templates.count_templates(sealed.id, "contract") == 2


async def test_a_transaction_that_fails_leaves_no_key(
    database: Database, sealed: Collection, enrol: Enrol, towards: Towards, custody: Custody
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as work:
            await enrol(work, sealed, "ada", towards(0))
            assert len(custody.person_keys.list_keys()) == 1
            raise ZeroDivisionError
    assert custody.person_keys.list_keys() == []


async def test_another_server_sees_enrolments_and_erasures_at_once(
    database: Database, sealed: Collection, enrol: Enrol, towards: Towards, custody: Custody
) -> None:
    """Two databases, with keys read on their own from one folder."""
    other = Database(database._engine, database.owner_address, SETTINGS)
    other.use_keys(Custody.open(custody.person_keys.path.parent, custody.keys.ring))
    KeyDestroyer.attach(database, custody.person_keys)
    try:
        for name in ("ada", "bob"):
            async with database.transaction() as work:
                one = await enrol(work, sealed, name, towards(0))
            assert await search(other, sealed, towards(0)) == [name]
            await Eraser(database, JobSettings()).erase(CALLER, sealed.name, one.person.id)
            assert await search(other, sealed, towards(0)) == []
    finally:
        other._health.close()
        other._hot_connections.close()


async def test_new_keys_change_no_answer(
    database: Database, sealed: Collection, enrol: Enrol, custody: Custody
) -> None:
    vectors, probes = make_units(1, 300), make_units(2, 5)
    async with database.transaction() as work:
        people = [await enrol(work, sealed, f"p{at}", vector) for at, vector in enumerate(vectors)]

    async def search_all() -> Any:
        async with database.hot_queries() as hot:
            return await hot.templates.search_exact(sealed.id, "contract", probes, 20)

    before, old = await search_all(), custody.person_keys.list_keys()
    async with database.transaction() as work:
        await work.lock_collection(sealed.id)
        assert await rekey_persons(work, sealed.id, [one.person.id for one in people]) == 300

    assert await search_all() == before
    assert await KeyDestroyer(database, custody.person_keys).destroy_spent_keys() == 300
    assert await search_all() == before
    assert custody.person_keys.find_keys(old) == [None] * 300


async def test_a_collection_that_is_sealed_under_a_search_hides_nobody(
    database: Database, collection: Collection, enrol: Enrol, towards: Towards, custody: Custody
) -> None:
    """A server that took it for open a moment ago asks SQL, whose answer says that it is not."""
    async with database.transaction() as work:
        await enrol(work, collection, "ada", towards(0, tilt=0.1))
    assert await search(database, collection, towards(0)) == ["ada"]
    other = Database(database._engine, database.owner_address, SETTINGS)
    other.use_keys(custody)
    try:
        await seal_some(other, collection)
        async with other.transaction() as work:
            await enrol(work, collection, "bob", towards(0))
            proposed = [np.arange(1_000_000)]
        assert await search(database, collection, towards(0)) == ["bob", "ada"]
        database._seal.known.clear()
        async with database.hot_queries() as hot:
            (found,) = await hot.templates.rescore_proposals(
                collection.id, "contract", towards(0)[None], proposed, 0, 5, Fusion.BEST
            )
        assert [one.external_id for one in found.candidates] == ["bob", "ada"]
    finally:
        other._health.close()
        other._hot_connections.close()
