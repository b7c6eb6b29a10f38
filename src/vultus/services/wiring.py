"""Construction of the services from a database and an analysis pool."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from vultus.db.database import Database
from vultus.domain import SpaceRegistry
from vultus.sealing.custody import Custody, open_custody
from vultus.services.access import AccessService
from vultus.services.audit import AuditService
from vultus.services.audit_chain import AuditChain
from vultus.services.collections import CollectionService
from vultus.services.crop_vault import CropVault
from vultus.services.enrolment.bulk import BulkRegistrar
from vultus.services.enrolment.registration import Registrar
from vultus.services.events.dispatcher import WebhookDispatcher
from vultus.services.events.follower import OutboxFollower
from vultus.services.events.listing import EventService
from vultus.services.events.sending import WebhookSender
from vultus.services.events.sighting_log import OutboxSightingLog
from vultus.services.events.webhooks import WebhookService
from vultus.services.inventory import Inventory
from vultus.services.jobs import JobSupervisor
from vultus.services.limits import UsageLimiter
from vultus.services.live.service import StreamResources, StreamService
from vultus.services.live.tickets import TicketService
from vultus.services.load import LoadService
from vultus.services.migration.backfill import BackfillWorker, PhotoResubmission
from vultus.services.migration.comparison import SpaceComparer
from vultus.services.migration.migration import MigrationService
from vultus.services.migration.shadow import ShadowComparer
from vultus.services.people.consents import ConsentService
from vultus.services.people.erasure import Eraser
from vultus.services.people.erasures import ErasureService
from vultus.services.people.export import PersonExporter
from vultus.services.people.key_destruction import KeyDestroyer
from vultus.services.people.last_seen import LastSeenLog
from vultus.services.people.ledger import ErasureLedger
from vultus.services.people.persons import PersonService
from vultus.services.people.receipts import ReceiptService
from vultus.services.people.scrub import Scrubber
from vultus.services.people.sealing import CollectionSealer
from vultus.services.photo_analysis import PhotoAnalyzer
from vultus.services.recognition.decision_log import DecisionLog
from vultus.services.recognition.identification import Recognizer
from vultus.services.recognition.verification import Verifier
from vultus.services.search.index_sync import IndexRegistry
from vultus.services.search.local_engine import LocalCandidateEngine
from vultus.services.search.search import Searcher
from vultus.services.secret_vault import SecretVault
from vultus.services.sources.management import SourceService
from vultus.services.sources.supervision import SourceSupervisor
from vultus.settings import Settings

if TYPE_CHECKING:
    from vultus.models.workers.pool import AnalysisPool


@dataclass(frozen=True, slots=True)
class Records:
    """Services of what is kept, listed and ended, which need no networks."""

    settings: Settings
    database: Database
    access: AccessService
    audit: AuditService
    audit_chain: AuditChain
    consents: ConsentService
    custody: Custody
    eraser: Eraser
    erasures: ErasureService
    key_destroyer: KeyDestroyer
    last_seen: LastSeenLog
    ledger: ErasureLedger
    limiter: UsageLimiter
    persons: PersonService
    person_exporter: PersonExporter
    receipts: ReceiptService
    scrubber: Scrubber
    tickets: TicketService


@dataclass(frozen=True, slots=True)
class Services(Records):
    """All services, as the API and the command line use them."""

    spaces: SpaceRegistry
    bulk_registrar: BulkRegistrar
    candidate_engine: LocalCandidateEngine
    backfill_worker: BackfillWorker
    collections: CollectionService
    collection_sealer: CollectionSealer
    space_comparer: SpaceComparer
    event_follower: OutboxFollower
    events: EventService
    photo_analyzer: PhotoAnalyzer
    indexes: IndexRegistry
    inventory: Inventory
    jobs: JobSupervisor
    recognizer: Recognizer
    registrar: Registrar
    searcher: Searcher
    secret_vault: SecretVault
    shadow_comparer: ShadowComparer
    sightings: OutboxSightingLog
    sources: SourceService
    source_supervisor: SourceSupervisor
    streams: StreamService
    photo_resubmission: PhotoResubmission
    migrations: MigrationService
    verifier: Verifier
    webhooks: WebhookService
    webhook_dispatcher: WebhookDispatcher
    load: LoadService = field(default_factory=LoadService)


def build_records(settings: Settings, database: Database) -> Records:
    """Build the services that need no networks."""
    custody = open_custody(settings)
    database.use_keys(custody)
    return Records(
        settings=settings,
        database=database,
        access=AccessService(database),
        audit=AuditService(database),
        audit_chain=AuditChain(database, settings.audit_notes_file),
        consents=ConsentService(database),
        custody=custody,
        eraser=Eraser(database, settings.jobs),
        erasures=ErasureService(database),
        key_destroyer=KeyDestroyer.attach(database, custody.person_keys),
        last_seen=LastSeenLog(database),
        ledger=ErasureLedger.attach(database, settings.ledger_file),
        limiter=UsageLimiter(database, settings.limits),
        persons=PersonService(database),
        person_exporter=PersonExporter(database),
        receipts=ReceiptService(database, custody.keys, settings.ledger_file),
        scrubber=Scrubber(database, settings),
        tickets=TicketService(database, settings.live),
    )


def build_services(
    settings: Settings, database: Database, pool: AnalysisPool, spaces: SpaceRegistry, jobs: JobSupervisor | None = None
) -> Services:
    """Build the services and their dependencies."""
    analyzer = PhotoAnalyzer(pool, max_bytes=settings.photos.max_bytes)
    records = build_records(settings, database)
    vault = CropVault(records.custody)
    engine = LocalCandidateEngine(indexes := IndexRegistry(database, settings.index))
    searcher = Searcher(database, engine, indexes.recall_monitor, settings.index)
    shadow_comparer = ShadowComparer(database, pool, spaces, searcher)
    limiter, decisions = records.limiter, DecisionLog(database, records.last_seen)
    sightings = OutboxSightingLog(database, follower := OutboxFollower(database))
    secret_vault, sender = SecretVault(records.custody.keys), WebhookSender(settings.webhooks)
    streams = StreamService(StreamResources(database, analyzer, spaces, searcher, limiter, sightings, decisions))
    sources = SourceService(database, secret_vault, settings.sources)
    return Services(
        **{one.name: getattr(records, one.name) for one in fields(Records)},
        spaces=spaces,
        bulk_registrar=BulkRegistrar(database, spaces),
        candidate_engine=engine,
        backfill_worker=BackfillWorker(database, pool, spaces, vault),
        collections=CollectionService(database, spaces, has_liveness=bool(settings.inference.liveness)),
        collection_sealer=CollectionSealer(database),
        space_comparer=SpaceComparer(database, spaces),
        event_follower=follower,
        events=EventService(database, follower, settings.events),
        photo_analyzer=analyzer,
        indexes=indexes,
        inventory=Inventory(database, spaces),
        jobs=jobs or JobSupervisor(),
        recognizer=Recognizer(database, analyzer, spaces, searcher, shadow_comparer, limiter, decisions),
        registrar=Registrar(database, analyzer, spaces, searcher, vault, limiter, settings.photos),
        searcher=searcher,
        secret_vault=secret_vault,
        shadow_comparer=shadow_comparer,
        sightings=sightings,
        sources=sources,
        source_supervisor=SourceSupervisor(database, sources, streams, settings.sources, sightings),
        streams=streams,
        photo_resubmission=PhotoResubmission(database, analyzer, max_photos=settings.photos.max_photos),
        migrations=MigrationService(database, spaces),
        verifier=Verifier(database, analyzer, spaces, limiter, decisions),
        webhooks=WebhookService(database, follower, sender, secret_vault),
        webhook_dispatcher=WebhookDispatcher(database, follower, sender, secret_vault, settings.webhooks),
    )
