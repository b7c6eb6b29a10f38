"""The candidate indexes of this process, synchronized with the database and removed when small or degraded."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import QuantizerParameters
from vultus.errors import VultusError
from vultus.index.candidates import CandidateIndex
from vultus.index.coding import CODE_BITS, Quantizer
from vultus.services.jobs import PartialFailureError, record_progress
from vultus.services.search.recall_monitor import RecallMonitor
from vultus.utils import metrics

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import FloatArray, NumberArray, SpaceStatistics
    from vultus.services.search.engine import IndexKey
    from vultus.settings import IndexSettings

log = logging.getLogger(__name__)

CENTRE_SAMPLE = 20_000
"""Vectors whose mean becomes the centre; its error is below a hundredth of their standard deviation."""

MIN_SAMPLE = 500
SEALED_EXACT_LIMIT = 1_000
"""Size from which a sealed collection is indexed: fewer templates are all opened in about three milliseconds."""
ENCODE_BATCH_SIZE = 5_000
CAPACITY_FACTOR = 1.1
DROP_RATIO = 0.5
"""Share of the limit below which a collection is searched in SQL again."""


@dataclass(slots=True, eq=False)
class _IndexEntry:
    """An index, and the number of the last tombstone whose faces were erased from it."""

    index: CandidateIndex
    last_tombstone: int


class IndexRegistry:
    """Candidate indexes by collection and embedding space.

    Args:
        database: The authoritative templates.
        settings: Size from which a collection is indexed; sampling rate and limit of the recall monitor.
    """

    def __init__(self, database: Database, settings: IndexSettings) -> None:
        self._database = database
        self._settings = settings
        self._entries: dict[IndexKey, _IndexEntry] = {}
        self.recall_monitor = RecallMonitor(settings.watch_share, settings.watch_limit)

    def find_index(self, collection_id: UUID, space_id: str) -> CandidateIndex | None:
        """Return the index of a collection; None if it has none: then every face must be compared."""
        entry = self._entries.get((collection_id, space_id))
        return None if entry is None else entry.index

    def get_sizes(self) -> dict[IndexKey, int]:
        """Return the number of faces in each index."""
        return {key: len(entry.index) for key, entry in self._entries.items()}

    async def update_indexes(self) -> None:
        """Bring all indexes up to date, create missing ones and remove those of small or deleted collections.

        Raises:
            PartialFailureError: Some are behind; the others were updated all the same.
        """
        async with self._database.transaction(read_only=True) as work:
            sizes = {(size.collection_id, size.space_id): size for size in await work.codes.list_space_statistics()}
        for key in self._entries.keys() - sizes.keys():
            self._remove_index(key)
        behind = 0
        for key, size in sizes.items():
            if size.rows < self._get_limit(size) * (DROP_RATIO if key in self._entries else 1):
                self._remove_index(key)
                continue
            try:
                await self._update_index(key, size)
                continue
            except VultusError as error:  # of this index only; the others are updated
                log.warning("a candidate index is behind: %s", error.detail, extra={"collection": str(key[0])})
            except Exception as error:
                log.error("a candidate index is behind", extra={"collection": str(key[0])}, exc_info=error)
            behind += 1
        self.recall_monitor.retain_collections({collection_id for collection_id, _ in sizes})
        metrics.INDEX_FACES.set(sum(self.get_sizes().values()))
        metrics.INDEX_BYTES.set(sum(entry.index.size_bytes for entry in self._entries.values()))
        if behind:
            raise PartialFailureError(f"{behind} candidate indexes are behind")

    def _get_limit(self, size: SpaceStatistics) -> int:
        limit = self._settings.exact_limit
        return min(SEALED_EXACT_LIMIT, limit) if size.is_sealed else limit

    async def _update_index(self, key: IndexKey, size: SpaceStatistics) -> None:
        """Bring an index up to date; a new one is published once it is."""
        entry = self._entries.get(key)
        if entry is None:
            quantizer = await (self._make_quantizer(key) if size.is_sealed else self._get_quantizer(key))
            if quantizer is None:
                return
            entry = _IndexEntry(CandidateIndex(quantizer, int(CAPACITY_FACTOR * size.rows)), size.last_tombstone)
        if size.last_tombstone != entry.last_tombstone:  # first: nothing that fails below may keep what was erased
            await self._erase_faces(key, entry, size.last_tombstone)
        async with self._database.transaction(read_only=True) as work:
            last = await work.codes.get_last_template_number(key[0])
        if last > entry.index.last_number and size.is_sealed:
            await self._load_sealed_faces(key, entry.index, last)
        elif last > entry.index.last_number:
            await self._encode_faces(key, entry.index, last)
            await self._load_faces(key, entry.index, last)
        await asyncio.to_thread(entry.index.compact_rows)
        if key not in self._entries:
            log.info("candidate index ready", extra={"collection": str(key[0]), "faces": len(entry.index)})
        self._entries[key] = entry

    async def _get_quantizer(self, key: IndexKey) -> Quantizer | None:
        """Return a collection's quantizer, created on first use; None while it has too few faces.

        PostgreSQL's statistics count the templates of all embedding spaces together, so that at the start of a
        migration the target space has none.
        """
        async with self._database.transaction() as work:
            parameters = await work.codes.find_quantizer(*key)
            if parameters is None:
                sample = await work.templates.sample_vectors(*key, CENTRE_SAMPLE)
                if len(sample) < MIN_SAMPLE:
                    return None
                parameters = await work.codes.add_quantizer(QuantizerParameters(*key, sample.mean(axis=0), CODE_BITS))
        return Quantizer(parameters.centre, parameters.bits)

    async def _make_quantizer(self, key: IndexKey) -> Quantizer | None:
        """Return a quantizer for a sealed collection, which is kept in memory alone; None while it has too few faces.

        Its centre is the mean of what the collection holds, and would tell of it.
        """
        async with self._database.transaction(read_only=True) as work:
            sample = await work.templates.sample_vectors(*key, CENTRE_SAMPLE)
        return Quantizer(sample.mean(axis=0), CODE_BITS) if len(sample) >= MIN_SAMPLE else None

    async def _encode_faces(self, key: IndexKey, index: CandidateIndex, last: int) -> None:
        """Encode all faces up to a sequence number."""
        after = index.last_number
        while True:
            async with self._database.transaction() as work:
                numbers, vectors = await work.templates.list_uncoded_templates(*key, after, ENCODE_BATCH_SIZE)
                numbers = numbers[numbers <= last]
                if not len(numbers):
                    return
                codes = await asyncio.to_thread(index.quantizer.encode_vectors, vectors[: len(numbers)])
                await work.codes.update_codes(*key, numbers, codes)
            record_progress()
            after = int(numbers[-1])

    async def _load_faces(self, key: IndexKey, index: CandidateIndex, last: int) -> None:
        """Load the codes of all faces up to a sequence number into the index."""
        after = index.last_number
        try:
            async with (
                self._database.transaction(read_only=True) as work,
                aclosing(work.codes.load_codes(*key, after)) as blocks,
            ):
                async for coded in blocks:
                    committed = coded.numbers <= last
                    codes = coded.codes[committed]
                    await asyncio.to_thread(index.add_faces, coded.numbers[committed], codes, after)
                    record_progress()
        except BaseException:
            self._entries.pop(key, None)  # it holds some of the faces, and would load them twice
            raise
        index.last_number = last

    async def _load_sealed_faces(self, key: IndexKey, index: CandidateIndex, last: int) -> None:
        """Open and encode all faces up to a sequence number; their codes are kept in memory alone."""
        after, unreadable = index.last_number, [np.empty(0, np.int64)]
        try:
            async with (
                self._database.transaction(read_only=True) as work,
                aclosing(work.templates.stream_vectors(*key, after)) as blocks,
            ):
                async for numbers, vectors, others in blocks:
                    await self._add_encoded(index, numbers, vectors, after, last)
                    unreadable.append(others)
                    record_progress()
            async with self._database.hot_queries() as hot:  # which sees keys that were changed since the snapshot
                numbers, vectors = await hot.templates.list_vectors(*key, np.concatenate(unreadable))
            await self._add_encoded(index, numbers, vectors, after, last)
        except BaseException:
            self._entries.pop(key, None)  # as in `_load_faces`
            raise
        index.last_number = last

    async def _add_encoded(
        self, index: CandidateIndex, numbers: NumberArray, vectors: FloatArray, after: int, last: int
    ) -> None:
        committed = numbers <= last
        if committed.any():
            codes = await asyncio.to_thread(index.quantizer.encode_vectors, vectors[committed])
            await asyncio.to_thread(index.add_faces, numbers[committed], codes, after)

    async def _erase_faces(self, key: IndexKey, entry: _IndexEntry, last_tombstone: int) -> None:
        """Erase the faces of all tombstones since the last one applied, or, if some were deleted, those that are gone.

        Args:
            key: Key of the index.
            entry: The index.
            last_tombstone: Number of the last tombstone, or of an earlier one.
        """
        async with self._database.transaction(read_only=True) as work:
            tombstones, erased = await work.codes.list_erased_numbers(*key, entry.last_tombstone)
            is_complete = len(tombstones) > 0 and tombstones[0] == entry.last_tombstone + 1
            existing = None if is_complete else await work.codes.list_template_numbers(*key)
        if existing is None:
            removed = await asyncio.to_thread(entry.index.erase_faces, erased)
        else:
            removed = await asyncio.to_thread(entry.index.retain_faces, existing)
        entry.last_tombstone = int(tombstones[-1]) if len(tombstones) else last_tombstone
        log.debug("erased faces left a candidate index", extra={"collection": str(key[0]), "faces": removed})

    def _remove_index(self, key: IndexKey) -> None:
        if self._entries.pop(key, None) is not None:
            log.info("candidate index dropped", extra={"collection": str(key[0])})
        self.recall_monitor.remove_statistics((*key, None))
