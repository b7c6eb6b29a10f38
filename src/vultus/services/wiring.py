"""How the services are built on a database and a pool of analysers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vultus.db.database import Database
from vultus.models.pipelines import Pipelines
from vultus.services.access import Access
from vultus.services.audit import Audit
from vultus.services.collections import Collections
from vultus.services.crop_vault import CropVault
from vultus.services.enrolment.bulk import BulkRegistrar
from vultus.services.enrolment.registration import Registrar
from vultus.services.migration.backfill import Carrier, Supplier
from vultus.services.migration.comparison import Comparer
from vultus.services.migration.migration import Transitions
from vultus.services.migration.shadow import Shadow
from vultus.services.people.consents import Consents
from vultus.services.people.erasure import Eraser
from vultus.services.people.persons import Persons
from vultus.services.photo_analysis import Images
from vultus.services.recognition.identification import Recognizer
from vultus.services.recognition.verification import Verifier
from vultus.services.search.index_sync import Indexes
from vultus.services.search.search import Searcher
from vultus.settings import Settings

if TYPE_CHECKING:
    from vultus.models.workers.pool import AnalysisPool


@dataclass(frozen=True, slots=True)
class Services:
    """Everything an edge may use."""

    settings: Settings
    database: Database
    pipelines: Pipelines
    access: Access
    audit: Audit
    bulk: BulkRegistrar
    carrier: Carrier
    collections: Collections
    comparer: Comparer
    consents: Consents
    eraser: Eraser
    images: Images
    indexes: Indexes
    persons: Persons
    recognizer: Recognizer
    registrar: Registrar
    searcher: Searcher
    shadow: Shadow
    supplier: Supplier
    transitions: Transitions
    verifier: Verifier


def build(settings: Settings, database: Database, pool: AnalysisPool, pipelines: Pipelines) -> Services:
    """Wire the services."""
    images = Images(pool, max_bytes=settings.photos.max_bytes)
    vault = CropVault(settings.crop_key_file)
    indexes = Indexes(database, settings.index)
    searcher = Searcher(indexes, settings.index)
    shadow = Shadow(database, pool, pipelines, searcher)
    return Services(
        settings=settings,
        database=database,
        pipelines=pipelines,
        access=Access(database),
        audit=Audit(database),
        bulk=BulkRegistrar(database, pipelines),
        carrier=Carrier(database, pool, pipelines, vault),
        collections=Collections(database, pipelines, vault),
        comparer=Comparer(database, pipelines),
        consents=Consents(database),
        eraser=Eraser(database, idempotency_hours=settings.jobs.idempotency_hours),
        images=images,
        indexes=indexes,
        persons=Persons(database),
        recognizer=Recognizer(database, images, pipelines, searcher, shadow),
        registrar=Registrar(database, images, pipelines, searcher, vault, max_photos=settings.photos.max_photos),
        searcher=searcher,
        shadow=shadow,
        supplier=Supplier(database, images, pipelines, max_photos=settings.photos.max_photos),
        transitions=Transitions(database, pipelines),
        verifier=Verifier(database, images, pipelines),
    )
