"""Collections and their partitions."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, column, delete, func, insert, literal, select, table, text, update
from sqlalchemy.dialects.postgresql import JSONB

from vultus.db.locks import lock, lock_collection, number_of
from vultus.db.tables import UNSAMPLED, CollectionRow, PersonRow
from vultus.domain import (
    Calibration,
    Collection,
    DecisionPolicy,
    Fusion,
    Graph,
    GraphLoss,
    LivenessMode,
    QualityRule,
    SearchMode,
)
from vultus.errors import NotFoundError

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

PARTITION_LOCK = number_of("partitions")

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
)
# Built once: building them takes longer than asking, and most requests ask.
_BY_ID = select(*_COLUMNS).where(CollectionRow.id == bindparam("value"))
_BY_NAME = select(*_COLUMNS).where(CollectionRow.name == bindparam("value"))
_CHANGEABLE = {"name", "policy", "retention_days", "contract_id", "second_contract_id", "search"}


def partition_of(collection_id: UUID) -> str:
    """Return the name of the table with a collection's faces; it is made of the id alone, so it needs no quoting."""
    return f"faces_{collection_id.hex}"


class Collections:
    """The galleries."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(
        self, name: str, contract_id: str, policy: DecisionPolicy, retention_days: int | None = None
    ) -> Collection:
        """Create an empty collection.

        Raises:
            AlreadyExistsError: The name is taken.
        """
        values = _values(name, contract_id, policy, retention_days)
        await lock(self._session, PARTITION_LOCK)
        row = (await self._session.execute(insert(CollectionRow).values(values).returning(*_COLUMNS))).one()
        await self._make_partition(row.id)
        return _collection(row)

    async def ensure(self, name: str, contract_id: str, policy: DecisionPolicy) -> Collection:
        """Return the collection with this name, creating it if there is none; safe in several processes at once."""
        if found := await self._one(_BY_NAME, name):
            return found
        # Whoever makes a collection holds this until it is committed; the second look sees what the first missed.
        await lock(self._session, PARTITION_LOCK)
        return await self._one(_BY_NAME, name) or await self.add(name, contract_id, policy)

    async def get(self, collection_id: UUID) -> Collection:
        """Return a collection.

        Raises:
            NotFoundError: There is none with this id.
        """
        found = await self._one(_BY_ID, collection_id)
        if found is None:
            raise NotFoundError(f"There is no collection with id {collection_id}.")
        return found

    async def by_name(self, name: str) -> Collection:
        """Return the collection with this name.

        Raises:
            NotFoundError: There is none.
        """
        found = await self._one(_BY_NAME, name)
        if found is None:
            raise NotFoundError(f"There is no collection named '{name}'.")
        return found

    async def page(self, after: UUID | None, limit: int) -> tuple[Collection, ...]:
        """Return collections in order of creation, those after the given id."""
        query = select(*_COLUMNS).order_by(CollectionRow.id).limit(limit)
        if after is not None:
            query = query.where(CollectionRow.id > after)
        return tuple(map(_collection, await self._session.execute(query)))

    async def change(self, collection_id: UUID, **changes: Any) -> Collection:
        """Change `name`, `policy`, `retention_days`, the contracts or `search`, to another mode than HNSW.

        Raises:
            NotFoundError: There is no such collection.
            AlreadyExistsError: The new name is taken.
        """
        if unknown := changes.keys() - _CHANGEABLE:
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
        return _collection(row)

    async def calibrate(self, collection_id: UUID, contract_id: str, calibration: Calibration | None) -> None:
        """Store the calibration of a contract, in place of one stored before; with None forget it."""
        kept = CollectionRow.calibrations.op("-", return_type=JSONB())(literal(contract_id))
        added = {} if calibration is None else {contract_id: asdict(calibration)}
        await self._session.execute(
            update(CollectionRow)
            .where(CollectionRow.id == collection_id)
            .values(calibrations=kept.op("||")(literal(added, JSONB)), updated_at=func.now())
        )

    async def search_along(self, collection_id: UUID, graph: Graph) -> None:
        """Have a collection searched along its graph, which is there."""
        stored = asdict(graph) | {"measured_at": graph.measured_at.isoformat()}
        await self._session.execute(
            update(CollectionRow)
            .where(CollectionRow.id == collection_id)
            .values(search=SearchMode.HNSW, graph=stored, updated_at=func.now())
        )

    async def delete(self, collection_id: UUID) -> tuple[int, int]:
        """Remove a collection with everybody in it, and return how many persons and faces went.

        Dropping its partition removes the templates' files at once.

        Raises:
            NotFoundError: There is no such collection.
        """
        await lock(self._session, PARTITION_LOCK)
        # Who writes to the collection holds this; waiting for them here, holding nothing they need, avoids deadlocks.
        await lock_collection(self._session, collection_id)
        gone = await self.counts(collection_id)
        await self._session.execute(text(f"DROP TABLE {partition_of(collection_id)}"))
        await self._session.execute(delete(CollectionRow).where(CollectionRow.id == collection_id))
        return gone

    async def counts(self, collection_id: UUID) -> tuple[int, int]:
        """Return the numbers of persons and of faces, expired ones too.

        Raises:
            NotFoundError: There is no such collection.
        """
        home = await self.get(collection_id)
        # The partition by its own name: a lock on the parent, even for reading, would make two deletions, each after
        # its own count, wait for one another.
        faces = table(partition_of(collection_id), column("id"))
        # Only on the way to another network has a face more than one row; telling them apart takes a sort.
        count = func.count() if home.second_contract_id is None else func.count(faces.c.id.distinct())
        row = (
            await self._session.execute(
                select(
                    select(func.count()).where(PersonRow.collection_id == collection_id).scalar_subquery(),
                    select(count).select_from(faces).scalar_subquery(),
                )
            )
        ).one()
        return row[0], row[1]

    async def _one(self, query: Select[Any], value: object) -> Collection | None:
        row = (await self._session.execute(query, {"value": value})).one_or_none()
        return None if row is None else _collection(row)

    async def _make_partition(self, collection_id: UUID) -> None:
        # Attaching a finished table locks the parent against other attachments only; CREATE TABLE … PARTITION OF
        # would wait for every search of every collection.
        partition = partition_of(collection_id)
        statements = [
            f"CREATE TABLE {partition} (LIKE faces INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)",
            *(f"ALTER TABLE {partition} ALTER {name} SET STATISTICS 0" for name in UNSAMPLED["faces"]),
            f"ALTER TABLE faces ATTACH PARTITION {partition} FOR VALUES IN ('{collection_id}')",
        ]
        for statement in statements:
            await self._session.execute(text(statement))


def _collection(row: Any) -> Collection:
    return Collection(
        id=row.id,
        name=row.name,
        contract_id=row.contract_id,
        policy=policy_of(row.policy),
        retention_days=row.retention_days,
        created_at=row.created_at,
        updated_at=row.updated_at,
        second_contract_id=row.second_contract_id,
        calibrations={contract: _calibration(stored) for contract, stored in row.calibrations.items()},
        search=SearchMode(row.search),
        graph=_graph(row.graph) if row.graph else None,
    )


def _values(name: str, contract_id: str, policy: DecisionPolicy, retention_days: int | None) -> dict[str, Any]:
    return {
        "name": name,
        "contract_id": contract_id,
        "policy": asdict(policy),
        "retention_days": retention_days,
    }


def policy_of(stored: dict[str, Any]) -> DecisionPolicy:
    """Return a policy that was stored as a mapping."""
    rules = {name: QualityRule(**stored[name]) for name in ("enrol", "recognize")}
    return DecisionPolicy(
        **{
            **stored,
            **rules,
            "fusion": Fusion(stored.get("fusion", Fusion.BEST)),
            "liveness": LivenessMode(stored.get("liveness", LivenessMode.OFF)),
        }
    )


def _calibration(stored: dict[str, Any]) -> Calibration:
    points = tuple((float(rate), float(threshold)) for rate, threshold in stored["points"])
    fitted = stored.get("logistic")
    return Calibration(
        points=points,
        margin=stored["margin"],
        source=stored["source"],
        logistic=(float(fitted[0]), float(fitted[1])) if fitted else None,
    )


def _graph(stored: dict[str, Any]) -> Graph:
    measured_at = datetime.fromisoformat(stored["measured_at"])
    return Graph(**stored | {"measured_at": measured_at, "loss": GraphLoss(**stored["loss"])})
