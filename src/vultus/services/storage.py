"""How the templates of collections lie in the database: what a change of it needs, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.domain import Storage
from vultus.errors import ConflictError

if TYPE_CHECKING:
    from vultus.db.database import UnitOfWork
    from vultus.domain import Collection


async def apply_storage(work: UnitOfWork, before: Collection, now: Collection) -> None:
    """Let a collection's templates be sealed if its policy says so from now on; it is locked.

    Raises:
        ConflictError: It was sealed before, or has an HNSW graph.
        KeyRingError: The keys cannot be used.
    """
    if before.policy.storage is now.policy.storage:
        return
    if now.policy.storage is Storage.OPEN:
        raise ConflictError(
            f"Collection '{now.name}' is sealed and stays so: its vectors would be written in plain. To "
            "leave, run 'vultus export-bundle' here and 'vultus import-bundle --storage open' in another installation."
        )
    check_graph(now)
    await work.person_keys.ensure_installation_keys()
    await work.sealings.add_sealing(now.id)


def check_graph(collection: Collection) -> None:
    """Raise if a sealed collection has an HNSW graph, which PostgreSQL would have to read.

    Raises:
        ConflictError: It has.
    """
    if collection.graph is not None and collection.policy.storage is Storage.SEALED:
        raise ConflictError(
            f"Collection '{collection.name}' cannot be sealed and have an HNSW graph, which holds vectors in plain. "
            "Set its search to auto, which drops the graph; a sealed collection has an index in memory."
        )
