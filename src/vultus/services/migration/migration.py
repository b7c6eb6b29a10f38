"""Online model migration of a collection: two embedding spaces in parallel, a cutover, and a rollback."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vultus.db.repositories.collections import parse_policy
from vultus.domain import Collection, Coverage, Migration, Permission, Principal
from vultus.domain.events import MigrationCutOver, MigrationFinished, MigrationRetried, MigrationStarted
from vultus.errors import ConflictError, MigrationIncompleteError, NotFoundError
from vultus.services.migration.policy_translation import check_threshold_resolved, convert_policy

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import IdempotencyContext, SpaceRegistry, UnmigratedPerson


@dataclass(frozen=True, slots=True)
class MigrationState:
    """The progress of a collection's migration.

    Attributes:
        active: Coverage of the embedding space that is searched.
        second: Coverage of the other one.
        crops: Faces that have a retained crop.
    """

    collection: Collection
    migration: Migration
    active: Coverage
    second: Coverage
    crops: int


@dataclass(frozen=True, slots=True)
class CutoverResult:
    """A collection after a cutover.

    Attributes:
        before: The collection before it.
        collection: The collection after it.
        unmigrated_persons: Persons with faces of which none is in the space that is now searched.
        took_ms: From the call to its last write, the wait for other writers included.
    """

    before: Collection
    collection: Collection
    unmigrated_persons: int
    took_ms: float


@dataclass(frozen=True, slots=True)
class FinishedMigration:
    """A collection with a single embedding space again.

    Attributes:
        collection: The collection after the migration.
        removed_space_id: The embedding space whose templates were removed.
        templates: Number of templates removed.
        faces_lost: Faces that had no other template and were deleted with their crops.
        unmigrated_persons: Persons who lost their last face.
    """

    collection: Collection
    removed_space_id: str
    templates: int
    faces_lost: int
    unmigrated_persons: int


async def get_active_migration(work: UnitOfWork, collection: Collection) -> tuple[Migration, str]:
    """Return a collection's active migration and the id of its second embedding space.

    Raises:
        NotFoundError: It has none.
    """
    migration = await work.migrations.find_migration(collection.id)
    if migration is None or collection.second_space_id is None:
        raise NotFoundError(f"Collection '{collection.name}' is not changing its network.")
    return migration, collection.second_space_id


class MigrationService:
    """Starts, reports, cuts over and finishes the migration of a collection to another embedding space."""

    def __init__(self, database: Database, spaces: SpaceRegistry) -> None:
        self._database = database
        self._spaces = spaces

    async def start(
        self,
        principal: Principal,
        reference: str,
        *,
        pack: str,
        shadow_share: float,
        idempotency: IdempotencyContext | None = None,
    ) -> MigrationState:
        """Start dual writes to a second embedding space; on a repeated call, retry faces whose backfill failed.

        Raises:
            NotFoundError: The collection does not exist or the pack is not loaded.
            ConflictError: The collection is in that embedding space already, or is being migrated to another one.
        """
        target = self._spaces.get_space_of_pack(pack).id
        async with self._database.transaction(idempotency=idempotency, writes_to=reference) as work:
            collection = await work.open(reference, principal, Permission.CONFIGURE)
            existing = await work.migrations.find_migration(collection.id)
            if existing is None:
                if target == collection.space_id:
                    raise ConflictError(
                        f"Collection '{collection.name}' uses contract '{target}' of pack '{pack}' already."
                    )
                await work.migrations.add_migration(collection.id, target, shadow_share)
                await work.collections.update_collection(collection.id, second_contract_id=target)
            elif existing.target_space_id != target:
                raise ConflictError(
                    f"Collection '{collection.name}' is on its way to contract '{existing.target_space_id}'; "
                    "finish that first."
                )
            else:
                await work.backfill.delete_failures(collection.id)
                await work.migrations.update_migration(collection.id, shadow_share=shadow_share)
            event = MigrationStarted if existing is None else MigrationRetried
            state = await _build_state(work, await work.collections.get_collection(collection.id))
            await work.store_response(state)
            await work.record(principal, event(collection_id=collection.id, contract_id=target))
        return state

    async def get_state(self, principal: Principal, reference: str) -> MigrationState:
        """Return the progress of a collection's migration.

        Raises:
            NotFoundError: The collection does not exist or has no active migration.
        """
        async with self._database.transaction(read_only=True) as work:
            return await _build_state(work, await work.open(reference, principal, Permission.CONFIGURE))

    async def list_unmigrated_persons(
        self, principal: Principal, reference: str, *, after: UUID | None, limit: int
    ) -> tuple[UnmigratedPerson, ...]:
        """Return the persons without a face in the target embedding space; without a migration, in the only one.

        Raises:
            NotFoundError: The collection does not exist.
        """
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.CONFIGURE)
            migration = await work.migrations.find_migration(collection.id)
            space_id = migration.target_space_id if migration else collection.space_id
            return await work.migrations.list_unmigrated_persons(collection.id, space_id, after=after, limit=limit)

    async def cut_over(
        self,
        principal: Principal,
        reference: str,
        *,
        allow_unmigrated: bool,
        idempotency: IdempotencyContext | None = None,
    ) -> CutoverResult:
        """Exchange the active and the second embedding space; a rollback is a cutover in the other direction.

        Raises:
            NotFoundError: The collection does not exist or has no active migration.
            MigrationIncompleteError: Faces are pending or persons would no longer be found, and `allow_unmigrated` is
                not set.
            InvalidInputError: One of the calibrations does not resolve the policy's fixed threshold.
        """
        started = time.perf_counter()
        async with self._database.transaction(idempotency=idempotency, writes_to=reference) as work:
            collection = await work.open(reference, principal, Permission.CONFIGURE)
            migration, second = await get_active_migration(work, collection)
            coverage = await work.migrations.compute_coverage(collection.id, second)
            _check_complete(collection, coverage, "switch", allow_unmigrated=allow_unmigrated)
            last = migration.policies
            # A rollback restores the earlier policy, unless the policy was changed since the cutover.
            unchanged = last is not None and parse_policy(last["came"]) == collection.policy
            if last and unchanged:
                policy = parse_policy(last["left"])
            else:
                check_threshold_resolved(collection, second, self._spaces)
                policy = convert_policy(collection, second, self._spaces)
            changed = await work.collections.update_collection(
                collection.id, contract_id=second, second_contract_id=collection.space_id, policy=policy
            )
            await work.migrations.update_migration(
                collection.id,
                switched_at=datetime.now(UTC),
                policies={"left": asdict(collection.policy), "came": asdict(policy)},
            )
            await work.record(
                principal,
                MigrationCutOver(
                    collection_id=collection.id,
                    from_contract_id=collection.space_id,
                    to_contract_id=second,
                    persons_left_behind=coverage.persons_missing,
                ),
            )
            took_ms = (time.perf_counter() - started) * 1e3
            result = CutoverResult(collection, changed, coverage.persons_missing, took_ms)
            await work.store_response(result)
        return result

    async def finish(self, principal: Principal, reference: str, *, allow_unmigrated: bool) -> FinishedMigration:
        """Remove the templates of the second embedding space: the end of a migration, or its abort before a cutover.

        Raises:
            NotFoundError: The collection does not exist or has no active migration.
            MigrationIncompleteError: Faces have no template in the active space, and `allow_unmigrated` is not set.
        """
        async with self._database.transaction(writes_to=reference) as work:
            collection = await work.open(reference, principal, Permission.CONFIGURE)
            _, second = await get_active_migration(work, collection)
            coverage = await work.migrations.compute_coverage(collection.id, collection.space_id)
            _check_complete(collection, coverage, "finish", allow_unmigrated=allow_unmigrated)
            _check_none_lost(collection, coverage, allow_unmigrated=allow_unmigrated)
            await work.migrations.delete_migration(collection.id, second)
            templates = await work.templates.delete_templates(collection.id, second)
            changed = await work.collections.update_collection(collection.id, second_contract_id=None)
            await work.record(
                principal,
                MigrationFinished(
                    collection_id=collection.id,
                    kept=collection.space_id,
                    removed=second,
                    templates=templates,
                    faces_lost=coverage.missing,
                    persons_left_behind=coverage.persons_missing,
                ),
            )
        return FinishedMigration(changed, second, templates, coverage.missing, coverage.persons_missing)


def _check_complete(collection: Collection, coverage: Coverage, action: str, *, allow_unmigrated: bool) -> None:
    if allow_unmigrated:
        return
    if coverage.pending:
        raise MigrationIncompleteError(
            f"{coverage.pending} faces of '{collection.name}' are still to be carried to contract "
            f"'{coverage.contract_id}'. Wait for the server to do it, run 'vultus transition run', or set "
            "leave_behind.",
            pending=coverage.pending,
            persons=coverage.persons_missing,
        )
    if coverage.persons_missing:
        raise MigrationIncompleteError(
            f"{coverage.persons_missing} persons of '{collection.name}' have no face of contract "
            f"'{coverage.contract_id}' and would not be found after the {action}. See who they are in 'left-behind', "
            "supply their photos again, or set leave_behind.",
            pending=0,
            persons=coverage.persons_missing,
        )


def _check_none_lost(collection: Collection, coverage: Coverage, *, allow_unmigrated: bool) -> None:
    if coverage.missing and not allow_unmigrated:
        raise MigrationIncompleteError(
            f"{coverage.missing} faces of '{collection.name}' have no template of contract '{coverage.contract_id}' "
            "and would be erased with their crops; their persons keep other faces. Supply their photos again, or set "
            "leave_behind.",
            pending=0,
            persons=0,
        )


async def _build_state(work: UnitOfWork, collection: Collection) -> MigrationState:
    migration, second = await get_active_migration(work, collection)
    return MigrationState(
        collection,
        migration,
        await work.migrations.compute_coverage(collection.id, collection.space_id),
        await work.migrations.compute_coverage(collection.id, second),
        await work.crops.count_crops(collection.id),
    )
