"""The server's background jobs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from vultus.services.backups.schedule import BackupSchedule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vultus.services.wiring import Services

KEY_USAGE_INTERVAL_S = 60.0
INVENTORY_INTERVAL_S = 60.0
LEDGER_INTERVAL_S = 5.0
LAST_SEEN_INTERVAL_S = 10.0
AUDIT_CHAIN_INTERVAL_S = 2.0
SOURCES_INTERVAL_S = 2.0
SIGHTINGS_INTERVAL_S = 1.0
DELIVERY_COUNT_INTERVAL_S = 15.0
BACKUP_INTERVAL_S = 300.0
"""Between two checks whether a backup is due, or one is too old."""


@asynccontextmanager
async def run_jobs(services: Services) -> AsyncIterator[None]:
    """Run the server's background jobs for the length of the block."""
    settings, run = services.settings, services.jobs.run
    try:
        async with (
            run("inventory", services.inventory.check, interval_s=INVENTORY_INTERVAL_S),
            run("expiry-sweep", services.eraser.sweep_expired, interval_s=settings.jobs.sweep_interval_s),
            run("scrub", services.scrubber.scrub_when_due, interval_s=300.0),
            run("last-seen", services.last_seen.write_waiting, interval_s=LAST_SEEN_INTERVAL_S),
            run("audit-chain", services.audit_chain.extend, interval_s=AUDIT_CHAIN_INTERVAL_S),
            run("erasure-ledger", services.ledger.synchronize, interval_s=LEDGER_INTERVAL_S, begins_at_once=False),
            run("key-destruction", services.key_destroyer.destroy_spent_keys, interval_s=LEDGER_INTERVAL_S),
            run("sealing", services.collection_sealer.run, interval_s=settings.jobs.carry_interval_s),
            run("backfill", services.backfill_worker.run, interval_s=settings.jobs.carry_interval_s),
            run("shadow-comparison", services.shadow_comparer.compare_next, interval_s=None),
            run("index-sync", services.indexes.update_indexes, interval_s=settings.index.interval_s),
            run("recall-monitor", services.searcher.check_next_recall, interval_s=None),
            run("event-follower", services.event_follower.follow, interval_s=None),
            run("webhooks", services.webhook_dispatcher.dispatch, interval_s=None),
            run("delivery-count", services.webhook_dispatcher.count_deliveries, interval_s=DELIVERY_COUNT_INTERVAL_S),
            run("sightings", services.sightings.write_waiting, interval_s=SIGHTINGS_INTERVAL_S),
            run("sources", services.source_supervisor.run, interval_s=SOURCES_INTERVAL_S),
            run("key-usage", services.access.record_uses, interval_s=KEY_USAGE_INTERVAL_S),
            run("backup", BackupSchedule(services.database, settings).write_due_backup, interval_s=BACKUP_INTERVAL_S),
        ):
            yield
    finally:
        await services.webhook_dispatcher.close()
