"""F18b: services and straight SQL work at random, six at a time; is there ever a template without a live consent?

Somebody looks all the while. The control is a face that a superuser stores, whom no trigger stops.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import numpy as np
from sqlalchemy import text
from tests.packs import SECOND, describe_pipeline

from chaos.client import draw_vectors
from chaos.outcome import Outcome
from chaos.service import make_data_directory
from vultus.db.database import Database
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.db.repositories.collections import get_partition_name
from vultus.domain import Collection, NewFace, Permission, Principal, Quality, SpaceRegistry, Storage
from vultus.errors import VultusError
from vultus.main import open_database
from vultus.models.pipelines import PipelineRegistry
from vultus.services.enrolment.bulk import BulkRegistrar, VectorBatch
from vultus.services.people.consents import ConsentGrant, ConsentService, get_live_consent
from vultus.services.people.erasure import Eraser
from vultus.services.policies import build_collection_policy
from vultus.settings import DatabaseSettings, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chaos.outcome import Plan

BAR = "100,000 operations, straight SQL among them: 0 templates without a live consent, 0 persons without a consent"
WORKERS = 6
COLLECTIONS = 4
"""Writers of one wait for each other."""

DIMENSION = 128
GALLERY = 200
"""Consents beyond which persons are erased instead of enrolled."""

LOOK_INTERVAL_S = 0.2
CALLER = Principal.from_process("chaos")
QUALITY = Quality(size_px=120, sharpness=50, brightness=0.5, yaw_deg=1, pitch_deg=-2, roll_deg=3)
VECTOR = "[" + ",".join(["1"] + ["0"] * (DIMENSION - 1)) + "]"
UNCONSENTED = """
    SELECT count(*) FROM faces LEFT JOIN consents ON consents.id = faces.consent_id
        AND consents.person_id = faces.person_id AND consents.collection_id = faces.collection_id
    WHERE consents.id IS NULL OR withdrawn_at IS NOT NULL OR NOT consent_live
        OR consents.expires_at <> consent_expires_at OR consent_expires_at <= faces.created_at
    UNION ALL
    SELECT count(*) FROM persons WHERE NOT EXISTS (SELECT FROM consents WHERE person_id = persons.id AND live)
