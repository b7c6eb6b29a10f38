"""The candidate indexes of this process: made for large collections, kept up with the database, doubted and dropped."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import Coding
from vultus.errors import VultusError
from vultus.index.candidates import CandidateIndex
from vultus.index.coding import BITS, Coder
from vultus.services.search.recall_monitor import Watch
from vultus.utils import metrics

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Size
    from vultus.settings import IndexSettings

log = logging.getLogger(__name__)

Key = tuple[UUID, str]

CENTRE_SAMPLE = 20_000
"""Vectors whose mean becomes the centre: it is then known to a hundredth of what they vary by."""

LEAST_SAMPLE = 500
CODED_AT_ONCE = 5_000
SPARE_ROOM = 1.1
DROPPED = 0.5
"""Share of the limit below which a collection is searched in SQL again."""


@dataclass(slots=True, eq=False)
class _Held:
    """An index, and the database's count of deletions when it was last compared with what is there."""

    index: CandidateIndex
    deleted: int


class Indexes:
    """Indexes by collection and contract.

    Args:
        database: The truth.
        settings: From which size on there is one, and how much is risked.
    """

    def __init__(self, database: Database, settings: IndexSettings) -> None:
        self._database = database
        self._settings = settings
        self._held: dict[Key, _Held] = {}
        self.watch = Watch(settings.watch_share, settings.watch_limit)

    def of(self, collection_id: UUID, contract_id: str) -> CandidateIndex | None:
        """Return the index to search a collection by, or None: then every face must be compared."""
        key = (collection_id, contract_id)
        held = self._held.get(key)
        return None if held is None or self.watch.doubted((*key, None)) else held.index

    def sizes(self) -> dict[Key, int]:
        """Return how many faces every index has."""
        return {key: len(held.index) for key, held in self._held.items()}

    async def forever(self, interval_s: float) -> None:
        """Keep up with the database, for ever."""
        while True:
            try:
                await self.follow()
            except VultusError as error:
                log.warning("the candidate indexes are behind: %s", error.detail)
            except Exception as error:
                log.error("the candidate indexes are behind", exc_info=error)
            await asyncio.sleep(interval_s)

    async def follow(self) -> None:
        """Bring every index up to date, make those that are missing and drop those of small or vanished collections."""
        async with self._database.work(read_only=True) as work:
            sizes = {(size.collection_id, size.contract_id): size for size in await work.codes.sizes()}
        for key in self._held.keys() - sizes.keys():
            self._drop(key)
        for key, size in sizes.items():
            if size.rows < self._settings.exact_limit * (DROPPED if key in self._held else 1):
                self._drop(key)
                continue
            try:
                await self._follow(key, size)
            except VultusError as error:  # of this one: the others go on
                log.warning("a candidate index is behind: %s", error.detail, extra={"collection": str(key[0])})
            except Exception as error:
                log.error("a candidate index is behind", extra={"collection": str(key[0])}, exc_info=error)
        self.watch.keep({collection_id for collection_id, _ in sizes})
        metrics.INDEX_FACES.set(sum(self.sizes().values()))
        metrics.INDEX_BYTES.set(sum(held.index.bytes for held in self._held.values()))

    async def _follow(self, key: Key, size: Size) -> None:
        """Bring an index up to date; a new one is searched by once it is."""
        held = self._held.get(key)
        if held is None:
            coder = await self._coder(key)
            if coder is None:
                return
            held = _Held(CandidateIndex(coder, int(SPARE_ROOM * size.rows)), size.deleted)
        last = await self._last(key)
        if last > held.index.last:
            await self._code(key, held.index, last)
            await self._take_in(key, held.index, last)
        if size.deleted != held.deleted:
            async with self._database.work(read_only=True) as work:
                there = await work.codes.numbers(*key)
            gone = await asyncio.to_thread(held.index.retain, there)
            held.deleted = size.deleted
            log.debug("erased faces left a candidate index", extra={"collection": str(key[0]), "faces": gone})
        await asyncio.to_thread(held.index.tidy)
        if key not in self._held:
            log.info("candidate index ready", extra={"collection": str(key[0]), "faces": len(held.index)})
        self._held[key] = held

    async def _last(self, key: Key) -> int:
        """Return the greatest number up to which every face there will ever be is committed.

        Who adds faces holds the collection from before their numbers are drawn until they are committed.
        """
        async with self._database.work() as work:
            await work.lock_collection(key[0])
            return await work.codes.last_number(key[0])

    async def _coder(self, key: Key) -> Coder | None:
        """Return what makes a collection's codes, deciding it the first time; None while it has too few faces.

        PostgreSQL counts the faces of all contracts together: a network that a collection moves to begins with none.
        """
        async with self._database.work() as work:
            coding = await work.codes.coding(*key)
            if coding is None:
                sample = await work.codes.sample(*key, CENTRE_SAMPLE)
                if len(sample) < LEAST_SAMPLE:
                    return None
                coding = await work.codes.add_coding(Coding(*key, sample.mean(axis=0), BITS))
        return Coder(coding.centre, coding.bits)

    async def _code(self, key: Key, index: CandidateIndex, last: int) -> None:
        """Give every face up to a number its code."""
        after = index.last
        while True:
            async with self._database.work() as work:
                numbers, vectors = await work.codes.uncoded(*key, after, CODED_AT_ONCE)
                numbers = numbers[numbers <= last]
                if not len(numbers):
                    return
                codes = await asyncio.to_thread(index.coder.encode, vectors[: len(numbers)])
                await work.codes.set_codes(*key, numbers, codes)
            after = int(numbers[-1])

    async def _take_in(self, key: Key, index: CandidateIndex, last: int) -> None:
        """Take in every face up to a number."""
        after = index.last
        try:
            async with self._database.work(read_only=True) as work, aclosing(work.codes.load(*key, after)) as blocks:
                async for coded in blocks:
                    settled = coded.numbers <= last
                    codes = coded.codes[settled]
                    await asyncio.to_thread(index.append, coded.numbers[settled], codes, after)
        except BaseException:
            self._held.pop(key, None)  # it has some of the faces by now, and would take them in again
            raise
        index.last = last

    def _drop(self, key: Key) -> None:
        if self._held.pop(key, None) is not None:
            log.info("candidate index dropped", extra={"collection": str(key[0])})
        self.watch.forget((*key, None))
