"""Stores collections and their partitions of faces."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Uuid, bindparam, column, delete, func, insert, literal, select, table, update
from sqlalchemy.dialects.postgresql import JSONB

from vultus.db.locks import acquire_lock, compute_lock_number, lock_collection
from vultus.db.record_tables import TombstoneRow
from vultus.db.repositories.idempotency import delete_collection_responses
from vultus.db.repositories.outbox import delete_sightings
from vultus.db.tables import CollectionRow, PersonRow
from vultus.domain import (
    Calibration,
    Collection,
    DecisionPolicy,
    Fusion,
    HnswGraph,
    HnswRecallLoss,
    LivenessMode,
    QualityRule,
    SearchMode,
    SearchRecording,
    Storage,
    TrackPolicy,
)
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Set
    from uuid import UUID

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.db.driver_session import StatementSession

PARTITION_LOCK = compute_lock_number("partitions")

_COLUMNS = (
    CollectionRow.id,
    CollectionRow.name,
    CollectionRow.contract_id,
    CollectionRow.policy,
    CollectionRow.retention_days,
    CollectionRow.created_at,
    CollectionRow.updated_at,
    CollectionRow.second_contract_id,
    CollectionRow.calibrations,
    CollectionRow.search,
    CollectionRow.graph,
    CollectionRow.unseen_days,
)
# Built once: building them costs more than executing them, and most requests execute them.
_BY_ID = select(*_COLUMNS).where(CollectionRow.id == bindparam("value"))
_BY_NAME = select(*_COLUMNS).where(CollectionRow.name == bindparam("value"))
# Of a principal that is bound to collections: another one must not even take longer than one that does not exist.
_IS_AMONG = CollectionRow.id == func.any(bindparam("among", type_=ARRAY(Uuid)))
_BY_ID_AMONG = _BY_ID.where(_IS_AMONG)
_BY_NAME_AMONG = _BY_NAME.where(_IS_AMONG)
_UPDATABLE_COLUMNS = {"name", "policy", "retention_days", "unseen_days", "contract_id", "second_contract_id", "search"}


def get_partition_name(collection_id: UUID) -> str:
    """Return the name of a collection's table of faces; derived from the id alone, so it needs no quoting."""
    return f"faces_{collection_id.hex}"


class CollectionQueries:
    """Queries for one collection, which need no transaction."""

    def __init__(self, session: StatementSession) -> None:
        self._session = session

    async def get_collection(self, collection_id: UUID, among: Set[UUID] | None = None) -> Collection:
        """Return a collection; if `among` is given, only one of these.

        Raises:
            NotFoundError: There is no collection with this id.
        """
        found = await self._find_collection(_BY_ID, _BY_ID_AMONG, collection_id, among)
        if found is None:
            raise NotFoundError(f"There is no collection with id {collection_id}.")
        return found

    async def get_collection_by_name(self, name: str, among: Set[UUID] | None = None) -> Collection:
        """Return the collection with this name; if `among` is given, only one of these.

        Raises:
            NotFoundError: There is no collection with this name.
        """
        found = await self._find_collection(_BY_NAME, _BY_NAME_AMONG, name, among)
        if found is None:
            raise NotFoundError(f"There is no collection named '{name}'.")
        return found

    async def _find_collection(
        self, query: Select[Any], query_among: Select[Any], value: object, among: Set[UUID] | None = None
    ) -> Collection | None:
        if among is None:
            row = (await self._session.execute(query, {"value": value})).one_or_none()
        else:
            row = (await self._session.execute(query_among, {"value": value, "among": list(among)})).one_or_none()
        return None if row is None else _build_collection(row)