"""
"""Templates without a live consent, or that came when theirs had expired; persons without a consent."""

CONSENTS = (
    "SELECT id, person_id, collection_id::text AS collection, live AND expires_at > now() AS consents FROM consents"
)
PERSON = "INSERT INTO persons (id, collection_id) VALUES ($2, $1)"
CONSENT = (
    "INSERT INTO consents (id, collection_id, person_id, purpose, recorded_by, granted_at, expires_at, withdrawn_at)"
    " VALUES ($3, $1, $2, 'p', 'r', now(), {expires}, {withdrawn})"
)
FACE = (
    "INSERT INTO {table} (collection_id, id, person_id, consent_id, consent_live, consent_expires_at, contract_id,"
    " embedding, size_px, sharpness, brightness, yaw_deg, pitch_deg, roll_deg, score, source_sha256)"
    f" VALUES ($1, gen_random_uuid(), $2, {{consent}}, {{live}}, {{expires}}, '{SECOND}', '{VECTOR}',"
    " 1, 1, 1, 1, 1, 1, 1, convert_to(gen_random_uuid()::text, 'UTF8'))"
)
PAST, ALWAYS = "now() - interval '1 hour'", "'infinity'"


def _face(consent: str = "$3", expires: str = ALWAYS, live: str = "true", table: str = "faces") -> str:
    return FACE.format(consent=consent, expires=expires, live=live, table=table)


def _consent(expires: str = ALWAYS, withdrawn: str = "NULL") -> str:
    return CONSENT.format(expires=expires, withdrawn=withdrawn)


OTHERS = "(SELECT id FROM consents WHERE person_id <> $2 AND collection_id = $1 LIMIT 1)"
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "expired": (PERSON, _consent(PAST), _face(expires=PAST)),
    "expired, in the partition": (PERSON, _consent(PAST), _face(expires=PAST, table="{partition}")),
    "expired, end forged": (PERSON, _consent(PAST), _face()),
    "withdrawn": (PERSON, _consent(withdrawn="now()"), _face()),
    "withdrawn, not live": (PERSON, _consent(withdrawn="now()"), _face(live="false")),
    "another's": (PERSON, _consent(), _face(consent=f"coalesce({OTHERS}, gen_random_uuid())")),
    "none": (PERSON, _consent(), _face(consent="gen_random_uuid()")),
    "withdrawn under a face": (PERSON, _consent(), _face(), "UPDATE consents SET withdrawn_at = now() WHERE id = $3"),
    "moved to an expired one": (
        PERSON,
        _consent(),
        _face(),
        _consent(PAST).replace("$3", "'{other}'"),
        f"UPDATE faces SET consent_id = '{{other}}', consent_expires_at = {PAST} WHERE person_id = $2",
    ),
    "expired, revived": (PERSON, _consent(PAST), f"UPDATE consents SET expires_at = {ALWAYS} WHERE id = $3"),
    "withdrawn, revived": (
        PERSON,
        _consent(withdrawn="now()"),
        "UPDATE consents SET withdrawn_at = NULL WHERE id = $3",
    ),
    "end of the face alone": (
        PERSON,
        _consent("now() + interval '1 hour'"),
        _face(expires="now() + interval '1 hour'"),
        f"UPDATE faces SET consent_expires_at = {ALWAYS} WHERE person_id = $2",
    ),
    "triggers off": ("ALTER TABLE faces DISABLE TRIGGER ALL",),
    "triggers off, in the partition": ("ALTER TABLE {partition} DISABLE TRIGGER ALL",),
    "triggers off, for the session": ("SET session_replication_role = replica",),
    "constraint dropped": ("ALTER TABLE faces DROP CONSTRAINT ck_faces_consent_live",),
}
"""Statements of which the last must be refused: $1 a collection, $2 a person, $3 a consent."""


@dataclass
class Gallery:
    """What the operations work on, the consents of a moment ago, and how often each was done, and refused."""

    database: Database
    collections: list[Collection]
    random: Random
    vectors: Any
    spaces: SpaceRegistry
    consents: list[Any] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def draw_end(self) -> datetime | None:
        """Return when a consent ends: soon, late or never."""
        kind = self.random.random()
        if kind < 0.3:
            return None
        return datetime.now(UTC) + timedelta(seconds=self.random.uniform(0.02, 1.5) if kind < 0.8 else 86_400)

    def draw_consent(self) -> Any:
        """Return id, person and end of a consent of a moment ago, live or not; None if there was none."""
        return self.random.choice(self.consents) if self.consents else None


async def measure(plan: Plan) -> Outcome:
    """Run random operations, and count templates without a live consent all the while."""
    outcome, count, random = Outcome(), plan.choose(100_000, 400), plan.make_random()
    async with _open_gallery(plan) as (gallery, address, superuser_url):
        await _check_control(gallery, superuser_url, outcome)
        left, over = iter(range(count)), asyncio.Event()
        watcher = asyncio.create_task(_watch(gallery, over, outcome))
        try:
            await asyncio.gather(*(_work(gallery, address, random, left, outcome) for _ in range(WORKERS)))
        finally:
            over.set()
            checks = await watcher
    outcome.tries += count
    undone = [name for name in FORBIDDEN if not gallery.refused[name]]
    kinds = ", ".join(f"{name} {times:,}" for name, times in sorted(gallery.done.items()))
    outcome.require_control(not undone, f"{count:,} operations, of each kind some: {kinds}")
    refused = sum(gallery.refused[name] for name in FORBIDDEN)
    outcome.notes.append(f"looked {checks:,} times; SQL refused {refused:,} times")
    return outcome


@asynccontextmanager
async def _open_gallery(plan: Plan) -> AsyncIterator[tuple[Gallery, str, str]]:
    async with AsyncExitStack() as stack:
        settings = Settings(
            data_dir=stack.enter_context(make_data_directory()), database=DatabaseSettings(pool_size=4 * WORKERS)
        )
        database = await stack.enter_async_context(open_database(settings, migrates=True))
        server = stack.enter_context(EmbeddedPostgres(settings.data_dir))
        spaces = PipelineRegistry(describe_pipeline(SECOND)).spaces
        policy = replace(build_collection_policy(spaces.default), storage=Storage.OPEN)  # which needs no keys
        async with database.transaction() as work:
            collections = [
                await work.collections.add_collection(f"home {at}", SECOND, policy) for at in range(COLLECTIONS)
            ]
        vectors = draw_vectors(500, DIMENSION, plan.seed)
        gallery = Gallery(database, collections, plan.make_random(), vectors, spaces)
        serving = (await asyncio.to_thread(server.start)).serving
        yield gallery, serving.replace("+asyncpg", ""), server.superuser_url.replace("+asyncpg", "")


async def _check_control(gallery: Gallery, superuser_url: str, outcome: Outcome) -> None:
    """Let the superuser, whom no trigger stops, store a face under an expired consent, and see that it is found."""
    connection = await asyncpg.connect(superuser_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SET LOCAL session_replication_role = replica")
    person, consent = uuid4(), uuid4()
    for statement in FORBIDDEN["expired"]:
        await _execute(connection, statement, (gallery.collections[0].id, person, consent))
    found = await connection.fetch(UNCONSENTED)
    await transaction.rollback()
    await connection.close()
    outcome.require_control(found[0][0] == 1, "a face that a superuser stored under an expired consent")


async def _watch(gallery: Gallery, over: asyncio.Event, outcome: Outcome) -> int:
    """Count what must not be until the end, and once after it; return how often."""
    checks, is_last = 0, False
    while not is_last:
        is_last = over.is_set()
        async with gallery.database.transaction(read_only=True) as work:
            found = (await work._session.execute(text(UNCONSENTED))).scalars().all()
            probe = gallery.random.choice(gallery.vectors)[None]
            (result,) = await work.templates.search_exact(
                gallery.random.choice(gallery.collections).id, SECOND, probe, 50
            )
            rows = (await work._session.execute(text(CONSENTS))).all()
        gallery.consents = list(rows)
        consenting = {row.person_id for row in rows if row.consents}
        strangers = [one.person_id for one in result.candidates if one.person_id not in consenting]
        if any(found) or strangers:
            outcome.failures.append(
                f"templates, persons without a live consent: {found}; found all the same: {strangers}"
            )
        checks += 1
        await asyncio.sleep(LOOK_INTERVAL_S)
    return checks


async def _work(gallery: Gallery, url: str, random: Random, left: Any, outcome: Outcome) -> None:
    connection = await asyncpg.connect(url)
    names, weights = zip(*OPERATIONS.items(), strict=True)
    for _ in left:
        (operation,) = random.choices(names, weights)
        try:
            if operation is _try_sql:
                await _try_sql(gallery, connection, random, outcome)
            else:
                await operation(gallery)
        except VultusError:
            gallery.refused[operation.__name__] += 1
        gallery.done[operation.__name__.removeprefix("_")] += 1
    await connection.close()


async def _try_sql(gallery: Gallery, connection: Any, random: Random, outcome: Outcome) -> None:
    """Run what must be refused, as the role that serves."""
    name = random.choice(list(FORBIDDEN))
    values, other = (random.choice(gallery.collections).id, uuid4(), uuid4()), uuid4()
    transaction = connection.transaction()
    await transaction.start()
    *allowed, refused = (
        statement.format(partition=get_partition_name(values[0]), other=other) if "{" in statement else statement
        for statement in FORBIDDEN[name]
    )
    try:
        for statement in allowed:
            await _execute(connection, statement, values)
        try:
            await _execute(connection, refused, values)
            outcome.failures.append(f"not refused: {name}")
        except asyncpg.PostgresError:
            gallery.refused[name] += 1
    finally:
        await transaction.rollback()


async def _execute(connection: Any, statement: str, values: tuple[UUID, UUID, UUID]) -> None:
    """Run a statement with those of collection, person and consent that it names."""
    for number, value in enumerate(values, start=1):
        statement = statement.replace(f"${number}", f"'{value}'")
    await connection.execute(statement)


async def _enrol(gallery: Gallery) -> None:
    if len(gallery.consents) > GALLERY:
        await _erase(gallery)
        return
    grant = ConsentGrant("p", "r", expires_at=gallery.draw_end())
    batch = VectorBatch(
        gallery.random.choice(gallery.collections).name,
        SECOND,
        [str(uuid4())],
        names=[None],
        vectors=gallery.random.choice(gallery.vectors)[None],
        consent=grant,
    )
    await BulkRegistrar(gallery.database, gallery.spaces).register(CALLER, batch)


async def _add_face(gallery: Gallery) -> None:
    if (row := gallery.draw_consent()) is None:
        return
    async with gallery.database.transaction(writes_to=row.collection) as work:
        collection = await work.open(row.collection, CALLER, Permission.ENROL)
        person = await work.persons.get_person(collection.id, row.person_id)
        consent = await get_live_consent(work, collection, person, row.id)
        face = NewFace(
            collection_id=collection.id,
            person_id=person.id,
            consent_id=consent.id,
            consent_expires_at=consent.expires_at,
            space_id=SECOND,
            vector=gallery.random.choice(gallery.vectors),
            quality=QUALITY,
            score=0.75,
            source_sha256=np.random.default_rng().bytes(32).hex(),
        )
        await work.templates.add_templates([face])


async def _record_consent(gallery: Gallery) -> None:
    if row := gallery.draw_consent():
        grant = ConsentGrant("p", "r", expires_at=gallery.draw_end())
        await ConsentService(gallery.database).record_consent(CALLER, row.collection, row.person_id, grant)


async def _change_consent(gallery: Gallery) -> None:
    if row := gallery.draw_consent():
        end = gallery.draw_end()
        await ConsentService(gallery.database).update_consent(
            CALLER, row.collection, row.person_id, row.id, expires_at=end
        )


async def _withdraw_consent(gallery: Gallery) -> None:
    if row := gallery.draw_consent():
        await ConsentService(gallery.database).withdraw_consent(CALLER, row.collection, row.person_id, row.id)


async def _end_early(gallery: Gallery) -> None:
    """End a consent now, as if the clock had gone on."""
    if row := gallery.draw_consent():
        end = text("UPDATE consents SET expires_at = clock_timestamp() WHERE id = :id AND expires_at > now()")
        async with gallery.database.transaction() as work:
            await work._session.execute(end, {"id": row.id})


async def _erase(gallery: Gallery) -> None:
    if row := gallery.draw_consent():
        await Eraser(gallery.database, Settings().jobs).erase(CALLER, row.collection, row.person_id)


async def _sweep(gallery: Gallery) -> None:
    await Eraser(gallery.database, Settings().jobs).end_expired()


OPERATIONS: dict[Any, int] = {
    _enrol: 25,
    _add_face: 16,
    _try_sql: 20,
    _record_consent: 8,
    _change_consent: 10,
    _withdraw_consent: 8,
    _end_early: 5,
    _erase: 4,
    _sweep: 4,
}
"""With how often each is drawn."""
