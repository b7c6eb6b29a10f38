"""What a change of a collection's retention does to the consents that are there."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from vultus.domain import SEEN_INTERVAL
from vultus.errors import ConflictError

if TYPE_CHECKING:
    from vultus.db.database import UnitOfWork
    from vultus.domain import Collection

RETENTION_FIELDS = frozenset({"retention_days", "unseen_days"})


async def apply_retention(work: UnitOfWork, collection: Collection, *, end_older: bool) -> int:
    """Let the consents of a collection end as its retention says; return how many end at another time.

    A limit of their age shortens them for good. That of the time without being seen begins for everybody when it is
    set, since nobody was looked out for before, and is gone with the rule.

    Raises:
        ConflictError: Some would end at once, and `end_older` is not set.
    """
    days, unseen_days = collection.retention_days, collection.unseen_days
    kept = None if unseen_days is None else timedelta(days=unseen_days) + SEEN_INTERVAL
    if not end_older:
        if days is not None and (ending := await work.consents.count_consents_beyond(collection.id, days)):
            raise _refuse(collection, ending, f"were given more than {days} days ago")
        if kept is not None and (ending := await work.consents.count_consents_unseen(collection.id, kept)):
            raise _refuse(collection, ending, f"are of persons who were not seen for {unseen_days} days")
    shortened = 0 if days is None else await work.consents.shorten_consents(collection.id, days)
    return shortened + await work.consents.follow_unseen_rule(collection.id, kept)


def _refuse(collection: Collection, ending: int, why: str) -> ConflictError:
    return ConflictError(
        f"{ending} consents in '{collection.name}' {why}: they would end now, and the faces under them be erased. "
        "Nothing was changed; set end_older=true if that is meant.",
        consents=ending,
    )
