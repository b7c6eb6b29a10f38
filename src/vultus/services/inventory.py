"""What is stored and whether it can be searched: for metrics, readiness and the log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vultus.utils import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vultus.db.database import Database
    from vultus.domain import SpaceRegistry

log = logging.getLogger(__name__)


class Inventory:
    """Counts what is stored, and finds collections that no loaded pack can search.

    Attributes:
        unserved: Names of the collections whose vectors no loaded pack makes, by the id of their embedding space; as of
            the last `check`.
    """

    def __init__(self, database: Database, spaces: SpaceRegistry) -> None:
        self._database = database
        self._spaces = spaces
        self.unserved: Mapping[str, tuple[str, ...]] = {}

    async def check(self) -> None:
        """Update the metrics and `unserved`, and log what is new of the latter."""
        async with self._database.transaction(read_only=True) as work:
            names = await work.inventory.list_names_by_space()
            counts = await work.inventory.count_stored()
        metrics.PERSONS.set(counts.persons)
        metrics.FACES.set(counts.faces)
        metrics.EXPIRED.set(counts.expired_consents)
        before, self.unserved = self.unserved, {one: names[one] for one in names if not self._spaces.find_space(one)}
        metrics.UNSERVED.set(sum(map(len, self.unserved.values())))
        for space_id, collections in self.unserved.items():
            if before.get(space_id) != collections:
                log.warning("%s", self._spaces.describe_unserved(space_id, collections))