class CollectionRepository(CollectionQueries):
    """Stores collections and creates and drops their partitions."""

    _session: AsyncSession

    def __init__(self, session: AsyncSession) -> None:
        super().__init__(session)

    async def add_collection(
        self,
        name: str,
        space_id: str,
        policy: DecisionPolicy,
        retention_days: int | None = None,
        unseen_days: int | None = None,
        *,
        collection_id: UUID | None = None,
    ) -> Collection:
        """Create an empty collection, with an id of its own unless one is given.

        Raises:
            AlreadyExistsError: The name is taken.
        """
        values: dict[str, Any] = {
            "name": name,
            "contract_id": space_id,
            "policy": asdict(policy),
            "retention_days": retention_days,
            "unseen_days": unseen_days,
        }
        if collection_id is not None:
            values["id"] = collection_id
        await acquire_lock(self._session, PARTITION_LOCK)
        row = (await self._session.execute(insert(CollectionRow).values(values).returning(*_COLUMNS))).one()
        await self._session.execute(select(func.vultus_create_partition(row.id)))
        return _build_collection(row)

    async def ensure_collection(self, name: str, space_id: str, policy: DecisionPolicy) -> tuple[Collection, bool]:
        """Return the collection with this name and whether it is new: created if there is none, by one process only."""
        if found := await self._find_collection(_BY_NAME, _BY_NAME_AMONG, name):
            return found, False
        # Creation holds this lock until commit; the second query sees a collection committed meanwhile.
        await acquire_lock(self._session, PARTITION_LOCK)
        if found := await self._find_collection(_BY_NAME, _BY_NAME_AMONG, name):
            return found, False
        return await self.add_collection(name, space_id, policy), True

    async def list_collections(
        self, after: UUID | None, limit: int, among: Set[UUID] | None = None
    ) -> tuple[Collection, ...]:
        """Return collections in order of creation, those after the given id; only those `among` some ids if given."""
        query = select(*_COLUMNS).order_by(CollectionRow.id).limit(limit)
        if after is not None:
            query = query.where(CollectionRow.id > after)
        if among is not None:
            query = query.where(CollectionRow.id.in_(among))
        return tuple(map(_build_collection, await self._session.execute(query)))

    async def update_collection(self, collection_id: UUID, **changes: Any) -> Collection:
        """Change `name`, `policy`, the retention, the embedding spaces, or `search` to a mode other than HNSW.

        Raises:
            NotFoundError: There is no such collection.
            AlreadyExistsError: The new name is taken.
        """
        if unknown := changes.keys() - _UPDATABLE_COLUMNS:
            raise TypeError(f"cannot change {sorted(unknown)}")
        if "policy" in changes:
            changes["policy"] = asdict(changes["policy"])
        if "search" in changes:
            changes["graph"] = None
        row = (
            await self._session.execute(
                update(CollectionRow)
                .where(CollectionRow.id == collection_id)
                .values(**changes, updated_at=func.now())
                .returning(*_COLUMNS)
            )
        ).one_or_none()
        if row is None:
            raise NotFoundError(f"There is no collection with id {collection_id}.")
        return _build_collection(row)

    async def set_calibration(self, collection_id: UUID, space_id: str, calibration: Calibration | None) -> None:
        """Replace the calibration for an embedding space; None deletes it."""
        kept = CollectionRow.calibrations.op("-", return_type=JSONB())(literal(space_id))
        added = {} if calibration is None else {space_id: asdict(calibration)}
        await self._session.execute(
            update(CollectionRow)
            .where(CollectionRow.id == collection_id)
            .values(calibrations=kept.op("||")(literal(added, JSONB)), updated_at=func.now())
        )

    async def set_hnsw_graph(self, collection_id: UUID, graph: HnswGraph) -> None:
        """Switch a collection to its existing HNSW graph."""
        stored = asdict(graph) | {"measured_at": graph.measured_at.isoformat()}
        await self._session.execute(
            update(CollectionRow)
            .where(CollectionRow.id == collection_id)
            .values(search=SearchMode.HNSW, graph=stored, updated_at=func.now())
        )

    async def delete_collection(self, collection_id: UUID) -> tuple[int, int]:
        """Delete a collection with its persons; return how many persons and faces were deleted.

        Dropping its partition removes the templates' files immediately.

        Raises:
            NotFoundError: There is no such collection.
        """
        # First, as everywhere: who waits for the writers of this collection must not stop the creation of others.
        await lock_collection(self._session, collection_id)
        await acquire_lock(self._session, PARTITION_LOCK)
        counts = await self.count_persons_and_faces(collection_id)
        await self._session.execute(select(func.vultus_drop_partition(collection_id)))
        await self._session.execute(delete(TombstoneRow).where(TombstoneRow.collection_id == collection_id))
        await delete_collection_responses(self._session, collection_id)
        await self._session.execute(delete(CollectionRow).where(CollectionRow.id == collection_id))
        await delete_sightings(self._session, collection_id)  # after those that the statement before waited for
        return counts

    async def count_persons_and_faces(self, collection_id: UUID) -> tuple[int, int]:
        """Return the numbers of persons and of faces, expired ones too.

        Raises:
            NotFoundError: There is no such collection.
        """
        collection = await self.get_collection(collection_id)
        # The partition is queried directly: a lock on the parent, even for reading, would deadlock two deletions, each
        # after its own count.
        faces = table(get_partition_name(collection_id), column("id"))
        # Only during a migration has a face more than one row; counting distinct ids needs a sort.
        count = func.count() if collection.second_space_id is None else func.count(faces.c.id.distinct())
        row = (
            await self._session.execute(
                select(
                    select(func.count()).where(PersonRow.collection_id == collection_id).scalar_subquery(),
                    select(count).select_from(faces).scalar_subquery(),
                )
            )
        ).one()
        return row[0], row[1]


def _build_collection(row: Any) -> Collection:
    return Collection(
        id=row.id,
        name=row.name,
        space_id=row.contract_id,
        policy=parse_policy(row.policy),
        retention_days=row.retention_days,
        created_at=row.created_at,
        updated_at=row.updated_at,
        second_space_id=row.second_contract_id,
        calibrations={space_id: Calibration.from_document(stored) for space_id, stored in row.calibrations.items()},
        search=SearchMode(row.search),
        graph=_parse_graph(row.graph) if row.graph else None,
        unseen_days=row.unseen_days,
    )


def parse_policy(stored: dict[str, Any]) -> DecisionPolicy:
    """Return the policy of a stored mapping."""
    rules = {name: QualityRule(**stored[name]) for name in ("enrol", "recognize")}
    return DecisionPolicy(
        **{
            **stored,
            **rules,
            "fusion": Fusion(stored.get("fusion", Fusion.BEST)),
            "liveness": LivenessMode(stored.get("liveness", LivenessMode.OFF)),
            "record_searches": SearchRecording(stored.get("record_searches", SearchRecording.NONE)),
            "tracks": TrackPolicy(**stored.get("tracks", {})),
            "storage": Storage(stored.get("storage", Storage.OPEN)),
        }
    )


def _parse_graph(stored: dict[str, Any]) -> HnswGraph:
    measured_at = datetime.fromisoformat(stored["measured_at"])
    return HnswGraph(**stored | {"measured_at": measured_at, "loss": HnswRecallLoss(**stored["loss"])})
